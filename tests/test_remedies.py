"""What an error message advises works: each remedy is run, and no message with one is left out."""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from oracles import needs_wider
from scipy import special

import lagrad as lg

LAGRAD = Path(lg.__file__).parent
X = np.array([0.5, 1.5])


def program(statement):
    """A program of a parameter a = 2 and an unknown z, of which something is stated."""
    p = lg.Program("stated")
    a, z = p.parameter("a", value=2.0), p.unknown("z", start=1.0)
    statement(p, a, z)
    return p


def solved(statement, **how):
    return lambda: program(statement).solve(**how)


def told(f, **numbers):
    """Equal to what it is called with."""
    return lambda: np.testing.assert_allclose(f(), next(iter(numbers.values())), rtol=1e-6)


KEPT = []


def keep(x):
    KEPT[:] = [x]
    return np.sum(x**2)


def later(f):
    """A function of a value that was kept of an earlier trace."""

    def run():
        lg.grad(keep)(X)
        return f(KEPT[0])

    return run


def kept_number():
    lg.grad(lambda x: (KEPT.append(x), x**2)[1])(1.0)
    return KEPT.pop()


def tied(a, last=None):
    """Two unknowns of which their sum is known, or one of them as well."""
    total = lambda z: z[0] + z[1] - a
    other = (lambda z: 2 * total(z)) if last is None else last
    return lg.root(lambda z: np.stack([total(z), other(z)]), np.zeros(2))


def bisected(x):
    low, high = 0.0, 2.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if middle * middle < x else (low, middle)
    return low


def gradient_in_place(x):
    y = np.zeros(2)
    y += x
    return np.sum(y)


def by_bytes(x):
    """A function that traced values cannot follow."""
    return np.sum(np.frombuffer(x.tobytes()) ** 2)


def pulled_back_later(x):
    made = []

    def f(x):
        made.append(lg.vjp(lambda y: y**2, x)[1])
        return np.sum(x)

    lg.grad(f)(x)
    return made[0](np.ones(2))


def unnamed(name=None):
    p = lg.Program()
    value = p.parameter("x", value=2.0) ** 2
    unnamed.value = value
    p.define(name or "other", value if name else 2 * value)
    return p


def added(x):
    y = 2 * x
    other = y
    y += 1
    return np.sum(y * other)


PENALISED = lambda z, a: (z[0] + z[1] - a) ** 2 + 0.1 * np.sum(z**2)
LINEAR = np.diag([1.0, 2.0, 4.0]) + np.diag([1.0, 1.0], 1)

