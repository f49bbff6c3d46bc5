"""Numbers known from closed forms, or recomputed at forty digits or by two methods."""

from __future__ import annotations

import mpmath
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sparse

import lagrad as lg
from lagrad.cli import load

EXACT = 2e-14


def close(value, expected, rtol=EXACT):
    np.testing.assert_allclose(value, expected, rtol=rtol, atol=0)


@pytest.mark.parametrize(
    ("x", "f", "first", "second"),
    [
        (0.0, 8.2983535257563319, 20.918727787150524, 93.182374360862256),
        (-1.0, 2.1362742261923539, 1.6155741697332786, 2.7781798620448096),
    ],
)
def test_domke(x, f, first, second):
    program = load("domke")
    at = program.solve(x=x)
    close(at["f"], f)
    close(at.gradient("f")["x"], first)
    close(at.hessian_vector("f", x=1.0)["x"], second)
    close(at.tangent(x=1.0)["f"], first)
    adjoint = program.adjoint("f")
    close(adjoint.solve(x=x).gradient("λ_x")["x"], second)
    if x == 0.0:
        close(at.multipliers("f")["c"], 6.972909262383508)


def test_sellar():
    at = load("sellar").solve()
    close(at["y1"], 25.588302369877686)
    close(at["y2"], 12.058488150611572)
    close(at["obj"], 28.58830816503375)
    table = {
        "obj": (9.6100105569899554, 1.7844853356313655, 2.9806139134842878),
        "y1": (9.6100218569109605, 0.78449158015599678, 0.98061447519499597),
        "y2": (1.9498907154451975, 1.0775420992200161, 0.096927624025020149),
    }
    jacobian = at.jacobian(list(table), ["z1", "z2", "x"])
    for name, numbers in table.items():
        close([at.gradient(name)[v] for v in ("z1", "z2", "x")], numbers)
        close([jacobian[name][v] for v in ("z1", "z2", "x")], numbers)


def test_diode_from_a_start_where_plain_newton_overflows():
    at = load("diode").solve()
    close(at["V1"], 9.9080473450793302)
    close(at["V2"], 0.71278185301235155)
    V1, V2 = at.gradient("V1"), at.gradient("V2")
    close([V1["current"], V2["current"]], [99.012651828244492, 0.27783465269367885], 1e-12)
    close([V1["R1"], V2["R1"]], [0.098102204207610193, 2.7527988929926425e-4], 1e-12)
    close([V1["R2"], V2["R2"]], [9.0789285723988442e-6, -2.5547633944145989e-6], 1e-12)


def test_kepler():
    p = lg.Program("kepler")
    M, e = p.parameter("M", value=1.0), p.parameter("e", value=0.5)
    E = p.unknown("E", start=1.0)
    p.subject_to(E - e * np.sin(E) == M)
    at = p.solve()
    close(at["E"], 1.4987011335178483)
    close(at.gradient("E")["M"], 1.0373620218936459)
    close(at.gradient("E")["e"], 1.0346672323734564)
    close(at.hessian_vector("E", M=1.0)["M"], -0.55671303266858778, 1e-13)
    # Third order, through the adjoint of the adjoint.
    third = p.adjoint("E").adjoint("λ_M").solve().gradient("μ_M")["M"]
    with mpmath.workdps(40):
        anomaly = lambda m: mpmath.findroot(
            lambda z: z - mpmath.mpf("0.5") * mpmath.sin(z) - m, 1.5
        )
        exact = mpmath.diff(anomaly, 1, 3)
    close(third, float(exact), 1e-12)


def test_fixed_point_of_the_cosine():
    p = lg.Program()
    theta = p.parameter("theta", value=1.0)
    z = p.unknown("z", start=0.5)
    p.subject_to(z == np.cos(theta * z))
    at = p.solve()
    close(at["z"], 0.73908513321516064)
    with mpmath.workdps(30):
        root = lambda t: mpmath.findroot(lambda s: s - mpmath.cos(t * s), 0.7)
        close(at.gradient("z")["theta"], float(mpmath.diff(root, 1)))


def pcfg(p_value, q_value, start=0.0):
    program = lg.Program("pcfg")
    p, q = program.parameter("p", value=p_value), program.parameter("q", value=q_value)
    Z = program.unknown("Z", start=start)
    program.subject_to(Z == p * Z**2 + q)
    return program


def test_pcfg_partition_function():
    at = pcfg(0.25, 0.7).solve()
    close(at["Z"], 0.90455488498966777)
    close(at.gradient("Z")["q"], 1.8257418583505537, 1e-13)
    close(at.gradient("Z")["p"], 1.4938576634228793, 1e-13)


@pytest.mark.parametrize("start", [0.0, 0.3, 1.0, 1.0 + 1e-9, 2.0])
def test_a_double_root_is_singular_wherever_it_starts(start):
    with pytest.raises(lg.SingularSystem):
        pcfg(0.5, 0.5, start).solve()


@pytest.mark.parametrize("start", [1.0, -2.0, 1e-3])
def test_a_double_root_at_zero_is_singular(start):
    program = lg.Program()
    p, z = program.parameter("p", value=0.0), program.unknown("z", start=start)
    program.subject_to(z**2 == p)
    with pytest.raises(lg.SingularSystem, match="multiple root"):
        program.solve()


