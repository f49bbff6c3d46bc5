"""Functions that the modules of `source` are written with: they need NumPy and SciPy alone."""

import base64
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse.linalg

from lagrad.lazy_import import LazyImport
from lagrad.typing import Array, Function, Shape

optimize = LazyImport("scipy.optimize")


def array(packed: str, dtype: str, shape: Shape) -> Array:
    """An array from its compressed bytes."""
    data = zlib.decompress(base64.b85decode(packed))
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def gather(x: Array, index: Any) -> Array:
    """x.ravel()[index], zero where the index is -1."""
    return np.append(x, 0.0)[np.asarray(index, dtype=int)]


def scatter(c: Array, index: Any, shape: Shape) -> Array:
    """Entries of c added into zeros at the flat positions of index; -1 is dropped."""
    places = np.ravel(index).astype(int) + 1
    return np.bincount(places, np.ravel(c), math.prod(shape) + 1)[1:].reshape(shape)


def embed(c: Array, key: Any, shape: Shape) -> Array:
    """c in its place among zeros."""
    out = np.zeros(shape)
    out[key] = c
    return out


def root(residual: Function, start: Array, ends: Sequence[int]) -> Array:
    """Solve residual(z) = 0 by Newton's method, a step halved until the next one is shorter.

    SciPy's `hybr` measures residuals, and where those differ by orders of magnitude it stops
    early or at another root. Here steps are measured, relative to each unknown's largest entry;
    `ends` says where one unknown ends and the next begins.
    """
    z = np.asarray(start, dtype=float)
    if z.size > 300:
        return np.asarray(optimize.newton_krylov(residual, z, f_tol=1e-12))

    def largest(v: Array) -> Array:
        return np.array([np.abs(part).max(initial=0.0) for part in np.split(v, ends)])

    top = largest(z)
    with np.errstate(all="ignore"):
        for _ in range(100):
            moves = np.diag(1e-6 * np.maximum(np.abs(z), 1e-6))
            columns = [(residual(z + e) - residual(z - e)) / (2 * e.max()) for e in moves]
            jacobian = np.stack(columns, axis=1)
            step = -np.linalg.solve(jacobian, residual(z))
            size = np.maximum(np.where(top > 0, top, largest(step)), np.finfo(float).tiny)
            length = (largest(step) / size).max()
            if length < 1e-13:
                return z + step
            damping = 1.0
            while damping > 1e-10:
                after = np.linalg.solve(jacobian, residual(z + damping * step))
                if (largest(after) / size).max() <= (1 - damping / 4) * length:
                    break
                damping /= 2
            else:
                if length < 1e-9:  # what is left is rounding
                    return z
                raise ArithmeticError("no solution found: no progress")
            z = z + damping * step
            top = np.maximum(top, largest(z))
    raise ArithmeticError("no solution found in 100 steps")


def chain(
    step: Function, counts: tuple[int, int], length: int, backwards: bool, *arguments: Any
) -> Array:
    """Steps one after the other: the last states, then the outputs of all, in a row."""
    m, p = counts
    state, inputs, constants = arguments[:m], arguments[m : m + p], arguments[m + p :]
    outputs = [None] * length
    for t in reversed(range(length)) if backwards else range(length):
        found = step(*state, *[np.asarray(x)[t] for x in inputs], *constants)
        state, outputs[t] = found[:m], found[m:]
    rows = [np.ravel(row) for rows in zip(*outputs, strict=True) for row in rows]
    return np.concatenate([*map(np.ravel, state), *rows])


def settled(state: Array, on: Any) -> Array:
    """A state, once its loop's condition has failed."""
    if on:
        raise ArithmeticError("a loop's condition still holds after all its steps")
    return state


def linear(residual: Function, size: int) -> Array:
    """Solve residual(z) = 0, an affine function of z."""
    offset = residual(np.zeros(size))
    if size <= 2000:
        matrix = np.stack([residual(row) - offset for row in np.eye(size)], axis=1)
        return np.linalg.solve(matrix, -offset)
    operator = scipy.sparse.linalg.LinearOperator(
        (size, size), matvec=lambda v: residual(v) - offset, dtype=float
    )
    found, info = scipy.sparse.linalg.gmres(operator, -offset, rtol=1e-12, restart=200)
    if info:
        raise ArithmeticError("no solution found by GMRES")
    return np.asarray(found)


def together(residual: Function, z: Array, begin: int, end: int) -> None:
    """ArithmeticError where z solves equations by what is added to them alone, z[begin:end].

    In each equation that must be little beside what a move of the others changes it by.
    """
    plain = z.copy()
    plain[begin:end] = 0.0
    move = 1e-3 * np.where(plain == 0, np.abs(plain).max() or 1.0, np.abs(plain))
    move[begin:end] = 0.0
    left = residual(plain)
    if np.any(np.abs(left) > 1e-6 * np.abs(residual(plain + move) - left)):
        raise ArithmeticError("equations that are more than their unknowns contradict one another")


def given(others: dict[str, Any], names: list[str], starts: dict[str, Any]) -> list[Any]:
    """The parameters of these names, given or as declared, which the module calls otherwise."""
    unknown = [name for name in others if name not in names]
    missing = [name for name in names if name not in others and name not in starts]
    if unknown or missing:
        what = "no parameter is named" if unknown else "no value was given of"
        raise TypeError(f"solve(): {what} {(unknown or missing)[0]!r}")
    return [others.get(name, starts.get(name)) for name in names]