# What a message says, how it is come by, and what it advises.
REMEDIES = {
    # --- tracing -------------------------------------------------------------------------------
    "or give it a rule: f = lg.primitive(np.": (
        lambda: lg.grad(lambda x: np.sum(np.unwrap(x)))(X),
        lambda: lg.grad(lambda x: np.sum(lg.primitive(np.unwrap, vjp=lambda g, y, x: (g,))(x)))(X),
    ),
    "use np.where or astype instead": (
        lambda: lg.grad(lambda x: np.sum(np.exp(x, where=x > 1)))(X),
        told(lambda: lg.grad(lambda x: np.sum(np.where(x > 1, np.exp(x), 0)))(X)[0], zero=0.0),
        lambda: lg.grad(lambda x: np.sum(np.astype(x, np.float32)))(X),
    ),
    "write `x = x + v`": (
        lambda: lg.grad(added)(X),
        lambda: lg.grad(lambda x: np.sum((2 * x + 1) * 2 * x))(X),
    ),
    "write `a = a + t`": (
        lambda: lg.grad(gradient_in_place)(X),
        lambda: lg.grad(lambda x: np.sum(np.zeros(2) + x))(X),
    ),
    "make arrays of such by np.stack or np.block": (
        lambda: lg.grad(lambda x: np.sum(np.array([x, 2 * x], dtype=float)))(1.0),
        lambda: lg.grad(lambda x: np.sum(np.stack([x, 2 * x])))(1.0),
        lambda: lg.grad(lambda x: np.sum(np.block([[2.0, x], [x, 3.0]])))(1.0),
    ),
    "leave out np.asarray or np.array": (
        lambda: lg.grad(lambda x: np.sum(np.asarray(x)))(np.ones(200_000)),
        lambda: lg.grad(lambda x: np.sum(x))(np.ones(200_000)),
    ),
    "Return it from the function instead of storing it elsewhere": (
        later(lambda x: np.sum(x).shape and float(x[0])),
        lambda: lg.value_and_grad(lambda x: np.sum(x**2))(X),
    ),
    "declare real and imaginary parts": (
        lambda: lg.grad(lambda x: np.sum(x * (1 + 2j)))(X),
        lambda: lg.jacobian(lambda x: np.stack([x * 1, x * 2]))(X),
    ),
    "which depends on no argument; return a traced value or a float": (
        lambda: lg.grad(lambda x: True)(1.0),
        lambda: lg.grad(lambda x: 1.0)(1.0),
    ),
    "returned None; return the value to be differentiated": (
        lambda: lg.grad(lambda x: None)(1.0),
        lambda: lg.grad(lambda x: 2 * x)(1.0),
    ),
    "writes in place; use its result": (
        lambda: lg.grad(lambda x: np.sum(x, out=np.zeros(())))(X),
        lambda: lg.grad(lambda x: np.sum(x))(X),
    ),
    "whose operations are not NumPy's; pass an array": (
        lambda: lg.grad(lambda x: np.sum(x))(np.ma.array([1.0, 2.0])),
        lambda: lg.grad(lambda x: np.sum(x))(np.array([1.0, 2.0])),
    ),
    "make a vector by np.stack([a, 2 * a]), a matrix by np.block([[2.0, a], [a, 3.0]])": (
        lambda: lg.grad(lambda x: np.linalg.det(np.array([[2.0, x], [x, 3.0]])))(1.0),
        told(lambda: lg.grad(lambda a: np.linalg.det(np.block([[2.0, a], [a, 3.0]])))(1.0), d=-2.0),
        lambda: lg.grad(lambda a: np.sum(np.stack([a, 2 * a])))(1.0),
    ),
    'or take differences, lg.primitive(f, jvp="centered")': (
        lambda: lg.grad(by_bytes)(X),
        lambda: lg.grad(lg.primitive(by_bytes, jvp="centered"))(X),
        lambda: lg.grad(lg.primitive(by_bytes, vjp=lambda g, y, x: (g * 2 * x,)))(X),
        lambda: lg.grad(lambda x: np.sum(x**2))(X),
    ),
    "or the dtype of np.asarray of them, which is object. Leave these out": (
        lambda: lg.grad(lambda x: np.sum(x) * (2.0 if np.asarray(x).dtype == object else 1.0))(X),
        lambda: lg.grad(lambda x: np.sum(x))(X),
    ),
    "made in a traced function that is over; call it there, or make it outside": (
        lambda: pulled_back_later(X),
        lambda: lg.grad(lambda x: np.sum(lg.vjp(lambda y: y**2, x)[1](np.ones(2))[0]))(X),
        lambda: lg.vjp(lambda y: y**2, X)[1](np.ones(2)),
    ),
    "and call transforms in the thread of the function that is traced": (
        later(lambda x: lg.grad(lambda y: np.sum(y))(x)),
        lambda: lg.grad(lambda x: np.sum(lg.grad(lambda y: np.sum(y**2))(x)))(X),
    ),
    "the value from the function instead of storing it elsewhere": (
        lambda: float(kept_number()),
        lambda: lg.value_and_grad(lambda x: np.sum(x**2))(X),
    ),
    "used later. Return it from the function instead": (
        lambda: (lambda k: lg.grad(lambda y: y * k)(1.0))(kept_number()),
        lambda: lg.grad(lambda y: np.sum(y) * lg.grad(keep)(X)[0])(X),
    ),
    "is asked for while a derivative is traced. Ask for it outside": None,  # nobody has come by it
    "Use NumPy's functions, not math's": (
        lambda: lg.grad(lambda x: __import__("math").sin(x))(1.0),
        lambda: lg.grad(np.sin)(1.0),
        lambda: lg.grad(lambda x: x * float(lg.stop_gradient(np.asarray(2.0))))(1.0),
    ),
    "Choose by np.where, np.maximum or np.abs, move the point, or state": (
        lambda: lg.grad(bisected)(1.0),
        told(lambda: lg.grad(lambda x: lg.root(lambda z: z * z - x, 1.5))(1.0), half=0.5),
        lambda: lg.grad(lambda x: np.where(x > 1, x, 2 * x))(1.0),
        lambda: lg.grad(lambda x: np.maximum(x, 1.0) + np.abs(x - 1))(1.0),
    ),
    "use np.any, np.all or one of its entries": (
        lambda: lg.grad(lambda x: np.sum(x) if x > 0 else 0 * np.sum(x))(X),
        lambda: lg.grad(lambda x: np.sum(x) if np.all(x > 0) else 0 * np.sum(x))(X),
        lambda: lg.grad(lambda x: np.sum(x) if x[0] > 0 else 0 * np.sum(x))(X),
    ),
    "returned truths or integers, which have no derivative; return floats": (
        lambda: lg.grad(lambda x: x > 0)(1.0),
        lambda: lg.grad(lambda x: np.where(x > 0, x, 0.0))(1.0),
    ),
    "Return its sum or mean, or use lg.jacobian": (
        lambda: lg.grad(lambda x: x**2)(X),
        lambda: lg.grad(lambda x: np.sum(x**2))(X),
        lambda: lg.grad(lambda x: np.mean(x**2))(X),
        lambda: lg.jacobian(lambda x: x**2)(X),
    ),
    "inside a traced function use jacobian without it, vjp or jvp": (
        lambda: lg.grad(lambda x: lg.jacobian(lambda y: y**2, sparse=True)(x)[0, 0])(X),
        lambda: lg.grad(lambda x: lg.jacobian(lambda y: y**2)(x)[0, 0])(X),
        lambda: lg.grad(lambda x: np.sum(lg.vjp(lambda y: y**2, x)[1](np.ones(2))))(X),
        lambda: lg.grad(lambda x: np.sum(lg.jvp(lambda y: y**2, (x,), (np.ones(2),))[1]))(X),
    ),
    "order=2 is for functions of one argument; put them into a tuple": (
        lambda: lg.check_gradient(lambda x, y: np.sum(x * y), X, X, order=2),
        lambda: lg.check_gradient(lambda xy: np.sum(xy[0] * xy[1]), (X, X), order=2),
    ),
    "Ask for np.ndim(x) or np.shape(x) instead": (
        lambda: lg.check_gradient(lambda x: 2.0 * x if np.isscalar(x) else 3.0 * x, 1.5),
        lambda: lg.check_gradient(lambda x: 2.0 * x if np.ndim(x) == 0 else 3.0 * x, 1.5),
        lambda: lg.check_gradient(lambda x: 2.0 * x if np.shape(x) == () else 3.0 * x, 1.5),
    ),
    "pass a plain dict, list or tuple": (
        lambda: lg.grad(lambda d: np.sum(d["x"]))(__import__("collections").Counter(x=1)),
        lambda: lg.grad(lambda d: np.sum(d["x"]))({"x": 1.0}),
    ),
    "Call the function itself there, or trace it outside": (
        lambda: lg.grad(lambda x: lg.trace(np.sin, x).solve()["output"])(1.0),
        lambda: lg.grad(lambda x: np.sin(x))(1.0),
        lambda: lg.trace(np.sin, 1.0),
    ),
    "Implicit functions stand in functions: write one, and take lg.trace of it": (
        solved(lambda p, a, z: p.subject_to(z == lg.root(lambda y: y - 1.0, a))),
        lambda: lg.trace(lambda a: lg.root(lambda y: y - 1.0, a), 2.0),
        solved(lambda p, a, z: p.subject_to(z == 1.0)),
    ),
    # --- declared programs ---------------------------------------------------------------------
    "state it with subject_to, or compare with np.equal inside np.where": (
        solved(lambda p, a, z: p.subject_to(z == (a if z == a else 2 * a))),
        solved(lambda p, a, z: p.subject_to(z == np.where(np.equal(a, 2.0), a, 2 * a))),
    ),
    "is an option of solve: give the parameter another name": (
        lambda: lg.Program().parameter("start"),
        lambda: lg.Program().parameter("begin"),
    ),
    "is no variable; give it a name with define": (
        lambda: unnamed().solve().gradient(unnamed.value),
        lambda: unnamed(name="y").solve().gradient("y"),
    ),
    "was given None; leave it out instead": (
        solved(lambda p, a, z: p.subject_to(z == a), a=None),
        solved(lambda p, a, z: p.subject_to(z == a)),
    ),
    "use solve(), or leave equations out": None,  # test_redundant_equations.py
    "declare it there as a parameter": (
        solved(lambda p, a, z: p.subject_to(z == lg.Program("q").parameter("b", value=1.0))),
        solved(lambda p, a, z: p.subject_to(z == p.parameter("b", value=1.0))),
    ),
    "a function that is traced has no use for it": (
        solved(lambda p, a, z: p.define("y", lg.root(lambda y: y - a, 0.0))),
        lambda: lg.trace(lambda a: lg.root(lambda y: y - a, 0.0), 2.0).solve(),
        solved(lambda p, a, z: p.subject_to(z == a)),
    ),
    "declare what it should determine with `unknown`": (
        solved(lambda p, a, z: p.subject_to(a == 2.0)),
        solved(lambda p, a, z: p.subject_to(z == a)),
    ),
    "Use jacobian, or define its sum": (
        lambda: vector_program().solve().gradient("y"),
        lambda: vector_program().solve().jacobian("y", "x"),
        lambda: vector_program(total=True).solve().gradient("sum"),
    ),
    "(A parameter of that name is given in a dict: solve({'start': …}).)": (
        solved(lambda p, a, z: p.subject_to(z == a), start=3.0),
        solved(lambda p, a, z: p.subject_to(z == a), start={"z": 3.0}),
    ),
    "Add or drop equations so that each part has as many as unknowns": (
        solved(lambda p, a, z: p.unknown("w") is p.subject_to(z == a)),
        solved(lambda p, a, z: (p.subject_to(z == a), p.subject_to(p.unknown("w") == z))),
    ),
    "give another": (
        solved(lambda p, a, z: p.subject_to(np.log(z - 1) == a)),
        solved(lambda p, a, z: p.subject_to(np.log(z - 1) == a), start={"z": 3.0}),
        lambda: log_program(3.0).solve(),
    ),
    "Add one that fixes what is free, in the place of one or beside them, or start elsewhere": (
        lambda: pair(lambda x, y, a: [x + y == a, 2 * x + 2 * y == 2 * a]).solve(),
        lambda: pair(lambda x, y, a: [x + y == a, x == 0.0]).solve(),
        lambda: pair(lambda x, y, a: [x + y == a, 2 * x + 2 * y == 2 * a, x == 0.0]).solve(),
    ),
    "use DenseLU or SparseLU": (
        lambda: unsymmetric(lg.Cholesky()),
        lambda: unsymmetric(lg.DenseLU()),
        lambda: unsymmetric(lg.SparseLU()),
    ),
    "rule, lg.primitive(f, vjp=…), or make it smooth": (
        lambda: lg.grad(lg.primitive(lambda x: np.round(x, 3), jvp="centered"))(1.2345),
        lambda: lg.grad(lg.primitive(lambda x: np.round(x, 3), vjp=lambda c, y, x: (c,)))(1.2345),
        lambda: lg.grad(lg.primitive(np.tanh, jvp="centered"))(1.2345),
    ),
    "Start elsewhere, or write it so that nothing does": (
        lambda: saturated(lambda x: 1 / (1 + np.exp(-x)), 1.0, 0.0),
        lambda: saturated(lambda x: 1 / (1 + np.exp(-x)), 0.5, 0.5),
        lambda: saturated(special.expit, 1.0, 0.0),
        lambda: lg.root(
            lambda z: z - 0.01 * lg.logsumexp(np.stack([1000 + 90 * z, 3 + 0 * z])), 0.0
        ),
    ),
    "Change the numbers in them so that it leaves nothing, or drop an equation": (
        lambda: pair(lambda x, y, a: [x + y == a, 2 * x + 2 * y == 3.0]).solve(),
        lambda: pair(lambda x, y, a: [x + y == a, 2 * x + 2 * y == 4.0, x == 0.0]).solve(),
        lambda: pair(lambda x, y, a: [x + y == a, x == 0.0]).solve(),
    ),
    "Leave equations out, or ask for the least squares, in a function": (
        solved(lambda p, a, z: (p.subject_to(z == a), p.subject_to(z == 3.0))),
        solved(lambda p, a, z: p.subject_to(z == a)),
        lambda: lg.argmin(lambda z: (z - 2.0) ** 2 + (z - 3.0) ** 2, 0.0),
    ),
    "Leave equations out, or differentiate the least squares, in a function": (
        lambda: (
            program(lambda p, a, z: (p.subject_to(z == a), p.subject_to(z == 2.0)))
            .solve()
            .gradient("z")
        ),
        lambda: program(lambda p, a, z: p.subject_to(z == a)).solve().gradient("z"),
        lambda: lg.grad(lambda a: lg.argmin(lambda z: (z - a) ** 2 + (z - 2.0) ** 2, 0.0))(2.0),
    ),
    "Rescale or reformulate the equations, or ask for less: accuracy=…": (
        lambda: shallow(4.4e-13),
        lambda: shallow(4.4e-13, accuracy=1e-4),
        lambda: shallow(4.4e-13, reformulated=True),
    ),
    "State them by the inverse, y**2 for x in the place of x**0.5 for y": None,  # test_errors.py
    "State it as a simple one, z - a in the place of (z - a)**2": (
        solved(lambda p, a, z: p.subject_to((z - a) ** 3 == 0)),
        solved(lambda p, a, z: p.subject_to(z - a == 0)),
    ),
    "Start nearer": (
        solved(lambda p, a, z: p.subject_to(np.arctan(z) == a * 1.0)),
        solved(lambda p, a, z: p.subject_to(np.arctan(z) == a / 2), start={"z": 1.5}),
    ),
    "They leave a direction free: fix one unknown of it": None,  # nobody has come by it
    # --- implicit functions --------------------------------------------------------------------
    "Move it, or make both branches agree in slope": (
        lambda: lg.grad(lambda a: lg.root(lambda z: z - a if z > 1 else 2 * (z - a), 2.0))(1.0),
        lambda: lg.grad(lambda a: lg.root(lambda z: z - a if z > 1 else 2 * (z - a), 2.0))(1.5),
    ),
    "or jumps there; make it continuous": (
        lambda: lg.root(lambda z: z + 1 if z > 0 else z - 1, 0.5),
        lambda: lg.root(lambda z: z + 1 if z > -1 else 0.5 * (z + 1), 0.5),
    ),
    'If that point is meant, ask for solver="newton"': (
        lambda: lg.fixed_point(lambda z: 3.2 * z * (1 - z), 0.6875, solver="anderson"),
        told(lambda: lg.fixed_point(lambda z: 3.2 * z * (1 - z), 0.6, solver="newton"), z=0.6875),
    ),
    "damp the step, start nearer, or solve z = step(z) by": (
        lambda: lg.fixed_point(lambda z: 3.9 * z * (1 - z), 0.2, solver="picard"),
        lambda: lg.fixed_point(lambda z: 0.7 * z + 0.3 * 3.9 * z * (1 - z), 0.2, solver="picard"),
        lambda: lg.fixed_point(lambda z: 3.9 * z * (1 - z), 0.7, solver="newton"),
    ),
    "argmin(gradient=…) is solved by Newton's method; leave solver out": (
        lambda: lg.argmin(
            lambda z: (z - 1) ** 2, 0.0, gradient=lambda z: 2 * (z - 1), solver="BFGS"
        ),
        lambda: lg.argmin(lambda z: (z - 1) ** 2, 0.0, gradient=lambda z: 2 * (z - 1)),
    ),
    "Start elsewhere, add a penalty, or, where the point is meant": (
        lambda: lg.argmin(lambda z: z[0] ** 2 - z[1] ** 2, np.zeros(2)),
        lambda: lg.argmin(lambda z: z[0] ** 2 - z[1] ** 2 + 2 * z[1] ** 2, np.zeros(2)),
        lambda: lg.argmin(lambda z: z[0] ** 2 + (z[1] ** 2 - 1) ** 2, np.array([0.0, 0.8])),
        lambda: lg.argmin(
            lambda z: z[0] ** 2 - z[1] ** 2, np.zeros(2), linear=lg.DenseLU()
        ),
    ),
    "a root has no step to be iterated; state one as a fixed point": (
        lambda: lg.grad(
            lambda a: lg.root(lambda z: z - a, 0.0, differentiate=lg.Unrolled(5))
        )(1.0),
        lambda: lg.grad(
            lambda a: lg.fixed_point(lambda z: 0.5 * z + a, 0.0, differentiate=lg.Unrolled(5))
        )(1.0),
    ),
    "a fixed point is iterated by its own step: leave optimizer out": (
        lambda: lg.grad(
            lambda a: lg.fixed_point(
                lambda z: 0.5 * z + a,
                0.0,
                differentiate=lg.Unrolled(5, optimizer=lg.optim.gradient_descent(0.1)),
            )
        )(1.0),
        lambda: lg.grad(
            lambda a: lg.fixed_point(lambda z: 0.5 * z + a, 0.0, differentiate=lg.Unrolled(5))
        )(1.0),
    ),
    "there: give optimizer=…": (
        lambda: lg.grad(
            lambda a: lg.argmin(
                lambda z: (z * z - a) ** 2, 0.1, differentiate=lg.Unrolled(50)
            )
        )(1.0),
        lambda: lg.grad(
            lambda a: lg.argmin(
                lambda z: (z * z - a) ** 2,
                0.1,
                differentiate=lg.Unrolled(50, optimizer=lg.optim.gradient_descent(0.1)),
            )
        )(1.0),
    ),
    "leave it out where derivatives are nested": (
        lambda: lg.hessian(lambda a: lg.argmin(lambda z: (z - a) ** 2, 0.0, damping=0.1) ** 2)(1.0),
        lambda: lg.hessian(lambda a: lg.argmin(lambda z: (z - a) ** 2, 0.0) ** 2)(1.0),
    ),
    "fix it, by an equation in the place of one that follows from the others": (
        lambda: lg.grad(lambda a: tied(a)[0])(1.0),
        lambda: lg.grad(lambda a: tied(a, lambda z: z[0] - 1)[0])(1.0),
        lambda: lg.grad(lambda a: lg.argmin(PENALISED, np.zeros(2), a)[0])(1.0),
        told(lambda: lg.grad(lambda a: np.sum(tied(a)))(1.0), one=1.0),
    ),
    "Start the inner ones nearer to the solution that is meant": None,  # nobody has come by it
    # --- linear solvers ------------------------------------------------------------------------
    "use GMRES or SparseLU": (
        lambda: lg.root(lambda z: LINEAR @ z - 1, np.zeros(3), linear=lg.MINRES()),
        lambda: lg.root(lambda z: LINEAR @ z - 1, np.zeros(3), linear=lg.GMRES()),
        lambda: lg.root(lambda z: LINEAR @ z - 1, np.zeros(3), linear=lg.SparseLU()),
    ),
    "raise max_steps or restart, loosen tol, give a preconditioner, or use SparseLU": (
        lambda: laplace(lg.GMRES(max_steps=4, restart=2)),
        lambda: laplace(lg.GMRES(max_steps=400)),
        lambda: laplace(lg.GMRES(max_steps=200, restart=100)),
        lambda: laplace(lg.GMRES(max_steps=4, restart=2, preconditioner="ilu")),
        lambda: laplace(lg.SparseLU()),
    ),
    "processes= needs a system that forks; use threads=": None,  # this one forks
    # --- models --------------------------------------------------------------------------------
    "use loss='squared_epsilon_insensitive'": None,  # below
    "use fewer folds, or stratified ones": None,  # below
    "leave it out, or search without gradients": None,  # below
    "use another solver, as solver='lbfgs'": None,  # below
    # --- loops ---------------------------------------------------------------------------------
    "Use a smaller rate, or lg.Unrolled": (
        lambda: by_momentum(lg.Reversible, 1e9),
        lambda: by_momentum(lg.Reversible, 0.1),
        lambda: by_momentum(lg.Unrolled, 1e9),
    ),
    "the least that works is 800 bytes": (
        lambda: lg.iterate(lambda z: 0.5 * z, np.ones(100), 5, memory=100),
        lambda: lg.iterate(lambda z: 0.5 * z, np.ones(100), 5, memory=800),
    ),
    "Name another folder, or store fewer states: checkpoints=…": (
        lambda: looped(disk="/nowhere/at/all"),
        lambda: looped(checkpoints=3),
    ),
    "it is traced once for all steps. Use np.where, np.maximum and the like": (
        lambda: lg.grad(lambda x: lg.iterate(lambda z: z if z > 1 else 2 * z, x, 3))(0.3),
        lambda: lg.grad(lambda x: lg.iterate(lambda z: np.where(z > 1, z, 2 * z), x, 3))(0.3),
    ),
    "must return a pair: the next state, and an output or None": (
        lambda: lg.scan(lambda z, x: 0.5 * z + x, 0.0, np.ones(3)),
        lambda: lg.scan(lambda z, x: (0.5 * z + x, None), 0.0, np.ones(3)),
    ),
    "returned truths or integers; return floats": (
        lambda: lg.scan(lambda z, x: (z + x, z > 1), 0.0, np.ones(3)),
        lambda: lg.scan(lambda z, x: (z + x, np.where(z > 1, 1.0, 0.0)), 0.0, np.ones(3)),
    ),
    "Allow more, or see whether it can fail": (
        lambda: lg.while_loop(lambda z: z < 100, lambda z: z + 1, 0.0, max_steps=50),
        lambda: lg.while_loop(lambda z: z < 100, lambda z: z + 1, 0.0, max_steps=150),
    ),
    "truth, by comparisons, np.logical_and, np.any and the like": (
        lambda: lg.while_loop(lambda z: z < 3, lambda z: z + 1, np.zeros(2), max_steps=9),
        lambda: lg.while_loop(lambda z: np.any(z < 3), lambda z: z + 1, np.zeros(2), max_steps=9),
    ),
    "leave out checkpoints=, ": (
        lambda: adjoint_loop(checkpoints=2),
        lambda: adjoint_loop(),
    ),
    "give a number, one for each step, or a function of the step's number": (
        lambda: descended(np.ones(3)),
        lambda: descended(0.1),
        lambda: descended(0.1 * np.ones(5)),
        lambda: descended(lambda k: 0.1 / (1 + k)),
    ),
    # --- accuracy ------------------------------------------------------------------------------
    "Write a formula in another form, by a series where its terms cancel (np.where)": (
        lambda: lg.grad(lambda x: x / np.sin(x))(1e-6),
        told(lambda: lg.grad(inverse_sinc)(1e-6), slope=1e-6 / 3),
        told(lambda: lg.hessian(inverse_sinc)(1e-8), third=1 / 3),
    ),
    "Write it so that nothing does: np.expm1 and np.log1p": None,  # test_cancellation.py
    "Write its step so that nothing cancels, take fewer": None,  # test_cancellation.py
    "Use what is the same for all of them, such as (V * f(w)) @ V.T": (
        lambda: lg.grad(lambda M: np.linalg.eigh(M)[1][0, 0])(np.eye(2)),
        lambda: lg.grad(lambda M: exponential(M)[0, 0])(np.eye(2)),
        lambda: lg.grad(lambda M: np.linalg.eigh(M + np.diag([0.0, 1.0]))[1][0, 0])(np.eye(2)),
    ),
}  # fmt: skip


