"""Programs of many scalars, solved as arrays: beside SciPy, and beside the scalars one by one."""

import numpy as np
import pytest
import scipy.optimize as optimize
import scipy.sparse as sparse
import scipy.sparse.linalg as sparse_linalg
from generate import run
from random_systems import SCALINGS

import lagrad as lg
from lagrad.solving.solved_system import SolvedSystem
from lagrad.solving.solved_together import SolvedTogether
from lagrad.systems import as_arrays


def grid(n, start=0.0):
    """Nodes of a square with springs that stiffen, one scalar at a time."""
    p = lg.Program("grid")
    g, pull = p.parameter("g", value=1.0), p.parameter("pull", value=0.1)
    u = {(i, j): p.unknown(f"u{i}_{j}", start=start) for i in range(n) for j in range(n)}
    for i, j in u:
        flow = 0.0
        for there in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            if there in u:
                d = u[there] - u[i, j]
                flow = flow + g * (d + 0.1 * d**3)
        load = pull if (i, j) == (0, 0) else 0.0
        p.subject_to(flow - 0.05 * u[i, j] - 0.01 * u[i, j] ** 2 + load == 0, name=f"e{i}_{j}")
    p.define("trace", sum(u[i, i] for i in range(n)))
    return p


def circuits(n):
    """Diodes behind resistors, each by itself: a definition, and an exponent of its own."""
    p = lg.Program("circuits")
    v = p.parameter("v", value=1.0)
    rng = np.random.default_rng(0)
    for k in range(n):
        r, i = float(rng.uniform(0.5, 2)), p.unknown(f"i{k}", start=0.1)
        drop = p.define(f"drop{k}", r * i)
        p.subject_to(i == 0.1 * (np.exp(v - drop) - 1) + 0.01 * i ** (2 + k % 2))
    return p


def chain(n, links=2):
    """Coupled pairs one after the other."""
    p = lg.Program("chain")
    a = last = p.parameter("a", value=0.7)
    for k in range(n):
        x, y = p.unknown(f"x{k}", start=0.5), p.unknown(f"y{k}", start=0.5)
        p.subject_to(x == np.cos(0.5 * y) - 0.1 * (last if k < links else a), name=f"first{k}")
        p.subject_to(y == np.sin(x) + 0.2 * last, name=f"second{k}")
        last = y
    p.define("end", last)
    return p


