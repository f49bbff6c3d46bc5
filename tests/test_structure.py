"""Blocks, their order, and what cannot be solved whatever the numbers; networkx is the oracle."""

from __future__ import annotations

import re

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lagrad as lg


def blocks(p):
    return [
        ({v.name for v in b.variables}, {c.name for c in b.constraints})
        for b in p.compiled().structure.blocks
    ]


def test_explicit_parts_stand_around_one_block():
    p = lg.Program()
    x = p.parameter("x", value=1.0)
    before = p.define("before", x + 1)
    z = p.unknown("z")
    inside = p.define("inside", z * before)
    p.subject_to(inside + z == x, name="balance")
    p.define("after", inside + z)
    assert blocks(p) == [
        ({"before"}, {"before"}),
        ({"z", "inside"}, {"balance", "inside"}),
        ({"after"}, {"after"}),
    ]


def test_a_definition_is_never_inverted():
    # The equation fixes w, and z follows by inverting w's definition: one block, solved for z.
    p = lg.Program()
    z = p.unknown("z", start=1.0)
    w = p.define("w", -2 * z)
    p.subject_to(w == 3.0)
    assert blocks(p) == [({"z", "w"}, {"w", "z"})]
    at = p.solve()
    assert at["z"] == -1.5


def test_an_expression_that_two_equations_share_counts_once():
    # Both equations see u and v through u + v alone: two equations, one value.
    p = lg.Program()
    u, v = p.unknown("u"), p.unknown("v")
    total = u + v
    p.subject_to(total == 1.0)
    p.subject_to(np.exp(total) == 2.0)
    with pytest.raises(lg.StructureError, match="'u', 'v'"):
        p.solve()


def test_sizes_need_only_match_in_total():
    p = lg.Program()
    y = p.unknown("y", shape=5)
    p.subject_to(y[1:-1] == 0.5 * (y[2:] + y[:-2]))
    p.subject_to(y[0] == 0.0)
    p.subject_to(y[-1] == 4.0)
    np.testing.assert_allclose(p.solve()["y"], np.arange(5.0), atol=1e-14)


def test_under_and_overdetermined_parts_are_named_before_anything_is_computed():
    p = lg.Program()
    seen = []
    a, b, c = p.unknown("a"), p.unknown("b"), p.unknown("c")
    watch = lg.primitive(lambda x: seen.append(x) or x, vjp=lambda g, y, x: (g,), shape=lambda s: s)
    p.subject_to(watch(a) == 1.0, name="first")
    p.subject_to(a**2 == 4.0, name="second")
    p.subject_to(b + c == a, name="third")
    with pytest.raises(lg.StructureError) as caught:
        p.solve()
    over, under = str(caught.value).splitlines()[1:3]
    assert "over" in over
    assert "'first', 'second'" in over
    assert "'a'" in over
    assert "under" in under
    assert "'third'" in under
    assert "'b', 'c'" in under
    assert not seen


def test_entries_that_no_equation_has_are_named():
    p = lg.Program()
    y = p.unknown("y", shape=3)
    p.subject_to(y[:2] == 1.0, name="two")
    p.subject_to(y[0] + y[1] == 2.0, name="sum")
    with pytest.raises(lg.StructureError, match=r"'y\[2\]'"):
        p.solve()


def test_many_small_systems_share_nothing():
    p = lg.Program()
    for i in range(30):
        z = p.unknown(f"z{i}", start=1.0)
        p.subject_to(z * z == float(i + 1))
    assert len(blocks(p)) == 30
    at = p.solve()
    assert at["z8"] == 3.0


def test_the_graph_is_labelled():
    p = lg.Program("demo")
    x = p.parameter("x", value=1.0)
    z = p.unknown("z", shape=2)
    p.subject_to(z == np.cos(z) * x, name="loop")
    p.define("y", np.sum(z))
    graph = p.graph()
    assert isinstance(graph, nx.DiGraph)
    assert graph.nodes["variable", "z"] == {
        "label": "z",
        "kind": "unknown",
        "shape": (2,),
        "block": 0,
    }
    assert graph.nodes["constraint", "y"]["kind"] == "definition"
    assert graph.nodes["constraint", "loop"]["kind"] == "equation"
    assert graph.nodes["variable", "x"]["kind"] == "parameter"
    assert graph.has_edge(("variable", "x"), ("constraint", "loop"))
    assert set(nx.descendants(graph, ("variable", "x"))) >= {("variable", "y"), ("constraint", "y")}
    assert [len(c) for c in nx.strongly_connected_components(graph) if len(c) > 1] == [2]


@st.composite
def cyclic(draw):
    """A square system z_i = f(some z_j), with definitions in between."""
    n = draw(st.integers(1, 9))
    links = draw(
        st.lists(st.lists(st.integers(0, n - 1), max_size=3, unique=True), min_size=n, max_size=n)
    )
    defined = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    return n, links, defined