def shallow(load, reformulated=False, **how):
    """Two bars that are nearly flat, under a load that rounding nearly hides."""
    p = lg.Program()
    w, rise = p.unknown("w"), 0.0104
    length, first = np.sqrt(1 + (rise - w) ** 2), float(np.hypot(1.0, rise))
    shorter = first - length
    if reformulated:  # the difference of roots as one of squares
        shorter = w * (2 * rise - w) / (first + length)
    p.subject_to(2e3 * shorter / first * (rise - w) / length == p.parameter("P", value=load))
    return p.solve(**how)


def inverse_sinc(x):
    safe = np.where(np.abs(x) < 1e-2, 1.0, x)
    return np.where(np.abs(x) < 1e-2, 1 + x**2 / 6 + 7 * x**4 / 360, safe / np.sin(safe))


def by_momentum(how, rate):
    optimizer = lg.optim.sgd_momentum(rate)
    loss = lambda z, a: (z - a) ** 2
    f = lambda a: lg.argmin(loss, 0.0, a, differentiate=how(5, optimizer=optimizer))
    return lg.grad(f)(1.0)


def adjoint_loop(**storage):
    p = lg.Program()
    p.define("y", lg.iterate(np.sin, p.parameter("x", value=0.5), 5, **storage))
    return p.adjoint("y").source()


