"""The primal solve: solvers, their choice, what a solve costs, warm starts."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sparse

import lagrad as lg
from lagrad.cli import load
from lagrad.linear_solvers import selection, sparse_lu
from lagrad.linear_solvers.selection import automatic


def poisson(n, nonlinear=1.0):
    T = sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n)).tocsr()
    p = lg.Program("line")
    source = p.parameter("source", value=np.linspace(0.1, 1.0, n) / n)
    u = p.unknown("u", shape=n)
    p.subject_to(T @ u + 0.1 * nonlinear * np.tanh(u) * nonlinear == source)
    p.define("energy", np.sum(u**2))
    return p


@pytest.mark.parametrize(
    "solver", [lg.DenseLU(), lg.SparseLU(), lg.SparseLU(ordering="COLAMD"), lg.GMRES(), lg.CG()]
)
def test_every_linear_solver_gives_the_same_numbers(solver):
    p = poisson(80)
    at = p.solve(linear=solver)
    T = np.diag(np.full(80, 2.0)) - np.diag(np.ones(79), 1) - np.diag(np.ones(79), -1)
    source = np.linspace(0.1, 1.0, 80) / 80
    exact = scipy.optimize.root(
        lambda u: T @ u + 0.1 * np.tanh(u) - source, np.zeros(80), tol=1e-13
    ).x
    np.testing.assert_allclose(at["u"], exact, rtol=1e-9)
    jacobian = T + np.diag(0.1 / np.cosh(exact) ** 2)
    gradient = at.gradient("energy")["source"]
    np.testing.assert_allclose(gradient, np.linalg.solve(jacobian.T, 2 * exact), rtol=1e-9)
    assert at.hessian_vector("energy", source=np.ones(80))["source"].shape == (80,)


def test_solvers_are_chosen_by_size_and_pattern():
    assert isinstance(automatic(10, 100), lg.DenseLU)
    assert isinstance(automatic(1000, 900_000), lg.DenseLU)
    assert isinstance(automatic(1000, 5_000), lg.SparseLU)
    assert isinstance(automatic(10**6, 5 * 10**6), lg.SparseLU)
    assert isinstance(automatic(10**5, 10**10), selection.MatrixFree)
    assert poisson(500).solve().reports[0].solver == "SparseLU"
    assert poisson(20).solve().reports[0].solver == "DenseLU"


def test_a_block_whose_jacobian_is_too_large_to_write_down_is_solved_by_gmres(monkeypatch):
    monkeypatch.setattr("lagrad.systems.reduced_block.FACTORABLE_ENTRIES", 10_000)
    monkeypatch.setattr("lagrad.linear_solvers.selection.FACTORABLE_ENTRIES", 10_000)
    monkeypatch.setattr("lagrad.linear_solvers.selection.DENSE_FRACTION", 2.0)
    n = 200
    p = lg.Program("memory")
    x = p.parameter("x", value=np.linspace(0.0, 1.0, n))
    z = p.unknown("z", shape=n)
    p.subject_to(z + 0.001 * np.cumsum(np.sin(z)) == x)
    p.define("f", np.sum(z))
    at = p.solve()
    assert at.reports[0].solver == "GMRES"
    L = np.tril(np.ones((n, n)))
    exact = scipy.optimize.root(
        lambda u: u + 0.001 * L @ np.sin(u) - np.linspace(0, 1, n), np.zeros(n), tol=1e-13
    ).x
    np.testing.assert_allclose(at["z"], exact, rtol=1e-9, atol=1e-12)
    jacobian = np.eye(n) + 0.001 * L * np.cos(exact)
    np.testing.assert_allclose(
        at.gradient("f")["x"], np.linalg.solve(jacobian.T, np.ones(n)), rtol=1e-9
    )


def test_conjugate_gradients_refuse_what_is_not_symmetric():
    p = lg.Program("skew")
    z = p.unknown("z", shape=3)
    p.subject_to(np.array([[2.0, 1, 0], [-1, 2, 0], [0, 0, 1]]) @ z == np.ones(3))
    with pytest.raises(lg.NotConverged, match=r"symmetric.*use GMRES or SparseLU"):
        p.solve(linear=lg.CG())


def test_a_krylov_solver_that_stops_early_raises():
    for solver in (lg.GMRES(max_steps=3, restart=3), lg.CG(max_steps=3)):
        with pytest.raises(lg.NotConverged, match=r"\{u\}.*relative residual"):
            poisson(200).solve(linear=solver)


def test_a_preconditioner_is_transposed_with_the_system():
    rng = np.random.default_rng(0)
    n = 60
    matrix = np.eye(n) + 0.05 * np.triu(rng.standard_normal((n, n)))
    matrix = 10.0 ** rng.uniform(-2, 2, n)[:, None] * matrix
    inverse = np.linalg.inv(matrix)
    calls = []

    def preconditioner(vector, transposed):
        calls.append(transposed)
        return (inverse.T if transposed else inverse) @ vector

    p = lg.Program()
    b = p.parameter("b", value=np.ones(n))
    z = p.unknown("z", shape=n)
    p.subject_to(matrix @ z == b)
    p.define("f", np.sum(z))
    at = p.solve(linear=lg.GMRES(max_steps=20, preconditioner=preconditioner), accuracy=1.0)
    np.testing.assert_allclose(at.gradient("f")["b"], inverse.T @ np.ones(n), rtol=1e-8)
    assert True in calls
    assert False in calls


class Counted(lg.SparseLU):
    """A solver that counts its factorisations and solves."""

    __slots__ = ()
    factorisations = 0
    sides: ClassVar[list[int]] = []

    def factor(self, matrix):
        Counted.factorisations += 1
        factors = super().factor(matrix)
        solve = factors.solve

        def counted(right, transposed=False, tol=0.0):
            Counted.sides.append(1 if right.ndim == 1 else right.shape[1])
            return solve(right, transposed, tol)

        factors.solve = counted
        return factors


@pytest.fixture
def counted():
    Counted.factorisations = 0
    Counted.sides = []
    return Counted()


def test_a_linear_block_costs_one_factorisation(counted):
    p = poisson(100, nonlinear=0.0)
    at = p.solve(linear=counted)
    assert Counted.factorisations == 1
    at.gradient("energy")
    at.tangent(source=np.ones(100))
    at.hessian_vector("energy", source=np.ones(100))
    at.jacobian("u", "source")
    assert Counted.factorisations == 1


def test_derivatives_of_a_nonlinear_block_factor_nothing(counted):
    at = poisson(100).solve(linear=counted)
    spent = Counted.factorisations
    assert spent <= 5
    at.gradient("energy")
    at.multipliers("energy")
    at.tangent(source=np.ones(100))
    at.hessian_vector("energy", source=np.ones(100))
    assert Counted.factorisations == spent


@pytest.mark.parametrize(("of", "width"), [("energy", 1), ("u", 100)])
def test_a_jacobian_has_as_many_right_sides_as_the_smaller_side(counted, of, width):
    p = poisson(100)
    at = p.solve(linear=counted)
    Counted.sides.clear()
    at.jacobian(of, "source")
    assert set(Counted.sides) == {width}
    assert len(Counted.sides) <= 6


def test_acyclic_programs_and_their_adjoints_never_factor(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a factorisation")

    for place in (
        "scipy.sparse.linalg.splu",
        "scipy.sparse.linalg.spsolve",
        "scipy.linalg.lapack.get_lapack_funcs",
        "numpy.linalg.solve",
    ):
        monkeypatch.setattr(place, refuse)
    p = lg.Program()
    x = p.parameter("x", value=np.linspace(0.0, 1.0, 4))
    y = p.define("y", np.sin(x))
    p.define("f", np.sum(y * x))
    at = p.solve()
    exact = np.sin(at["x"]) + at["x"] * np.cos(at["x"])
    np.testing.assert_allclose(at.gradient("f")["x"], exact, rtol=1e-15)
    np.testing.assert_allclose(at.adjoint_system("f").solve()["y"], at["x"], rtol=1e-15)


def test_a_warm_start_takes_fewer_steps():
    p = load("bratu")
    cold = p.solve()
    warm = p.solve(lam=5.05, start=cold)
    assert warm.reports[0].factorisations < cold.reports[0].factorisations
    again = p.solve(start={"u": cold["u"]})
    assert again.reports[0].steps <= 1
    np.testing.assert_allclose(again["u"], cold["u"], rtol=1e-12)


def test_a_program_is_compiled_once_and_again_after_a_declaration():
    p = poisson(20)
    p.solve()
    first = p.compiled()
    p.solve(source=np.ones(20))
    assert p.compiled() is first
    p.define("more", 2 * p.variables["energy"])
    at = p.solve()
    assert p.compiled() is not first
    assert at["more"] == 2 * at["energy"]


def test_programs_side_by_side_share_nothing():
    a, b = poisson(10), poisson(10, nonlinear=0.0)
    first = a.solve()["energy"]
    b.solve()
    b.define("other", 1.0 * b.variables["energy"])
    assert a.solve()["energy"] == first
    assert "other" not in a.variables


def test_nested_definitions_inside_a_block_have_multipliers():
    p = lg.Program()
    x = p.parameter("x", value=0.3)
    z = p.unknown("z", start=0.1)
    w = p.define("w", np.sin(z))
    v = p.define("v", w * w)
    p.subject_to(z == x + 0.5 * v, name="loop")
    p.define("f", v + z)
    at = p.solve()
    # λ of a constraint is what f gains per unit on its right side: perturb each in turn.
    for name in ("w", "v", "loop", "f"):
        q = lg.Program()
        e = q.parameter("e", value=0.0)
        bump = lambda n: e if n == name else 0.0  # noqa: B023
        z = q.unknown("z", start=0.1)
        w = q.define("w", np.sin(z) + bump("w"))
        v = q.define("v", w * w + bump("v"))
        q.subject_to(z == 0.3 + 0.5 * v + bump("loop"), name="loop")
        q.define("f", v + z + bump("f"))
        step = 1e-5
        slope = (q.solve(e=step)["f"] - q.solve(e=-step)["f"]) / (2 * step)
        np.testing.assert_allclose(at.multipliers("f")[name], slope, rtol=1e-8)


def test_a_deep_chain_neither_recurses_nor_slows():
    p = lg.Program("deep")
    v = x = p.parameter("x", value=0.5)
    for _ in range(20_000):
        v = v + 1e-4 * np.sin(v)
    p.define("end", v)
    at = p.solve()
    assert np.isfinite(at.gradient("end")["x"])
    assert "…" in str(p)
    assert x.name == "x"


def test_a_solution_keeps_the_program_as_it_was():
    p = lg.Program()
    a, z = p.parameter("a", value=2.0), p.unknown("z", start=1.0)
    p.subject_to(z * z == a)
    at = p.solve()
    p.define("later", 3 * z)
    p.parameter("much_later", value=1.0)
    w = p.unknown("w", start=1.0)
    p.subject_to(w == z + 1)
    assert list(at) == ["a", "z"]
    assert set(at.gradient("z")) == {"a"}
    assert set(at.multipliers("z")) == {"z"}
    assert set(at.hessian_vector("z", a=1.0)) == {"a"}
    again = p.solve(start=at)
    np.testing.assert_allclose(again["w"], np.sqrt(2) + 1, rtol=1e-15)


def test_a_name_that_the_adjoint_needs_is_free_to_use():
    p = lg.Program()
    a, x = p.parameter("flow_x", value=2.0), p.unknown("x", start=1.0)
    p.subject_to(x * x == a)
    p.define("flow_λ_x", 3.0 * x)
    p.define("f", x * p.variables["flow_λ_x"])
    np.testing.assert_allclose(p.solve().gradient("f")["flow_x"], 3.0, rtol=1e-13)
    np.testing.assert_allclose(p.solve().hessian_vector("f", flow_x=1.0)["flow_x"], 0.0, atol=1e-12)


def test_exact_factors_are_made_once_where_they_are_needed(counted):
    rng = np.random.default_rng(1)
    n = 300
    q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    p = lg.Program()
    b, z = p.parameter("b", value=np.ones(n)), p.unknown("z", shape=n)
    p.subject_to((q * np.logspace(0, -9, n)) @ q.T @ z == b)
    p.define("f", np.sum(z))
    at = p.solve(linear=counted, accuracy=1e3)
    at.gradient("f")
    spent = Counted.factorisations
    at.gradient("f")
    at.tangent(b=np.ones(n))
    assert Counted.factorisations == spent <= 2


def test_float32_and_float64_unknowns_in_one_block_keep_their_dtypes():
    p = lg.Program()
    a = p.unknown("a", start=np.float32(1.0))
    b = p.unknown("b", start=2.0)
    p.subject_to(a * b == 2.0)
    p.subject_to(a + b == 3.5)
    at = p.solve()
    assert at.point.values[a].dtype == np.float32
    assert at.point.values[b].dtype == np.float64


def test_the_graph_of_a_large_block_has_as_many_edges_as_the_program():
    n = 300
    p = lg.Program()
    z = [p.unknown(f"z{i}", start=0.1) for i in range(n)]
    for i in range(n):
        p.subject_to(z[i] == 0.3 * np.sin(z[i - 1]) + 0.2)
    assert p.graph().number_of_edges() == 3 * n


def test_matrix_free_blocks_take_cg_where_they_are_definite_and_gmres_where_not():
    n = 60
    T = sparse.diags_array([-1.0, 2.1, -1.0], offsets=[-1, 0, 1], shape=(n, n)).tocsr()
    indefinite = T - 1.7 * sparse.eye_array(n)
    skew = T + sparse.diags_array([0.5, -0.5], offsets=[-1, 1], shape=(n, n))
    right = np.linspace(-1.0, 1.0, n)
    for matrix, kind in ((T, lg.CG), (-T, lg.CG), (indefinite, None), (skew, lg.GMRES)):
        factors = selection.MatrixFree().factor(sparse.csr_array(matrix))
        exact = np.linalg.solve(matrix.toarray(), right)
        np.testing.assert_allclose(factors.solve(right), exact, rtol=1e-7, atol=1e-9)
        exact = np.linalg.solve(matrix.toarray().T, right)
        np.testing.assert_allclose(
            factors.solve(right, transposed=True), exact, rtol=1e-7, atol=1e-9
        )
        assert kind is None or isinstance(factors.solver, kind)


def test_a_start_close_by_needs_one_factorisation():
    p = poisson(100)
    at = p.solve()
    before = sum(r.factorisations for r in at.reports)
    again = p.solve(source=1.01 * np.ones(100), start=p.solve(source=np.ones(100)))
    assert before >= 2
    assert sum(r.factorisations for r in again.reports) == 1
    fresh = p.solve(source=1.01 * np.ones(100))
    assert again["energy"] == pytest.approx(fresh["energy"], rel=1e-11)
    for name, found in again.gradient("energy").items():
        np.testing.assert_allclose(found, fresh.gradient("energy")[name], rtol=1e-9)


def test_an_ordering_is_found_once_for_a_pattern(monkeypatch):
    asked = []
    factored = sparse_lu.sparse_linalg.splu

    def counting(matrix, permc_spec, **options):
        asked.append(permc_spec)
        return factored(matrix, permc_spec=permc_spec, **options)

    monkeypatch.setattr(sparse_lu.sparse_linalg, "splu", counting)
    n = 17 * 23
    T = sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(n, n))
    A = sparse.csr_array(T + sparse.diags_array([0.5, 0.5], offsets=[-17, 17], shape=(n, n)))
    rng = np.random.default_rng(0)
    for k in range(3):
        B = A + sparse.diags_array(rng.random(n) + 3 + k)
        B.data[0] *= 1.5  # symmetric in its pattern only
        right = rng.standard_normal((n, 2))
        factors = lg.SparseLU().factor(B)
        np.testing.assert_allclose(B @ factors.solve(right), right, atol=1e-10)
        np.testing.assert_allclose(B.T @ factors.solve(right, transposed=True), right, atol=1e-10)
    assert asked == ["MMD_AT_PLUS_A", "NATURAL", "NATURAL"]