@given(cyclic())
def test_blocks_are_networkx_components_in_topological_order(case):
    n, links, defined = case
    p = lg.Program()
    z = [p.unknown(f"z{i}") for i in range(n)]
    inner = {i: p.define(f"w{i}", 0.1 * np.sin(z[i])) for i in range(n) if defined[i]}
    expected = nx.DiGraph()
    expected.add_nodes_from([f"z{i}" for i in range(n)])
    for i in inner:
        expected.add_edge(f"z{i}", f"w{i}")
    for i, linked in enumerate(links):
        total = 1.0
        for j in linked:
            total = total + inner.get(j, z[j] * 0.1)
            expected.add_edge(f"w{j}" if j in inner else f"z{j}", f"z{i}")
        p.subject_to(z[i] == total)
    found = [{v.name for v in b.variables} for b in p.compiled().structure.blocks]
    assert sorted(map(sorted, found)) == sorted(
        map(sorted, nx.strongly_connected_components(expected))
    )
    place = {name: k for k, names in enumerate(found) for name in names}
    assert all(place[a] <= place[b] for a, b in expected.edges)


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_solvable_structures_are_those_with_a_perfect_matching(m, n, data):
    pattern = data.draw(
        st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=m, max_size=m)
    )
    p = lg.Program()
    z = [p.unknown(f"z{j}") for j in range(n)]
    graph = nx.Graph()
    graph.add_nodes_from(("e", i) for i in range(m))
    for i, row in enumerate(pattern):
        terms = [z[j] for j in range(n) if row[j]]
        if not terms:
            return
        graph.add_edges_from((("e", i), j) for j in range(n) if row[j])
        # Products, so that no two equations share a sum.
        p.subject_to(sum((1 + i + k) * t for k, t in enumerate(terms)) == 1.0)
    pairs = nx.bipartite.maximum_matching(graph, top_nodes=[("e", i) for i in range(m)])
    # Equations may be too many, if they hold together; no unknown may be without one.
    if len(pairs) == 2 * n:
        p.compiled()
    else:
        with pytest.raises(lg.StructureError):
            p.compiled()


# Equations that share a product, or are stated of a definition


def evaporator(lacks=None, more=0.0, effects=5):
    p = lg.Program("evaporator")
    flow, share = p.parameter("Fin", value=10.0), p.parameter("xin", value=0.1)
    steam = p.unknown("U", start=1.0)
    for k in range(effects):
        F = p.unknown(f"F{k}", start=10 - 0.5 * k)
        x, V = p.unknown(f"x{k}", start=0.1 + 0.01 * k), p.unknown(f"V{k}", start=0.5)
        p.subject_to(flow * share == F * x, name=f"solid{k}")
        p.subject_to(flow == F + V, name=f"total{k}")
        if k != lacks:
            p.subject_to(V == steam * (0.4 + 0.01 * k), name=f"evaporates{k}")
        if more and k == 1:
            p.subject_to(F * x == more, name="too_much")
        flow, share = F, x
    p.subject_to(share == 0.3, name="specified")
    return p


def counts(p):
    """How many equations and unknowns each part has, by its kind."""
    with pytest.raises(lg.StructureError) as caught:
        p.solve()
    lines = re.findall(r"(\w+)determined: (\d+) equations? for (\d+) unknowns?", str(caught.value))
    return {what: (int(m), int(n)) for what, m, n in lines}, str(caught.value)


def test_parts_with_shared_products_miss_one_equation_or_have_one_too_many():
    evaporator().solve()
    lacking, said = counts(evaporator(lacks=2))
    assert lacking["under"][1] - lacking["under"][0] == 1
    assert "'F0'" in said
    assert "more" not in said
    # Of what is fed in all is left, and not half more of it.
    assert evaporator(more=1.0).solve()["F3"] == pytest.approx(evaporator().solve()["F3"])
    with pytest.raises(lg.NotConverged, match="contradict one another") as caught:
        evaporator(more=1.5).solve()
    have, want = map(int, re.search(r"are (\d+) for (\d+) unknown", str(caught.value)).groups())
    assert have - want == 1
    assert "too_much" in str(caught.value)
    both, _ = counts(evaporator(lacks=2, more=1.0))
    assert both["over"][0] - both["over"][1] == both["under"][1] - both["under"][0] == 1


@pytest.mark.parametrize(
    ("equations", "expected"),
    [
        (lambda x, y, d: [d == 1], {"under": (1, 2)}),
        (lambda x, y, d: [d == 1, d == 2], {"over": (2, 1), "under": (1, 2)}),
    ],
)
@pytest.mark.parametrize("defined", [True, False])
def test_definitions_stand_for_what_determines_them(equations, expected, defined):
    p = lg.Program()
    x, y = p.unknown("x", start=1.0), p.unknown("y", start=1.0)
    d = p.define("d", x * y) if defined else x * y
    for equation in equations(x, y, d):
        p.subject_to(equation)
    found, _ = counts(p)
    for what, (m, n) in expected.items():
        assert found[what][0] - found[what][1] == m - n


@pytest.mark.parametrize("defined", [True, False])
def test_definitions_in_equations_that_are_too_many(defined):
    for right in (2.0, 3.0):  # x y = 1 and x y + x = 2 make x = 1 and y = 1, or leave y = 2 over
        p = lg.Program()
        x, y = p.unknown("x", start=1.5), p.unknown("y", start=0.5)
        d = p.define("d", x * y) if defined else x * y
        for equation in (d == 1, d + x == 2, d * right == 2 * y):
            p.subject_to(equation)
        if right == 2.0:
            at = p.solve()
            np.testing.assert_allclose([at["x"], at["y"]], 1.0, rtol=1e-14)
        else:
            with pytest.raises(lg.NotConverged, match="are 3 for 2 unknowns, 'x', 'y'"):
                p.solve()


def test_the_chain_of_products():
    p = lg.Program("chain")
    a = p.parameter("a", value=2.0)
    L, x, M, y = (p.unknown(n, start=1.0) for n in ("L", "x", "M", "y"))
    p.subject_to(a == L * x, name="s0")
    p.subject_to(L * x == M * y, name="s1")
    p.subject_to(L == 3 * M, name="m")
    found, said = counts(p)
    assert found == {"under": (3, 4)}
    assert all(repr(name) in said for name in ("s0", "s1", "m", "L", "x", "M", "y"))
