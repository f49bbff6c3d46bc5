"""Derivatives of plain functions, against closed forms and against each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.special import erf

import lagrad as lg


@dataclass
class Layer:
    weight: np.ndarray
    bias: float
    name: str = "layer"


class Pair(NamedTuple):
    left: float
    right: np.ndarray


def domke(x):
    c = np.exp(x) + np.exp(2 * x)
    return np.exp(c) + np.sin(c)


@pytest.mark.parametrize(
    ("x", "f", "first", "second"),
    [
        (0.0, 8.2983535257563319, 20.918727787150524, 93.182374360862256),
        (-1.0, 2.1362742261923539, 1.6155741697332786, 2.7781798620448096),
    ],
)
def test_domke_by_every_road(x, f, first, second):
    value, gradient = lg.value_and_grad(domke)(x)
    assert [value, gradient] == pytest.approx([f, first], rel=1e-14)
    for road in (
        lg.grad(lg.grad(domke)),
        lg.hessian(domke),
        lg.jacobian(lg.grad(domke)),
        lambda x: lg.hvp(domke, x, 1.0),
        lambda x: lg.jvp(lg.grad(domke), (x,), (1.0,))[1],
        lambda x: lg.vjp(lg.grad(domke), x)[1](1.0),
        lg.grad(lambda x: lg.jvp(domke, (x,), (1.0,))[1]),
        lg.grad(lambda x: lg.vjp(domke, x)[1](1.0)),
    ):
        assert road(x) == pytest.approx(second, rel=1e-13)


def test_third_and_fourth_order():
    third = lg.grad(lg.grad(lg.grad(np.sin)))
    assert third(0.3) == pytest.approx(-np.cos(0.3), rel=1e-13)
    assert lg.grad(third)(0.3) == pytest.approx(np.sin(0.3), rel=1e-13)


def test_results_have_the_structure_of_the_arguments():
    tree = {"a": [np.ones(2), (1.0, np.ones((2, 3)))], "b": Layer(np.arange(3.0), 2.0)}
    f = lambda t: (
        np.sum(t["a"][0] ** 2)
        + t["a"][1][0] * np.sum(t["a"][1][1])
        + np.sum(t["b"].weight) * t["b"].bias ** 2
    )
    found = lg.grad(f)(tree)
    assert found["a"][0].tolist() == [2.0, 2.0]
    assert found["a"][1][0] == 6.0
    assert found["a"][1][1].shape == (2, 3)
    assert isinstance(found["b"], Layer)
    assert found["b"].name == "layer"
    assert found["b"].weight.tolist() == [4.0] * 3
    assert found["b"].bias == 12.0
    pair = lg.grad(lambda p: p.left * np.sum(p.right))(Pair(2.0, np.ones(3)))
    assert isinstance(pair, Pair)
    assert pair.left == 3.0


def test_argnums_choose_and_keywords_pass_through():
    f = lambda x, y, *, scale=1.0, name="": scale * x * y**2
    assert lg.grad(f, 1)(2.0, 3.0, scale=10.0, name="n") == 120.0
    assert lg.grad(f, (1, 0))(2.0, 3.0) == (12.0, 9.0)
    assert lg.grad(f, -1)(2.0, 3.0) == 12.0
    assert lg.grad(f, [0])(2.0, 3.0) == (9.0,)
    rows = lg.jacobian(lambda x, y: {"s": x * y}, (0, 1))(np.ones(2), 3.0)
    assert rows["s"][0].tolist() == [[3.0, 0.0], [0.0, 3.0]]
    assert rows["s"][1].tolist() == [1.0, 1.0]


def test_integers_are_promoted_and_single_precision_is_kept():
    assert lg.grad(lambda x: x**2)(3) == 6.0
    found = lg.grad(lambda x: np.sum(x**2))(np.ones(3, np.float32))
    assert found.dtype == np.float32


def test_no_perturbation_is_confused_with_another():
    # d/dx [x · d/dy (x + y)] is 1, and not 2 (Siskind and Pearlmutter 2005).
    assert lg.grad(lambda x: x * lg.grad(lambda y: x + y)(1.0))(1.0) == 1.0
    f = lambda x: lg.grad(lambda y: y**2 * lg.grad(lambda z: z * x * y)(3.0))(x)
    assert f(2.0) == pytest.approx(3 * 2.0**3, rel=1e-14)
    assert lg.grad(f)(2.0) == pytest.approx(9 * 2.0**2, rel=1e-14)


def test_a_gradient_by_a_constant_argument_closes_over_what_is_traced():
    slope = lambda a: lg.grad(lambda x: a * x**3)(2.0)
    assert slope(1.5) == 18.0
    assert lg.grad(slope)(1.5) == 12.0
    assert lg.jacobian(slope)(1.5) == 12.0


def test_pullbacks_and_tangents_of_nested_results_are_transposes():
    f = lambda x, y: {"p": np.outer(x, y), "s": np.sum(np.exp(x)) * y[0]}
    rng = np.random.default_rng(0)
    x, y, tx, ty = rng.standard_normal((4, 3))
    value, pull = lg.vjp(f, x, y)
    assert value["p"] == pytest.approx(np.outer(x, y))
    w = {"p": rng.standard_normal((3, 3)), "s": 0.7}
    gx, gy = pull(w)
    _, t = lg.jvp(f, (x, y), (tx, ty))
    assert gx @ tx + gy @ ty == pytest.approx(np.sum(w["p"] * t["p"]) + 0.7 * t["s"], rel=1e-13)
    assert pull({"p": np.zeros((3, 3)), "s": 1.0})[1].tolist() == [np.sum(np.exp(x)), 0.0, 0.0]


def test_jacobians_inside_a_function_have_derivatives():
    f = lambda x: np.stack([x[0] ** 2 * x[1], np.sin(x[1])])
    inner = lambda x: np.linalg.det(lg.jacobian(f)(x))
    x = np.array([1.5, 0.7])
    closed = lambda x: 2 * x[0] * x[1] * np.cos(x[1])
    assert inner(x) == pytest.approx(closed(x))
    assert lg.grad(inner)(x) == pytest.approx(lg.grad(closed)(x), rel=1e-12)


def rosenbrock(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def rosenbrock_hessian(x):
    """By hand: tridiagonal."""
    n = x.size
    diagonal = np.zeros(n)
    diagonal[:-1] = 1200 * x[:-1] ** 2 - 400 * x[1:] + 2
    diagonal[1:] += 200
    return sparse.diags_array([-400 * x[:-1], diagonal, -400 * x[:-1]], offsets=[-1, 0, 1])


@pytest.mark.parametrize("n", [3, 40, 20_000])
def test_a_sparse_hessian_has_the_entries_that_are_there(n):
    x = np.random.default_rng(1).standard_normal(n)
    found = lg.hessian(rosenbrock, sparse=True)(x)
    expected = rosenbrock_hessian(x).tocsr()
    assert sparse.issparse(found)
    assert found.nnz == 3 * n - 2
    assert abs(found - expected).max() <= 1e-10 * abs(expected).max()


def test_a_sparse_jacobian_equals_the_dense_one():
    A = sparse.random_array((6, 5), density=0.4, rng=np.random.default_rng(0), format="csr")
    f = lambda x: {"a": np.sin(A @ x), "b": x[::-1] * x}
    x = np.linspace(0.2, 1.0, 5)
    wide, thin = lg.jacobian(f)(x), lg.jacobian(f, sparse=True)(x)
    for key in wide:
        assert thin[key].toarray() == pytest.approx(wide[key])
    assert thin["a"].nnz == A.nnz


def test_a_traced_program_is_a_program():
    p = lg.trace(lambda x, w: {"loss": np.sum(np.tanh(w @ x)), "w": w}, np.ones(2), np.eye(2))
    at = p.solve(x=[0.0, 1.0])
    assert at["output_loss"] == pytest.approx(np.tanh(1.0))
    assert at.gradient("output_loss")["x"] == pytest.approx([1.0, 1 - np.tanh(1.0) ** 2])
    assert "tanh" in str(p)
    q = lg.trace(lambda start: start**2, 3.0)
    assert q.solve({"start_": 4.0})["output"] == 16.0


def test_the_certificate_of_a_traced_program():
    f = lambda a: lg.root(lambda z: z**3 - a, 1.0)
    certificate = lg.trace(f, 2.0).solve(a=2.0).gradient("output").certificate
    assert certificate.converged
    assert certificate.error_bound < 1e-12


def test_an_explicit_program_of_many_branches_is_right_each_time():
    def collatz(x, n):
        for _ in range(n):
            x = x / 2 if x > 1 else 3 * x + 1
        return x

    for x in (0.3, 0.9, 4.7, 100.0):
        for n in range(6):
            h = 1e-6
            slope = (collatz(x + h, n) - collatz(x - h, n)) / (2 * h)
            assert lg.grad(collatz)(x, n) == pytest.approx(slope, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_directions_gradients_and_jacobians_agree(seed):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((4, 3))
    f = lambda x: np.tanh(A @ x) * np.sum(x**2) + erf(x[0])
    x, t, w = rng.standard_normal(3), rng.standard_normal(3), rng.standard_normal(4)
    J = lg.jacobian(f)(x)
    assert lg.jvp(f, (x,), (t,))[1] == pytest.approx(J @ t, rel=1e-11, abs=1e-12)
    assert lg.vjp(f, x)[1](w) == pytest.approx(w @ J, rel=1e-11, abs=1e-12)
    scalar = lambda x: w @ f(x)
    H = lg.hessian(scalar)(x)
    assert pytest.approx(H.T, rel=1e-10, abs=1e-10) == H
    assert lg.hvp(scalar, x, t) == pytest.approx(H @ t, rel=1e-10, abs=1e-10)


def test_results_are_arrays_of_their_own():
    x = np.ones(3)
    g = lg.grad(lambda x: np.sum(x**2))
    first = g(x)
    first[:] = 7.0
    assert g(x).tolist() == [2.0, 2.0, 2.0]
    value, _ = lg.vjp(lambda x: x, x)
    value[0] = 5.0
    assert x.tolist() == [1.0, 1.0, 1.0]


BAD = {
    "None": (lambda: lg.grad(lambda x: None)(1.0), lg.InvalidFunction, "returned None"),
    "int": (lambda: lg.grad(lambda x: 3)(1.0), lg.InvalidFunction, "the int 3"),
    "strings": (lambda: lg.grad(lambda x: ["a"])(1.0), lg.InvalidFunction, "'a'"),
    "vector": (
        lambda: lg.grad(lambda x: 2 * x)(np.ones(3)),
        lg.InvalidFunction,
        r"shape \(3,\).*sum or mean",
    ),
    "several": (lambda: lg.grad(lambda x: (x, x))(1.0), lg.InvalidFunction, "scalar"),
    "argnums": (lambda: lg.grad(np.sin, 2)(1.0), lg.InvalidValue, "argnums=2.*1 positional"),
    "argnums twice": (lambda: lg.grad(np.add, (0, -2))(1.0, 2.0), lg.InvalidValue, "twice"),
    "argnums text": (lambda: lg.grad(np.sin, "x")(1.0), lg.InvalidValue, "argnums"),
    "complex": (lambda: lg.grad(np.sin)(1j), lg.UnsupportedType, "complex"),
    "string argument": (lambda: lg.grad(np.sin)("a"), lg.UnsupportedType, "argument"),
    "no function": (lambda: lg.grad(3), lg.InvalidFunction, "3 is no function"),
    "NaN argument": (lambda: lg.grad(np.sin)(np.nan), lg.InvalidValue, "NaN"),
    "NaN data": (
        lambda: lg.grad(lambda x: np.sum(x * np.array([1.0, np.nan])))(np.ones(2)),
        lg.NotFinite,
        r"array of shape \(2,\).*nan at \[1\]",
    ),
    "cotangent": (
        lambda: lg.vjp(np.sin, np.ones(2))[1](np.ones(3)),
        lg.ShapeMismatch,
        r"cotangent.*\(3,\); expected \(2,\)",
    ),
    "cotangent structure": (
        lambda: lg.vjp(lambda x: {"a": x}, 1.0)[1](1.0),
        lg.StructureMismatch,
        "cotangent",
    ),
    "tangent": (
        lambda: lg.jvp(np.sin, (np.ones(2),), (1.0,)),
        lg.ShapeMismatch,
        "tangent of 'x'|tangent",
    ),
    "tangents": (lambda: lg.jvp(np.sin, (1.0,), (1.0, 2.0)), lg.ShapeMismatch, "1 primals"),
    "no tuple": (lambda: lg.jvp(np.sin, 1.0, 1.0), lg.InvalidFunction, "tuple"),
    "in place": (
        lambda: lg.grad(lambda x: x.__setitem__(0, 1.0))(np.ones(2)),
        lg.InPlaceUpdate,
        "np.where",
    ),
    "truth of an array": (
        lambda: lg.grad(lambda x: np.sum(x) if x > 0 else 0.0)(np.ones(2)),
        lg.ShapeMismatch,
        "2 entries",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    act, error, message = BAD[case]
    with pytest.raises(error, match=message):
        act()