def exponential(matrix):
    w, v = np.linalg.eigh(matrix)
    return (v * np.exp(w)) @ v.T


def vector_program(total=False):
    p = lg.Program()
    x = p.parameter("x", value=X)
    y = p.define("y", x**2)
    if total:
        p.define("sum", np.sum(y))
    return p


def log_program(start):
    p = lg.Program()
    z = p.unknown("z", start=start)
    p.subject_to(np.log(z - 1) == 2.0)
    return p


def unsymmetric(solver):
    """The gradient of a root whose Jacobian is not symmetric."""
    residual = lambda z, x: z**3 + 2 * z - np.roll(z, 1) - x
    return lg.grad(lambda x: np.sum(lg.root(lambda z: residual(z, x), np.ones(5), linear=solver)))(
        1.0
    )


def saturated(logistic, *start):
    """Two genes that hold each other down."""

    def residual(z):
        first, second = logistic(360 * (4 * z[1] - 1)), logistic(-360 * (3 * z[0] - 1))
        return np.stack([z[0] - first, z[1] - second])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of what overflows
        return lg.root(residual, np.array(start))


def pair(equations):
    p = lg.Program()
    a, x, y = p.parameter("a", value=2.0), p.unknown("x"), p.unknown("y")
    for equation in equations(x, y, a):
        p.subject_to(equation)
    return p


