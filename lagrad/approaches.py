"""How the solution of an implicit function is approached, before Newton's method certifies it.

An approach is data: which program gives the step, the residual or the gradient, and by which
method it is iterated. It runs where the block of its unknowns is about to be solved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.optimize

from lagrad.blocks import BlockEquations
from lagrad.copying import inlined
from lagrad.equation import Equation
from lagrad.errors import InvalidValue, NotContractive, NotConverged
from lagrad.expression import Expression, Variable
from lagrad.krylov import CG, GMRES
from lagrad.linear import Cholesky, LinearSolver
from lagrad.plan import Plan, definitions
from lagrad.program import Program
from lagrad.solution import Solution
from lagrad.system import Group, System
from lagrad.tape import joined, split

__all__ = ["Anderson", "Approach", "Minimize", "Picard"]

Array = Any


@dataclass(frozen=True, slots=True)
class Picard:
    """The plain fixed-point iteration, z ← step(z).

    Parameters
    ----------
    tol : float
        The relative length of the last step at which it ends.
    max_steps : int

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> round(float(lg.fixed_point(np.cos, 1.0, solver=lg.Picard())), 12)
    0.739085133215
    """

    tol: float = 1e-10
    max_steps: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.tol < 1 or self.max_steps < 1:
            raise InvalidValue(f"{self!r}: tol in (0, 1), max_steps ≥ 1.")

    def run(self, step: Callable[[Array], Array], point: Array) -> tuple[Array, list[float]]:
        """The point reached, and the relative length of each step."""
        history: list[float] = []
        for _ in range(self.max_steps):
            after = step(point)
            history.append(relative(after - point, after))
            if not history[-1] > self.tol:
                return after, history
            point = after
        return point, history


@dataclass(frozen=True, slots=True)
class Anderson:
    """The fixed-point iteration, accelerated by its last steps.

    Parameters
    ----------
    memory : int
        How many earlier steps are combined.
    tol : float
        The relative length of the last step at which it ends.
    max_steps : int

    References
    ----------
    Walker and Ni (2011), Anderson acceleration for fixed-point iterations, doi:10.1137/10078356X.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> round(float(lg.fixed_point(np.cos, 1.0, solver=lg.Anderson(memory=2))), 12)
    0.739085133215
    """

    memory: int = 5
    tol: float = 1e-10
    max_steps: int = 500

    def __post_init__(self) -> None:
        if not 0 < self.tol < 1 or self.max_steps < 1 or self.memory < 1:
            raise InvalidValue(f"{self!r}: tol in (0, 1), memory and max_steps ≥ 1.")

    def run(self, step: Callable[[Array], Array], point: Array) -> tuple[Array, list[float]]:
        """The point reached, and the relative length of each step."""
        history: list[float] = []
        past = Differences(self.memory)
        before: tuple[Array, Array] | None = None
        for _ in range(self.max_steps):
            after = step(point)
            residual = after - point
            history.append(relative(residual, after))
            if not history[-1] > self.tol:
                return after, history
            if before is not None:
                past.add(after - before[0], residual - before[1])
            # Far beyond the best so far: what was combined misleads, so it starts afresh.
            if history[-1] > 10 * min(history):
                past.clear()
            before = (after, residual)
            point = past.combined(after, residual)
        return point, history


class Differences:
    """The last differences of images and of residuals, with the products of the latter."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.clear()

    def clear(self) -> None:
        self.images: list[Array] = []
        self.changes: list[Array] = []
        self.products = np.zeros((0, 0))

    def add(self, image: Array, change: Array) -> None:
        if len(self.changes) == self.memory:
            del self.images[0], self.changes[0]
            self.products = self.products[1:, 1:]
        self.images.append(image)
        self.changes.append(change)
        row = np.array([change @ other for other in self.changes])
        grown = np.zeros((row.size, row.size))
        grown[:-1, :-1] = self.products
        grown[-1], grown[:, -1] = row, row
        self.products = grown

    def combined(self, after: Array, residual: Array) -> Array:
        """The combination of images whose residual is smallest, to first order."""
        if not self.changes:
            return after
        right = np.array([change @ residual for change in self.changes])
        # A minimum-norm solution: nearly parallel differences are not told apart.
        weights = np.linalg.lstsq(self.products, right, rcond=1e-12)[0]
        found = after - sum(w * image for w, image in zip(weights, self.images, strict=True))
        if not np.isfinite(found).all():
            self.clear()
            return after
        return found


def relative(change: Array, against: Array) -> float:
    """The largest entry of a change over the largest of a point; NaN where one is not finite."""
    size = float(np.abs(against).max(initial=0.0))
    length = float(np.abs(change).max(initial=0.0))
    return length / size if size else length


