"""The assembled adjoint system: its entries, its labels, its order, its solution."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sparse

import lagrad as lg
from lagrad.cli import examples, load


def test_the_entries_are_the_local_partials_of_the_post():
    at = load("domke").solve(x=-1.0)
    system = at.adjoint_system("f")
    assert system.labels == ["a", "b", "c", "d", "e", "f"]
    a, c = np.exp(-1.0), np.exp(-1.0) + np.exp(-2.0)
    partials = {
        ("a", "b"): 2 * a,
        ("a", "c"): 1.0,
        ("b", "c"): 1.0,
        ("c", "d"): np.exp(c),
        ("c", "e"): np.cos(c),
        ("d", "f"): 1.0,
        ("e", "f"): 1.0,
    }
    expected = np.eye(6)
    for (v, constraint), value in partials.items():
        expected["abcdef".index(v), "abcdef".index(constraint)] = -value
    np.testing.assert_allclose(system.matrix.toarray(), expected, rtol=1e-14)
    assert system.rhs.tolist() == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("name", list(examples()))
def test_its_solution_is_scipys_and_the_quick_roads(name):
    program = load(name)
    at = program.solve()
    output = [v.name for v in program.with_role("defined") if v.size == 1][-1]
    system = at.adjoint_system(output)
    n = system.rhs.size
    assert system.matrix.shape == (n, n)
    assert sparse.issparse(system.matrix)
    assert len(system.labels) == len(system.row_labels) == n
    direct = sparse.linalg.spsolve(system.matrix.tocsc(), system.rhs)
    np.testing.assert_allclose(system.vector(), direct, rtol=1e-9, atol=1e-9 * np.abs(direct).max())
    multipliers = at.multipliers(output)
    for constraint, value in system.solve().items():
        np.testing.assert_allclose(
            value, multipliers[constraint], rtol=1e-9, atol=1e-10 * np.abs(direct).max()
        )


def test_rows_and_columns_stand_in_solving_order():
    at = load("power_flow").solve()
    system = at.adjoint_system("loss")
    matrix = system.matrix.tocoo()
    block = np.zeros(system.rhs.size, dtype=int)
    for number, part in enumerate(system.blocks):
        block[part] = -number
    assert (block[matrix.row] <= block[matrix.col]).all()
    assert block[-1] == 0


def test_the_jacobian_is_that_of_finite_differences_of_every_residual():
    p = lg.Program()
    x = p.parameter("x", value=0.7)
    z = p.unknown("z", shape=2, start=0.5)
    w = p.define("w", np.sin(z) * x)
    p.subject_to(z[0] + w[1] == x, name="one")
    p.subject_to(np.exp(z[1]) - w[0] == 1.2, name="two")
    p.define("f", np.sum(w * z))
    at = p.solve()
    system = at.adjoint_system("f")

    def residuals(values):
        zz, ww, ff = values[:2], values[2:4], values[4]
        return {
            "w": np.sin(zz) * 0.7 - ww,
            "one": np.array([0.7 - (zz[0] + ww[1])]),
            "two": np.array([1.2 - (np.exp(zz[1]) - ww[0])]),
            "f": np.array([np.sum(ww * zz) - ff]),
        }

    order = {"z[0]": 0, "z[1]": 1, "w[0]": 2, "w[1]": 3, "f": 4}
    point = np.concatenate([at["z"], at["w"], [at["f"]]])
    step = 1e-6
    for row, label in enumerate(system.row_labels):
        bump = np.zeros(5)
        bump[order[label]] = step
        up, down = residuals(point + bump), residuals(point - bump)
        flat = {
            (name if len(up[name]) == 1 else f"{name}[{i}]"): (up[name][i] - down[name][i])
            / (2 * step)
            for name in up
            for i in range(len(up[name]))
        }
        expected = [-flat[column] for column in system.labels]
        np.testing.assert_allclose(system.matrix.toarray()[row], expected, atol=1e-8)


def test_a_random_acyclic_program_is_backprop_over_paths():
    # λ of a node is the sum over all paths to the output of the products of their partials.
    rng = np.random.default_rng(3)
    graph = nx.gnp_random_graph(12, 0.3, seed=4, directed=True)
    edges = [(i, j) for i, j in graph.edges if i < j] + [(10, 11)]
    weights = {edge: rng.standard_normal() for edge in edges}
    p = lg.Program()
    v = {}
    for j in range(12):
        terms = [w * v[i] for (i, k), w in weights.items() if k == j]
        v[j] = p.define(
            f"v{j}", sum(terms, start=np.float64(0.0)) + p.parameter(f"x{j}", value=1.0)
        )
    found = p.solve().adjoint_system("v11").solve()
    dag = nx.DiGraph(list(weights))
    for i in range(11):
        paths = nx.all_simple_edge_paths(dag, i, 11) if i in dag else []
        expected = sum(np.prod([weights[e] for e in path]) for path in paths)
        np.testing.assert_allclose(found[f"v{i}"], expected, rtol=1e-12, atol=1e-14)
