"""Printed, typeset and written out as source: what a person reads, and what runs."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sparse
from hypothesis import given
from hypothesis import strategies as st

import lagrad as lg
from lagrad.cli import examples, load
from lagrad.primitives import kernels
from lagrad.programs import source_runtime


def test_a_program_prints_as_mathematics():
    assert str(load("sellar")).splitlines() == [
        "program sellar",
        "  parameters: z1, z2, x",
        "  unknowns: y1, y2",
        "  y1 = z1² + z2 + x - 0.2·y2",
        "  y2 = sqrt(y1) + z1 + z2",
        "  obj = x² + z2 + y1 + exp(-y2)",
    ]


def test_the_adjoint_prints_as_in_the_post():
    shown = str(load("domke").adjoint("f"))
    for line in (
        "λ_f = 1",
        "λ_d = λ_f",
        "λ_e = λ_f",
        "λ_c = exp(c)·λ_d + cos(c)·λ_e",
        "λ_b = λ_c",
        "λ_a = 2·a·λ_b + λ_c",
        "λ_x = exp(x)·λ_a",
    ):
        assert f"  {line}\n" in shown + "\n"


def test_cyclic_adjoints_print_their_equations_with_names():
    lines = str(load("sellar").adjoint("obj")).splitlines()
    assert any(line.endswith("[flow_λ_y1]") and "λ_y2" in line for line in lines)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda a, b: a - (b - a), "a - (b - a)"),
        (lambda a, b: (a + b) * a, "(a + b)·a"),
        (lambda a, b: a / (b * a), "a/(b·a)"),
        (lambda a, b: -(a + b), "-(a + b)"),
        (lambda a, b: (-a) ** 2, "(-a)²"),
        (lambda a, b: a**b, "a^b"),
        (lambda a, b: (a**2) ** 3, "(a²)³"),
        (lambda a, b: a * (b / a), "a·(b/a)"),
        (lambda a, b: a - 3.5 * b, "a - 3.5·b"),
        (lambda a, b: np.where(a > b, a, 0.0), "where(a > b, a, 0)"),
        (lambda a, b: np.hypot(a, b), "hypot(a, b)"),
        (lambda a, b: a + (-b), "a - b"),
    ],
)
def test_brackets_stand_where_they_are_needed(build, expected):
    p = lg.Program()
    a, b = p.parameter("a", value=2.0), p.parameter("b", value=3.0)
    p.define("y", build(a, b))
    assert str(p).splitlines()[-1] == f"  y = {expected}"
    namespace = {}
    exec(p.source(), namespace)
    assert namespace["solve"]()["y"] == p.solve()["y"]


def test_arrays_long_programs_and_long_lines_are_elided():
    p = lg.Program("long")
    v = p.parameter("v", value=np.ones(1000))
    s = np.sum(v)
    for i in range(300):
        s = p.define(f"s{i}", s * 1.5 + np.sum(v * np.arange(1000.0)) + i)
    p.define("wide", sum(np.sin(k * s) for k in range(1, 80)))
    shown = str(p)
    assert "array(1000,)" in shown
    assert "more constraints" in shown
    assert len(shown) < 8_000
    assert max(map(len, shown.splitlines())) < 250
    assert len(p._repr_latex_()) < 20_000


def test_sharing_does_not_blow_up():
    p = lg.Program()
    v = p.parameter("x", value=1.0)
    for _ in range(200):
        v = v * v + np.sin(v)
    p.define("y", v)
    assert len(str(p)) < 1000
    source = p.source()
    assert len(source) < 50_000


def test_latex_has_fractions_powers_and_greek():
    p = lg.Program()
    x, y_1 = p.parameter("x", value=1.0), p.parameter("y_1", value=2.0)
    p.define("f", np.sqrt(x) * x**2 / y_1)
    shown = p._repr_latex_()
    assert shown.startswith("$$\\begin{aligned}")
    assert "\\frac{\\sqrt{x} x^{2}}{y_{1}}" in shown
    assert "\\lambda_{f} &= 1" in p.adjoint("f")._repr_latex_()


@pytest.mark.parametrize("name", list(examples()))
def test_the_source_of_every_example_and_adjoint_gives_the_same_numbers(name):
    program = load(name)
    at = program.solve()
    output = [v.name for v in program.with_role("defined") if v.size == 1][-1]
    for system in (program, program.adjoint(output)):
        namespace = {}
        exec(compile(system.source(), name, "exec"), namespace)
        written = namespace["solve"]()
        solved = at if system is program else system.solve()
        scale = max(float(np.abs(solved[v]).max()) for v in system.variables)
        for v in system.variables:
            np.testing.assert_allclose(written[v], solved[v], rtol=1e-5, atol=1e-6 * scale)


def test_source_carries_sparse_matrices_indices_and_shared_terms():
    p = lg.Program("shapes")
    x = p.parameter("x", value=np.linspace(0.0, 1.0, 40))
    A = sparse.random_array((30, 40), density=0.2, rng=np.random.default_rng(0), format="csr")
    t = np.exp(x)
    p.define("y", A @ t + t[np.arange(30)][::-1])
    p.define("m", np.reshape(t, (5, 8))[:, [0, 3, 3]])
    p.define("f", np.sum(p.variables["y"] ** 2) + np.sum(p.variables["m"]) + lg.logsumexp(x))
    adjoint = p.adjoint("f")
    namespace = {}
    exec(adjoint.source(), namespace)
    written, solved = namespace["solve"](), adjoint.solve()
    for name in ("y", "m", "f", "λ_x"):
        np.testing.assert_allclose(written[name], solved[name], rtol=1e-12)


def test_names_of_multipliers_do_not_collide():
    p = lg.Program()
    x = p.parameter("x", value=0.5)
    p.define("λ_x", np.sin(x))
    p.define("f", p.variables["λ_x"] ** 2)
    adjoint = p.adjoint("f")
    np.testing.assert_allclose(adjoint.solve()["μ_x"], 2 * np.sin(0.5) * np.cos(0.5), rtol=1e-15)


def test_solutions_and_gradients_have_short_representations():
    at = load("power_flow").solve()
    assert len(repr(at)) < 3000
    assert "loss = 13.39" in repr(at)
    assert "setpoint" in repr(at.gradient("loss"))
    assert "bound" in str(at.certificate)


@given(st.data())
def test_source_computes_what_was_declared(data):
    p = lg.Program()
    terms = [
        p.parameter(name, value=value) for name, value in (("a", 2.0), ("b", 5.0), ("c", -3.0))
    ]
    operations = (
        lambda x, y: x + y,
        lambda x, y: x - y,
        lambda x, y: x * y,
        lambda x, y: x / y,
        lambda x, y: -x,
        lambda x, y: x**2,
        lambda x, y: 2.0 ** (x / 50),
        lambda x, y: np.abs(x),
    )
    for _ in range(data.draw(st.integers(1, 6))):
        build = data.draw(st.sampled_from(operations))
        x, y = data.draw(st.sampled_from(terms)), data.draw(st.sampled_from(terms))
        terms.append(build(x, y))
    p.define("y", terms[-1])
    namespace = {}
    exec(p.source(), namespace)
    with np.errstate(all="ignore"):
        try:
            expected = p.solve()["y"]
        except lg.NotFinite:
            return
        np.testing.assert_allclose(namespace["solve"]()["y"], expected, rtol=1e-14)


def test_source_finds_the_same_root_of_several():
    p = lg.Program("acid")
    Kw, Ka, C = (p.parameter(n, value=v) for n, v in (("Kw", 1e-14), ("Ka", 1.8e-5), ("C", 1e-3)))
    h, oh, A, HA = (
        p.unknown(n, start=s) for n, s in (("h", 1e-7), ("oh", 1e-7), ("A", 1e-4), ("HA", 1e-4))
    )
    for equation in (h * oh == Kw, h * A == Ka * HA, A + HA == C, h == A + oh):
        p.subject_to(equation)
    p.define("f", 1.0 * h)
    namespace = {}
    exec(p.adjoint("f").source(), namespace)
    at, written = p.solve(), namespace["solve"]()
    np.testing.assert_allclose(written["h"], at["h"], rtol=1e-9)
    np.testing.assert_allclose(written["λ_Ka"], at.gradient("f")["Ka"], rtol=1e-7)


def test_source_solves_a_block_that_starts_at_its_solution_of_zero():
    p = lg.Program()
    z = p.unknown("z", shape=3, start=0.0)
    p.subject_to(np.sinh(z) == p.parameter("a", value=np.zeros(3)))
    namespace = {}
    exec(compile(p.source(), "source", "exec", dont_inherit=True), namespace)
    np.testing.assert_array_equal(namespace["solve"]()["z"], np.zeros(3))
    np.testing.assert_allclose(namespace["solve"](a=np.ones(3))["z"], np.arcsinh(np.ones(3)))


def test_source_keeps_the_shape_of_empty_arrays():
    p = lg.Program()
    p.define("y", np.sum(p.parameter("x", value=np.zeros((0, 3))), axis=0))
    namespace = {}
    exec(p.source(), namespace)
    np.testing.assert_array_equal(namespace["solve"]()["y"], np.zeros(3))


def test_functions_of_the_source_are_those_of_the_library():
    rng = np.random.default_rng(0)
    x, positions = rng.standard_normal((4, 5)), np.array([[3, -1, 7], [3, 0, 19]])
    index = kernels.Index(positions, x.shape)
    np.testing.assert_array_equal(
        source_runtime.gather(x, positions.tolist()), kernels.gather(x, index)
    )
    c = rng.standard_normal(positions.shape)
    np.testing.assert_allclose(
        source_runtime.scatter(c, positions.tolist(), x.shape), kernels.scatter(c, index)
    )
    key = ((None, None, 2), 3)
    np.testing.assert_array_equal(
        source_runtime.embed(c[0, :2], np.s_[::2, 3], x.shape),
        kernels.embed(c[0, :2], key, x.shape),
    )


def test_source_keeps_clear_of_the_names_it_needs():
    p = lg.Program()
    a, scale = p.parameter("_z", value=2.0), p.parameter("np", value=1.0)
    x = p.unknown("x", start=1.0)
    p.subject_to(x * np.exp(x) == a * scale)
    p.define("_root", x * a)
    namespace = {}
    exec(p.source(), namespace)
    np.testing.assert_allclose(namespace["solve"]()["_root"], p.solve()["_root"], rtol=1e-10)


def test_source_stays_as_long_as_the_graph():
    def length(depth):
        p = lg.Program()
        v = p.parameter("x", value=0.5)
        for _ in range(depth):
            v = v + 1e-3 * np.sin(v)
        p.define("f", v)
        text = p.adjoint("f").source()
        exec(text, {})
        return len(text)

    assert length(800) < 5 * length(200)


def test_source_refuses_primitives_it_cannot_write():
    p = lg.Program()
    cube = lg.primitive(lambda x: x**3, vjp=lambda g, y, x: (3 * g * x**2,), name="cube")
    p.define("y", cube(p.parameter("x", value=1.0)))
    with pytest.raises(lg.UnsupportedFunction, match="cube"):
        p.source()