def bratu(n, sparse_form):
    h = 1.0 / (n + 1)
    p = lg.Program("bratu")
    lam = p.parameter("lam", value=5.0)
    if sparse_form:
        T = sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(n, n))
        A = sparse.kron(T, sparse.eye_array(n)) + sparse.kron(sparse.eye_array(n), T)
        u = p.unknown("u", shape=n * n)
        p.subject_to(A.tocsr() @ u + h**2 * lam * np.exp(u) == 0)
    else:
        u = p.unknown("u", shape=(n, n))
        around = np.pad(u, 1)
        total = around[2:, 1:-1] + around[:-2, 1:-1] + around[1:-1, 2:] + around[1:-1, :-2]
        p.subject_to(total - 4 * u == -(h**2) * lam * np.exp(u))
    p.define("J", h**2 * np.sum(u))
    return p


@pytest.mark.parametrize("sparse_form", [True, False])
def test_bratu_on_the_square(sparse_form):
    at = bratu(32, sparse_form).solve()
    close(at["J"], 0.251696401943538, 1e-13)
    close(at.gradient("J")["lam"], 0.0808834246844752, 1e-12)
    at = bratu(64, sparse_form).solve()
    close(at["J"], 0.25215882906314, 1e-13)
    close(at.gradient("J")["lam"], 0.0809991201302006, 1e-12)
    close(at.hessian_vector("J", lam=1.0)["lam"], 0.0270196220, 1e-8)


def test_bratu_on_a_line_with_one_equation_for_each_end():
    # u(x) = −2 log(cosh((x − ½)θ/2) / cosh(θ/4)) with θ = √(2λ) cosh(θ/4): the discrete solution
    # converges to it with h².
    def midpoint(n):
        h = 1.0 / (n - 1)
        p = lg.Program("bratu_1d")
        lam = p.parameter("lam", value=1.0)
        u = p.unknown("u", shape=n)
        p.subject_to(u[2:] - 2 * u[1:-1] + u[:-2] + h**2 * lam * np.exp(u[1:-1]) == 0)
        p.subject_to(u[0] == 0)
        p.subject_to(u[-1] == 0)
        p.define("middle", u[n // 2])
        at = p.solve()
        return np.array([at["middle"], at.gradient("middle")["lam"]])

    coarse, fine = midpoint(201), midpoint(401)
    close(fine + (fine - coarse) / 3, [0.14053921440047, 0.159202806197], 1e-9)


def test_pagerank_of_the_karate_club():
    graph = nx.karate_club_graph()
    n, alpha = graph.number_of_nodes(), 0.85
    links = nx.to_numpy_array(graph, weight=None)
    P = sparse.csr_array(links / links.sum(axis=0))
    p = lg.Program("pagerank")
    a = p.parameter("alpha", value=alpha)
    x = p.unknown("x", shape=n, start=1.0 / n)
    p.subject_to(x == a * (P @ x) + (1 - a) / n)
    p.define("x0", x[0])
    at = p.solve()
    close(at["x0"], 0.09699728538829479, 1e-13)
    close(at.gradient("x0")["alpha"], 0.046837996220683124, 1e-12)
    ranks = nx.pagerank(nx.Graph(graph.edges), alpha=alpha, tol=1e-14, max_iter=1000)
    np.testing.assert_allclose(at["x"], [ranks[i] for i in range(n)], atol=1e-12)


def test_power_flow_of_the_ieee_14_bus_case():
    at = load("power_flow").solve()
    close(at["loss"], 13.39327236, 1e-8)
    close(at["V"][13], 1.03552995, 1e-8)
    close(np.degrees(at["theta"][13]), -16.033645, 1e-7)
    gradient = at.gradient("loss")["Pd"]
    close([gradient[8], gradient[13]], [0.11170815, 0.13764284], 1e-7)


def test_ridge_hyperparameter_by_the_normal_equations():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 4)), rng.standard_normal(30)
    V, w = rng.standard_normal((20, 4)), rng.standard_normal(20)
    p = lg.Program("ridge")
    lam = p.parameter("lam", value=0.7)
    theta = p.unknown("theta", shape=4)
    p.subject_to(X.T @ (X @ theta - y) + lam * theta == 0)
    p.define("loss", 0.5 * np.mean(np.square(V @ theta - w)))
    at = p.solve()
    H = X.T @ X + 0.7 * np.eye(4)
    best = np.linalg.solve(H, X.T @ y)
    close(at["theta"], best, 1e-12)
    exact = -(V.T @ (V @ best - w) / 20) @ np.linalg.solve(H, best)
    close(at.gradient("loss")["lam"], exact, 1e-12)


@pytest.mark.parametrize(
    ("factors", "expected"), [((3, 0, 2, 5), (0, 30, 0, 0)), ((0, 2, 0, 5), (0, 0, 0, 0))]
)
def test_the_gradient_of_a_product_with_zeros(factors, expected):
    p = lg.Program()
    x = p.parameter("x", value=factors)
    p.define("y", np.prod(x))
    assert p.solve().gradient("y")["x"].tolist() == list(expected)


def test_spanning_trees_of_the_complete_graph():
    # The matrix-tree theorem; the derivative by an edge's weight counts the trees through it.
    n = 5
    p = lg.Program()
    weights = p.parameter("w", value=np.ones(n * (n - 1) // 2))
    first, second = np.triu_indices(n, 1)
    incidence = np.zeros((n, first.size))
    incidence[first, np.arange(first.size)] = 1.0
    incidence[second, np.arange(first.size)] = -1.0
    reduced = incidence[1:]
    p.define("trees", np.linalg.det((reduced * weights) @ reduced.T))
    at = p.solve()
    close(at["trees"], 125)
    close(at.gradient("trees")["w"], np.full(10, 125 * (n - 1) / 10), 1e-13)
