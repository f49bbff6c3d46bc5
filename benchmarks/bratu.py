"""−Δu = λ eᵘ on the unit square: declaring, solving and gradient, beside Newton by hand."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg

import lagrad as lg

from .timing import Row, once, ratio, seconds

LAM, TOL = 5.0, 1e-10


def laplacian(n: int) -> sparse.csr_array:
    """h² times the five-point Laplacian on n × n inner points."""
    T = sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(n, n))
    I = sparse.eye_array(n)  # noqa: E741
    return (sparse.kron(T, I) + sparse.kron(I, T)).tocsr()


def by_hand(A: sparse.csr_array, n: int) -> tuple[float, float]:
    """J and dJ/dλ by Newton's method and one adjoint solve, as one writes them for this problem."""
    h2 = 1.0 / (n + 1) ** 2
    A = A.tocsc()
    u = np.zeros(n * n)
    while True:
        e = h2 * LAM * np.exp(u)
        lu = factored(A + sparse.diags_array(e, format="csc"))
        step = lu.solve(-(A @ u + e))
        u = u + step
        if np.abs(step).max() <= TOL * np.abs(u).max():
            break
    # The factors of the last step serve the adjoint: the Jacobian moved by less than TOL.
    multiplier = lu.solve(np.full(n * n, -h2), "T")
    return h2 * u.sum(), float(multiplier @ (h2 * np.exp(u)))


def factored(J: sparse.csc_array) -> sparse_linalg.SuperLU:
    """SuperLU as an expert calls it for a matrix of symmetric pattern."""
    return sparse_linalg.splu(
        J, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.1, options={"SymmetricMode": True}
    )


def declare(A: sparse.csr_array, n: int) -> lg.Program:
    h2 = 1.0 / (n + 1) ** 2
    p = lg.Program("bratu")
    lam = p.parameter("lam", value=LAM)
    u = p.unknown("u", shape=n * n)
    p.subject_to(A @ u + h2 * lam * np.exp(u) == 0)
    p.define("J", h2 * np.sum(u))
    return p


def with_lagrad(A: sparse.csr_array, n: int) -> tuple[float, float]:
    at = declare(A, n).solve()
    return at["J"], float(at.gradient("J")["lam"])


def gradient_share(A: sparse.csr_array, n: int, turns: int) -> float:
    """Seconds of the first gradient over seconds of the solve."""
    shares = []
    for _ in range(turns):
        program = declare(A, n)
        solutions: list[lg.Solution] = []
        solve = once(lambda program=program, solutions=solutions: solutions.append(program.solve()))
        gradient = once(lambda solutions=solutions: solutions[0].gradient("J"))
        shares.append(gradient / solve)
    return float(np.median(shares))


def second_share(A: sparse.csr_array, n: int, turns: int) -> float:
    """Seconds of a solve and gradient from a solution close by, over those of the first."""
    shares = []
    for _ in range(turns):
        program = declare(A, n)
        held: list[lg.Solution] = []

        def first(program=program, held=held) -> None:
            held.append(program.solve())
            held[-1].gradient("J")

        def second(program=program, held=held) -> None:
            program.solve(lam=1.01 * LAM, start=held[-1]).gradient("J")

        began = once(first)
        shares.append(once(second) / began)
    return float(np.median(shares))


def rows(full: bool) -> list[Row]:
    found = []
    for n, turns in ((64, 15), (128, 9), (256, 5), *(((1000, 1),) if full else ())):
        A = laplacian(n)
        np.testing.assert_allclose(
            with_lagrad(A, n) if n < 1000 else 0, by_hand(A, n) if n < 1000 else 0, rtol=1e-9
        )
        r, ours, hand = ratio(
            lambda A=A, n=n: with_lagrad(A, n), lambda A=A, n=n: by_hand(A, n), turns
        )
        note = f"{seconds(ours)} beside {seconds(hand)}"
        found.append(
            Row(f"2-D Bratu, {n}×{n}", "declare + solve + gradient / by hand", r, 1.1, note)
        )
        if n < 1000:
            again = second_share(A, n, turns)
            found.append(Row(f"2-D Bratu, {n}×{n}", "again, λ 1% larger / first", again, 0.5))
            share = gradient_share(A, n, turns)
            found.append(Row(f"2-D Bratu, {n}×{n}", "gradient / solve", share, 0.03))
    return found