def by_entries(n):
    """Entries of one array, in a loop, and loads that are entries of another one."""
    p = lg.Program("rod")
    load = p.parameter("load", value=np.linspace(0.1, 1, n * n).reshape(n, n))
    u = p.unknown("u", (n * n,))
    for k in range(n * n):
        left = u[k - 1] if k else 0.0
        right = u[k + 1] if k < n * n - 1 else 0.0
        p.subject_to(left - 2 * u[k] + right - u[k] ** 3 / 3 + load[k // n][k % n] == 0)
    p.define("middle", u[n * n // 2] ** 2)
    return p


PROGRAMS = {
    "grid": (lambda: grid(13), "trace"),
    "circuits": (lambda: circuits(200), "i7"),
    "short chain": (lambda: chain(110, links=30), "end"),
    "long chain": (lambda: chain(80, links=80), "end"),
    "entries": (lambda: by_entries(14), "middle"),
}


def same(one, other, rtol=1e-9):
    assert list(one) == list(other)
    top = max(np.abs(other[name]).max() for name in other)
    for name in one:
        assert np.shape(one[name]) == np.shape(other[name])
        np.testing.assert_allclose(one[name], other[name], rtol=rtol, atol=1e-13 * top)


@pytest.fixture(params=PROGRAMS)
def solved(request, monkeypatch):
    """A program's solution as arrays, its output, and the solution one by one."""
    make, output = PROGRAMS[request.param]
    at = make().solve()
    assert isinstance(at._solved, SolvedTogether)
    monkeypatch.setattr(as_arrays, "UNKNOWNS", np.inf)
    plain = make().solve()
    assert isinstance(plain._solved, SolvedSystem)
    return at, output, plain


def test_all_that_is_asked_is_as_of_scalars_one_by_one(solved):
    at, output, plain = solved
    same(at, plain)
    same(at.gradient(output), plain.gradient(output))
    same(at.multipliers(output), plain.multipliers(output))
    name = next(iter(at.gradient(output)))
    along = {name: np.ones(np.shape(plain[name]))}
    same(at.tangent(along), plain.tangent(along))
    several = [output, *list(at)[-3:]]
    for of in several:
        same(at.jacobian(several, [name])[of], plain.jacobian(several, [name])[of])
    assert set(at.certificate.bounds) == set(plain.certificate.bounds)
    assert at.certificate.error_bound < 1e-9
    assert at.gradient(output).certificate.error_bound < 1e-9


def test_second_derivatives_and_systems_are_those_of_the_scalars(solved):
    at, output, plain = solved
    name = next(iter(at.gradient(output)))
    along = {name: np.ones(np.shape(plain[name]))}
    same(at.hessian_vector(output, along), plain.hessian_vector(output, along), 1e-7)
    assert at.adjoint_system(output).matrix.shape == plain.adjoint_system(output).matrix.shape


def test_a_grid_is_what_sparse_matrices_say():
    n = 20
    at = grid(n).solve()
    ends = sparse.diags_array([-np.ones(n), np.ones(n - 1)], offsets=[0, 1], shape=(n - 1, n))
    one, eye = sparse.csr_array(ends), sparse.eye_array(n)
    steps = sparse.csr_array(sparse.vstack([sparse.kron(one, eye), sparse.kron(eye, one)]))
    load = np.zeros(n * n)
    load[0] = 0.1

    def residual(u):
        d = steps @ u
        return -(steps.T @ (d + 0.1 * d**3)) - 0.05 * u - 0.01 * u**2 + load

    def slope(u):
        stiff = sparse.diags_array(1 + 0.3 * (steps @ u) ** 2)
        return -(steps.T @ stiff @ steps) - sparse.diags_array(0.05 + 0.02 * u)

    u = np.zeros(n * n)
    for _ in range(20):
        u -= sparse_linalg.spsolve(sparse.csc_array(slope(u)), residual(u))
    found = np.array([at[f"u{i}_{j}"] for i in range(n) for j in range(n)])
    np.testing.assert_allclose(found, u, rtol=1e-11)
    right = np.zeros(n * n)
    right[:: n + 1] = 1
    multipliers = sparse_linalg.spsolve(sparse.csc_array(slope(u)).T, right)
    d = steps @ u
    by_g = multipliers @ (steps.T @ (d + 0.1 * d**3))
    np.testing.assert_allclose(at.gradient("trace")["pull"], -multipliers[0], rtol=1e-10)
    np.testing.assert_allclose(at.gradient("trace")["g"], by_g, rtol=1e-10)


def test_circuits_are_what_brent_says():
    at = circuits(160).solve(v=1.3)
    rng = np.random.default_rng(0)
    for k in range(160):
        r = float(rng.uniform(0.5, 2))
        f = lambda i, r=r, k=k: i - 0.1 * (np.exp(1.3 - r * i) - 1) - 0.01 * i ** (2 + k % 2)
        assert at[f"i{k}"] == pytest.approx(optimize.brentq(f, 0, 2, xtol=1e-15), rel=1e-12)


def test_as_many_operations_as_forms():
    counts = [len(grid(n).together().compiled.system.arena.nodes) for n in (13, 26)]
    assert counts[0] == counts[1] < 80


def test_the_jacobian_of_the_arrays_is_solved_once_for_a_gradient(monkeypatch):
    p = grid(13)
    p.solve().gradient("trace")
    called = []
    plain = lg.Program.compiled
    monkeypatch.setattr(lg.Program, "compiled", lambda self: called.append(1) or plain(self))
    p.solve(g=1.1).gradient("trace")
    assert not called  # nothing is made of the scalars


def test_what_cannot_be_solved_is_said_by_the_names_of_scalars():
    p = grid(13)
    extra = p.unknown("loose", start=1.0)
    p.subject_to(extra * extra == -1.0, name="no root") if False else p.subject_to(
        extra * extra == -1.0, name="no_root"
    )
    with pytest.raises(lg.NotConverged, match="loose"):
        p.solve()
    q = grid(13)
    q.unknown("loose")
    with pytest.raises(lg.StructureError, match="loose"):
        q.solve()


def test_a_solution_stays_that_of_the_program_as_it_was():
    p = grid(13)
    at = p.solve()
    before = dict(at.gradient("trace"))
    later = p.parameter("later", value=1.0)
    p.define("more", later * p["u0_0"])
    assert "more" not in at
    second = at.hessian_vector("trace", pull=1.0)
    assert set(second) == set(before) == {"g", "pull"}
    assert p.solve()["more"] == p.solve()["u0_0"]


def test_a_small_derivative_is_judged_beside_itself():
    # One circuit is of microamperes, and its derivative as accurate as the others'.
    p = lg.Program()
    scales = [1e-9 if k == 5 else 1.0 for k in range(160)]
    for k, s in enumerate(scales):
        a, z = p.parameter(f"a{k}", value=0.5 * s), p.unknown(f"z{k}", start=0.4 * s)
        p.subject_to(z / s + 0.3 * np.sin(z / s) == a / s)
    p.define("total", sum(p[f"z{k}"] for k in range(160)))
    at = p.solve()
    assert isinstance(at._solved, SolvedTogether)
    z = optimize.brentq(lambda z: z + 0.3 * np.sin(z) - 0.5, 0, 1, xtol=1e-15)
    for k, s in enumerate(scales):
        assert at[f"z{k}"] == pytest.approx(s * z, rel=1e-12)
        assert at.gradient("total")[f"a{k}"] == pytest.approx(1 / (1 + 0.3 * np.cos(z)), rel=1e-12)
        assert at.certificate.bounds[f"z{k}"] < 1e-13


def test_kinks_and_choices():
    p = lg.Program()
    a = p.parameter("a", value=1.0)
    for k in range(160):
        z = p.unknown(f"z{k}", start=0.1)
        p.subject_to(2 * z + np.where(z > 0, z, 0.1 * z) == a * (k - 80) / 80)
    at = p.solve()
    assert at._solved.solved.point.tied  # z80 is at its kink, and does not move
    for k in (0, 79, 80, 81, 159):
        z = (k - 80) / 80 / (3.0 if k > 80 else 2.1)
        assert at[f"z{k}"] == pytest.approx(z, rel=1e-12, abs=1e-15)
        assert at.gradient(f"z{k}")["a"] == pytest.approx(z, rel=1e-12, abs=1e-15)


def test_numbers_that_were_rounded_are_wider_ones_where_that_is_asked_for():
    # 1/3 and its square, of which little is left.
    p = lg.Program()
    a = p.parameter("a", value=1.0)
    third = a.graph.constant(1.0) / 3.0
    for k in range(160):
        z = p.unknown(f"z{k}", start=1.0)
        p.subject_to(z * z + k * third == 1.0 * a + k * third)
    assert p.solve().gradient("z9")["a"] == pytest.approx(0.5, rel=1e-12)


def test_what_no_equation_needs():
    p = grid(13)
    p.parameter("idle", value=[1.0, 2.0])
    p.parameter("single", value=3.0)
    p.parameter("none", value=np.zeros((0, 3)))
    p.unknown("empty", (0,))
    p.define("number", 2.0)
    at = p.solve()
    assert isinstance(at._solved, SolvedTogether)
    gradient = at.gradient("trace")
    assert gradient["idle"].tolist() == [0.0, 0.0]
    assert (gradient["single"], gradient["none"].shape) == (0.0, (0, 3))
    assert (at["empty"].shape, at["number"]) == ((0,), 2.0)


TRUTHS = {
    "or": lambda x, y, z: 0.3 * ((x > 0.1) + (y > 0.1) + (z > 0.1)),
    "or beside a number": lambda x, y, z: ((x > 0.1) + (y > 0.1)) + 0.1 * z + 0.2,
    "and": lambda x, y, z: (x > 0.1) * (y > 0.1) + 0.1 * z + 0.2,
    "counted": lambda x, y, z: 0.1 * ((x > 0.1) * 1 + (y > 0.1) * 2 + (z > 9.0) * 3),
}


@pytest.mark.parametrize("case", TRUTHS)
def test_a_sum_of_truths_is_or(case):
    # As NumPy has it, of two and of three; a sum that one is a term of adds up one of them.
    p, n, of = lg.Program(), 160, TRUTHS[case]
    a = p.parameter("a", value=1.0)
    u = [p.unknown(f"u{k}", start=0.5) for k in range(n)]
    for k in range(n):
        p.subject_to(2 * u[k] + 0.1 * np.sin(u[k - 1]) == a + of(u[k - 1], u[(k + 1) % n], u[k]))
    at = p.solve()
    assert isinstance(at._solved, SolvedTogether)
    x = np.float64(0.5)
    for _ in range(200):  # all alike
        x = (1 + of(x, x, x) - 0.1 * np.sin(x)) / 2
    assert [at[f"u{k}"] for k in (0, 3, n - 1)] == pytest.approx([x] * 3, rel=1e-12)


def test_starts_and_many_solutions():
    p = grid(13)
    first = p.solve()
    again = p.solve(start=first)
    same(again, first)
    both = p.solve_many({"pull": [0.1, 0.2]})
    same(both[0], first)
    assert both[1]["trace"] > first["trace"]
    assert "u0_0" in str(first.profile())


def test_second_derivatives_beside_blocks_that_an_output_does_not_need():
    # Three of them, in which a definition stands: nothing flows back to two.
    p = lg.Program()
    v = p.parameter("v", value=1.0)
    for k in range(3):
        i = p.unknown(f"i{k}", start=0.1)
        drop = p.define(f"drop{k}", 0.7 * i)
        p.subject_to(i == 0.1 * (np.exp(v - drop) - 1))
    at = p.solve()
    i = float(at["i1"])
    e = 0.1 * np.exp(1 - 0.7 * i)
    slope = e / (1 + 0.7 * e)
    second = e * (1 - 0.7 * slope) / (1 + 0.7 * e) ** 2
    assert at.gradient("i1")["v"] == pytest.approx(slope, rel=1e-12)
    assert at.hessian_vector("i1", v=1.0)["v"] == pytest.approx(second, rel=1e-10)
    assert p.adjoint("i1").solve()["λ_v"] == pytest.approx(slope, rel=1e-12)


@pytest.mark.parametrize("kind", SCALINGS)
def test_random_systems_as_arrays_beside_mpmath(kind, monkeypatch):
    # However few they are: what is found is right, or has a bound that says so, or is refused.
    monkeypatch.setattr(as_arrays, "UNKNOWNS", 1)
    monkeypatch.setattr(as_arrays, "NODES", 0)
    for seed in range(900, 905):
        for outcome in run(f"systems/{kind}", seed, 1):
            assert outcome.verdict != "silent", (kind, seed, outcome)


@pytest.mark.parametrize("parameter", [False, True])
def test_all_unknowns_in_all_equations(parameter):
    """An input-output table of 160 sectors: no matrix on the way has more entries than it."""
    n = 160
    table = np.random.default_rng(9).uniform(0, 1, (n, n)) / n / 1.6
    p = lg.Program("sectors")
    d = p.parameter("d", value=1.0)
    A = p.parameter("A", value=table) if parameter else table
    x = [p.unknown(f"x{i}", start=10.0) for i in range(n)]
    for i in range(n):
        p.subject_to(x[i] == sum(A[i, j] * x[j] for j in range(n)) + d / np.sqrt(x[i]))
    assert p.together() is not None
    at = p.solve(d=1.1)
    found = np.array([float(at[f"x{i}"]) for i in range(n)])
    residual = found - table @ found - 1.1 / np.sqrt(found)
    np.testing.assert_allclose(residual, 0, atol=1e-12)
    jacobian = np.eye(n) - table + np.diag(0.55 * found**-1.5)
    slope = np.linalg.solve(jacobian, 1 / np.sqrt(found))
    assert at.gradient("x3")["d"] == pytest.approx(slope[3], rel=1e-9)