def laplace(linear):
    n = 40
    matrix = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    return lg.root(lambda z: matrix @ z + 0.01 * z**3 - 1, np.zeros(n), linear=linear)


def looped(**storage):
    step = lambda z: np.sin(z) + 0.1
    return lg.grad(lambda x: np.sum(lg.iterate(step, x, 20, **storage)))(np.ones(4))


def descended(rate):
    optimizer = lg.optim.gradient_descent(rate)
    return lg.argmin(lambda z: (z - 1) ** 2, 0.0, differentiate=lg.Unrolled(5, optimizer=optimizer))


# Messages of what is seen in a wider precision.
SEEN = ("Rescale or reformulate", "Write a formula in another form")
CASES = [
    pytest.param(said, marks=needs_wider if said.startswith(SEEN) else ())
    for said, case in REMEDIES.items()
    if case
]


@pytest.mark.parametrize("said", CASES)
def test_a_remedy_runs(said):
    wrong, *remedies = REMEDIES[said]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((lg.LagradError, AssertionError)) as caught:
            wrong()
        assert said in " ".join(str(caught.value).split())
        for remedy in remedies:
            remedy()


def test_the_remedies_of_searches_over_hyperparameters():
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import GridSearchCV, KFold
    from sklearn.svm import LinearSVR

    from lagrad.sklearn import GradientSearchCV, Range

    rng = np.random.default_rng(0)
    samples, noise = rng.standard_normal((40, 3)), rng.standard_normal(40)
    target = samples @ [1.0, -1.0, 0.5] + 0.1 * noise
    search = lambda model, **how: GradientSearchCV(model, **how)
    with pytest.raises(lg.InvalidValue, match="use loss='squared_epsilon_insensitive'"):
        search(LinearSVR()).fit(samples, target)
    search(LinearSVR(loss="squared_epsilon_insensitive"), max_iter=3).fit(samples, target)
    classes = np.repeat([0, 1, 2], [20, 18, 2])  # the last fold has all of the last class
    with pytest.raises(lg.LagradError, match="use fewer folds, or stratified ones"):
        search(LogisticRegression(), cv=KFold(10)).fit(samples, classes)
    search(LogisticRegression(), cv=2, max_iter=3).fit(samples, classes)
    with pytest.raises(lg.InvalidValue, match="leave it out, or search without gradients"):
        search(Ridge(positive=True)).fit(samples, target)
    search(Ridge(), max_iter=3).fit(samples, target)
    GridSearchCV(Ridge(positive=True), {"alpha": [0.1, 1.0]}).fit(samples, target)
    each = {"C": Range(0.1, 1.0, per="feature")}
    with pytest.raises(lg.InvalidValue, match="use another solver, as solver='lbfgs'"):
        search(LogisticRegression(solver="liblinear"), parameters=each).fit(samples, target > 0)
    search(LogisticRegression(solver="lbfgs"), parameters=each, max_iter=3).fit(samples, target > 0)


ADVICE = re.compile(
    r"(?:[.;:,)] |^ *)(?:or )?(?:Use|Write|Give|Leave|Ask|Drop|Start|State|Return|Move|Fix|Allow"
    r"|Change|Name|Choose|Rescale|Add|Call|Declare|use|write|give|leave|ask|state|return|make|declare|pass|put"
    r"|call|damp|raise|fix|compare|define) "
)


def messages():
    """All strings of the library that advise something, placeholders as {}."""
    for path in sorted(LAGRAD.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inner = {id(v) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                inner.add(id(node.value))  # a docstring
        for node in ast.walk(tree):
            if id(node) in inner:
                continue
            text = ""
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in node.values]
                text = "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            spoken = path.name != "cli.py" and "native" not in path.parts  # that speaks to LLVM
            if spoken and len(text) > 40 and ADVICE.search(text):
                yield path.relative_to(LAGRAD), text


def test_no_message_with_a_remedy_is_left_out():
    left = [f"{p}: {t}" for p, t in messages() if not any(said in t for said in REMEDIES)]
    assert not left, "\n".join(left)