@dataclass(frozen=True, slots=True)
class Minimize:
    """SciPy's `minimize`, with exact gradients and Hessian-vector products.

    Parameters
    ----------
    method : str
        A method of `scipy.optimize.minimize`: "L-BFGS-B", "BFGS", "CG", "Newton-CG",
        "trust-ncg", "trust-krylov", "trust-exact" and others.
    tol : float, optional
        SciPy's `tol`; by default as tight as the method allows.
    max_steps : int

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> quartic = lambda z: np.sum((z - 1) ** 4 + z**2)
    >>> lg.argmin(quartic, np.zeros(2), solver=lg.Minimize("BFGS")).round(6).tolist()
    [0.410245, 0.410245]
    """

    method: str = "L-BFGS-B"
    tol: float | None = None
    max_steps: int = 1000


# A fixed point that iteration finds is differentiated by iteration too, unless it is small.
FACTORED = 256
HESSIANS = ("dogleg", "trust-exact")
PRODUCTS = ("newton-cg", "trust-ncg", "trust-krylov", "trust-constr")
NO_GRADIENT = ("nelder-mead", "powell", "cobyla", "cobyqa")


class Problem:
    """A program at given data, as functions of the vector of its parameters that vary."""

    def __init__(self, approach: Approach, arguments: Sequence[Array]) -> None:
        self.program = approach.program
        self.varied = [self.program.variables[n] for n in approach.varied]
        self.outputs = [self.program.variables[n] for n in approach.outputs]
        self.data = dict(zip(approach.data, arguments, strict=True))
        self.solution: Solution | None = None  # the last one of a program with unknowns

    @cached_property
    def plan(self) -> Plan | None:
        """All outputs at once, for a program without unknowns."""
        if self.program.with_role("unknown"):
            return None
        inputs = [*self.varied, *(self.program.variables[n] for n in self.data)]
        return Plan(inputs, self.outputs, definitions(self.program))

    def pieces(self, point: Array) -> list[Array]:
        return [
            p.astype(v.dtype, copy=False)
            for p, v in zip(split(point, self.varied), self.varied, strict=True)
        ]

    def at(self, point: Array) -> Solution:
        """The program solved, from its last solution."""
        given = dict(zip((v.name for v in self.varied), self.pieces(point), strict=True))
        self.solution = self.program.solved({**given, **self.data}, self.solution)
        return self.solution

    def __call__(self, point: Array) -> list[Array]:
        """The outputs' values at a point."""
        plan = self.plan
        if plan is None:
            found = self.at(point)
            return [found[v.name] for v in self.outputs]
        with np.errstate(all="ignore"):
            return plan([*self.pieces(point), *self.data.values()])


@dataclass(frozen=True)
class Approach:
    """A program that gives step, residual or gradient, and what is done with it.

    Attributes
    ----------
    kind : {"fixed_point", "root", "argmin"}
    program : Program
    varied, data, outputs : tuples of str
        Its parameters that are solved for, those that are given, and what it returns: for an
        argmin the objective, then its gradient.
    inner : tuple of str
        Its own unknowns, which follow the varied ones.
    method : object or None
        None is Newton's method alone.
    """

    kind: str
    program: Program
    varied: tuple[str, ...]
    data: tuple[str, ...]
    outputs: tuple[str, ...]
    inner: tuple[str, ...]
    method: Any
    linear: LinearSolver | None = None

    def begin(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array]:
        """Values of the unknowns from which Newton's method starts."""
        method, problem = self.method, Problem(self, arguments)
        point = joined(start[: len(self.varied)])
        if isinstance(method, (Picard, Anderson)):
            point = self._iterated(problem, point)
        elif isinstance(method, Minimize):
            point = self.minimised(problem, point, method)
        return self._all(problem, point, start)

    def otherwise(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array] | None:
        """Another start, where Newton's method alone does not arrive; None where there is none."""
        if self.kind != "argmin" or self.method is not None:
            return None
        problem = Problem(self, arguments)
        point = joined(start[: len(self.varied)])
        method = Minimize("trust-exact" if point.size <= 200 else "trust-krylov")
        return self._all(problem, self.minimised(problem, point, method), start)

    @property
    def settles(self) -> bool:
        """Whether it ends at the solution itself, so that Newton's method has nothing to add."""
        return isinstance(self.method, (Picard, Anderson))

    def solver(self, equations: BlockEquations) -> LinearSolver:
        """The linear solver of the block that its unknowns form."""
        if self.linear is not None:
            return self.linear
        if self.kind == "fixed_point" and self.settles and equations.block.size > FACTORED:
            return GMRES(tol=1e-10)
        usual = equations.solver
        if self.kind == "argmin" and not self.inner:
            return CG(positive=True) if usual.matrix_free else Cholesky()
        return usual

    def _all(self, problem: Problem, point: Array, start: Sequence[Array]) -> list[Array]:
        pieces = problem.pieces(point)
        if not self.inner:
            return pieces
        solution = problem.at(point)
        return [*pieces, *(np.asarray(solution[name]) for name in self.inner)]

    def _iterated(self, problem: Problem, point: Array) -> Array:
        def step(z: Array) -> Array:
            return joined(problem(z))

        found, history = self.method.run(step, point)
        if not history or not history[-1] <= self.method.tol:
            raise NotContractive(untold(history, type(self.method).__name__))
        return found

    def minimised(self, problem: Problem, point: Array, method: Minimize) -> Array:
        """Where SciPy's minimize ends."""

        def objective(z: Array) -> tuple[float, Array]:
            value, *gradient = problem(z)
            return float(np.asarray(value)), joined(gradient).astype(float)

        def product(z: Array, direction: Array) -> Array:
            solution = problem.at(z)
            directions = dict(
                zip((v.name for v in problem.varied), split(direction, problem.varied), strict=True)
            )
            found = solution.tangent(directions)
            return joined([found[v.name] for v in problem.outputs[1:]])

        def hessian(z: Array) -> Array:
            return np.stack([product(z, row) for row in np.eye(z.size)])

        name = method.method.lower()
        options: dict[str, Any] = {"maxiter": method.max_steps}
        if name == "l-bfgs-b":
            options |= {"ftol": 1e-15, "gtol": 1e-10, "maxfun": 20 * method.max_steps}
        elif method.tol is None and name not in NO_GRADIENT:
            options["xtol" if name == "newton-cg" else "gtol"] = 1e-10
        result = scipy.optimize.minimize(
            objective if name not in NO_GRADIENT else lambda z: objective(z)[0],
            point.astype(float),
            jac=name not in NO_GRADIENT or None,
            hess=hessian if name in HESSIANS else None,
            hessp=product if name in PRODUCTS else None,
            method=method.method,
            tol=method.tol,
            options=options,
        )
        if not np.isfinite(result.x).all():
            raise NotConverged(
                f"{method.method} left the finite numbers: {result.message} Start elsewhere, or "
                "bound the objective from below."
            )
        return np.asarray(result.x)

    @cached_property
    def block(self) -> tuple[Program, tuple[str, ...]]:
        """The equations as a program of their own, its data given; the unknowns' names."""
        system = Program(self.program.name)
        given: list[Expression] = []
        for name in self.data:
            v = self.program.variables[name]
            given.append(system.leaf(name, "data", v.shape, v.dtype, None))
        starts = [
            np.broadcast_to(0.0, self.program.variables[n].shape)
            for n in (*self.varied, *self.inner)
        ]
        unknowns = self.state(system, given, starts)
        return system, tuple(v.name for v in unknowns)

    def state(
        self, into: System, arguments: Sequence[Expression], starts: Sequence[Array]
    ) -> tuple[Variable, ...]:
        """Declare the unknowns and their equations in a system; the unknowns."""
        program = self.program
        unknowns = [
            into.unknown(
                into.free(name), program.variables[name].shape, start, program.variables[name].dtype
            )
            for name, start in zip(self.varied, starts, strict=False)
        ]
        given = dict(zip(self.data, arguments, strict=True)) | dict(
            zip(self.varied, unknowns, strict=True)
        )
        inner = dict(zip(self.inner, starts[len(self.varied) :], strict=True))
        found = inlined(program, into, given, inner)
        outputs = [found[name] for name in self.outputs]
        if self.kind == "argmin":
            outputs = outputs[1:]
        for k, output in enumerate(outputs):
            left: Any = unknowns[k] if self.kind == "fixed_point" else into.arena.constant(0.0)
            name = into.free(unknowns[k].name if k < len(unknowns) else f"residual_{k}")
            into.subject_to(Equation(left, output), name=name)
        everyone = (*unknowns, *(found[name] for name in self.inner))
        variables = tuple(v for v in everyone if isinstance(v, Variable))
        into.groups.append(Group(variables, tuple(arguments), self))
        return variables

    def finish(self, arguments: Sequence[Array], start: Sequence[Array]) -> list[Array]:
        """The values of the unknowns at the solution, certified."""
        system, names = self.block
        values = dict(zip(self.data, arguments, strict=True))
        solution = system.solved(values, dict(zip(names, start, strict=True)))
        return [np.asarray(solution[name]) for name in names]


def untold(history: Sequence[float], method: str) -> str:
    """What a fixed-point iteration that did not end went through."""
    shown = ", ".join(f"{h:.2e}" for h in history[-8:])
    finite = [h for h in history if np.isfinite(h) and h > 0]
    factor = (
        (finite[-1] / finite[0]) ** (1 / max(len(finite) - 1, 1)) if len(finite) > 1 else np.inf
    )
    return (
        f"{method} did not reach a fixed point in {len(history)} steps: the last relative steps "
        f"are {shown}; each is {factor:.3g} of the one before, on average. A contraction has less than "
        'one: damp the step, start nearer, or solve z = step(z) by solver="newton".'
    )
