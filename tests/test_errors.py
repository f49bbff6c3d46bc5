"""Bad input: one named error, before anything is computed where that is possible."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sparse

import lagrad as lg


@pytest.fixture
def p():
    program = lg.Program("demo")
    program.parameter("x", value=1.0)
    program.parameter("v", value=[3.0, 1.0])
    return program


def var(program, name="x"):
    return program.variables[name]


@pytest.mark.parametrize(
    ("name", "said"),
    [("x", "already"), ("2x", "identifier"), ("for", "'for'"), (3, "3"), ("", "''")],
)
def test_names_are_identifiers_and_unique(p, name, said):
    for declare in (p.parameter, p.unknown, lambda n: p.define(n, 1.0)):
        with pytest.raises(lg.InvalidName, match=said):
            declare(name)


def test_a_constraint_may_not_take_another_name(p):
    z = p.unknown("z")
    p.subject_to(z == 1.0, name="rule")
    with pytest.raises(lg.InvalidName, match="rule"):
        p.subject_to(z == 2.0, name="rule")
    with pytest.raises(lg.InvalidName, match="'x'"):
        p.subject_to(z == 2.0, name="x")
    with pytest.raises(lg.InvalidName, match="rule"):
        p.define("rule", z)


def test_unknown_names_say_the_nearest(p):
    p.define("objective", var(p) * 2)
    at = p.solve()
    for call in (
        lambda: p.solve(xx=1.0),
        lambda: p.solve({"xx": 1.0}),
        lambda: at.tangent(xx=1.0),
        lambda: at.gradient("objective")["xx"],
        lambda: at.jacobian("objective", "xx"),
        lambda: at.hessian_vector("objective", xx=1.0),
    ):
        with pytest.raises(lg.UnknownName, match="did you mean 'x'"):
            call()
    for call in (at.gradient, at.multipliers, at.adjoint_system, p.adjoint, at.__getitem__):
        with pytest.raises(lg.UnknownName, match="did you mean 'objective'"):
            call("objectiv")
    with pytest.raises(lg.UnknownName, match="is defined; expected: unknown"):
        p.solve(start={"objective": 1.0})
    with pytest.raises(lg.UnknownName, match="no unknown"):
        p.solve(start={"w": 1.0})
    with pytest.raises(lg.UnknownName, match="is defined"):
        p.solve(objective=1.0)


def test_missing_values_are_named():
    p = lg.Program()
    p.define("y", 2 * p.parameter("rate"))
    with pytest.raises(lg.MissingValue, match="rate"):
        p.solve()
    with pytest.raises(lg.InvalidValue, match="None"):
        p.solve(rate=None)


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        ([1.0, 2.0, 3.0], lg.ShapeMismatch, r"\(2,\).*\(3,\)"),
        ([np.nan, 1.0], lg.InvalidValue, r"\[0\]"),
        ([0.0, np.nan], lg.InvalidValue, r"\[1\]"),
        ([1j, 0.0], lg.UnsupportedType, "real and imaginary"),
        (["a", "b"], lg.UnsupportedType, "real numbers"),
        ([[1.0], [1.0, 2.0]], lg.InvalidValue, "'v'"),
    ],
)
def test_values_must_be_finite_real_and_of_the_shape(p, value, error, said):
    p.define("y", np.sum(var(p, "v")))
    with pytest.raises(error, match=said):
        p.solve(v=value)
    with pytest.raises(error):
        p.parameter("w", value=value, shape=2)


def test_integers_are_promoted():
    p = lg.Program()
    n = p.parameter("n", value=3)
    p.define("half", n / 2)
    assert n.dtype == np.float64
    assert p.solve(n=5)["half"] == 2.5


@pytest.mark.parametrize("shape", [-1, 2.5, (2, -3), "ab"])
def test_shapes_are_lengths(p, shape):
    with pytest.raises(lg.ShapeMismatch):
        p.unknown("z", shape=shape)


def test_shapes_that_do_not_fit(p):
    a, b = p.unknown("a", shape=3), p.unknown("b", shape=4)
    for call in (
        lambda: a + b,
        lambda: p.subject_to(a == b),
        lambda: np.ones((2, 4)) @ a,
        lambda: sparse.eye_array(4, format="csr") @ a,
        lambda: a[5],
        lambda: np.reshape(a, (2, 2)),
        lambda: np.concatenate([a, np.ones((1, 2))]),
        lambda: np.sum(a, axis=2),
        lambda: np.broadcast_to(a, (3, 2)),
        lambda: np.linalg.inv(a),
        lambda: np.linalg.solve(np.eye(3), b),
        lambda: np.einsum("i,i", a, b),
        lambda: np.einsum("ij", a),
        lambda: np.transpose(a, (1, 0)),
        lambda: np.stack([a, b]),
        lambda: np.split(a, 2),
        lambda: np.squeeze(a, 0),
        lambda: np.tensordot(a, b, axes=([0], [])),
        lambda: np.max(p.unknown("empty", shape=0)),
    ):
        with pytest.raises(lg.ShapeMismatch):
            call()


def test_equations_must_constrain_an_unknown(p):
    x = var(p)
    z = p.unknown("z")
    for equation in (x == 2.0, True, z - 1, None):
        with pytest.raises(lg.InvalidEquation):
            p.subject_to(equation)
    with pytest.raises(lg.InvalidEquation, match="subject_to"):
        p.define("y", x == 2)
    with pytest.raises(lg.InvalidEquation, match="used as a value"):
        np.sin(x == 2)  # type: ignore[call-overload]


def test_a_program_without_unknowns_or_without_anything_is_fine(p):
    assert p.solve().gradient("x")["x"] == 1.0
    assert lg.Program().solve().certificate.converged


def test_updates_in_place_are_refused(p):
    v = var(p, "v")
    with pytest.raises(lg.InPlaceUpdate, match=r"np\.where"):
        v[0] = 1.0
    with pytest.raises(lg.InPlaceUpdate, match="x = x"):
        w = np.stack([v, v])
        w += 1.0
    array = np.ones(2)
    with pytest.raises(lg.InPlaceUpdate):
        array += var(p, "v")
    with pytest.raises(lg.InPlaceUpdate):
        np.exp(var(p, "v"), out=array)
    with pytest.raises(lg.InPlaceUpdate):
        np.sum(var(p, "v"), out=array)
    with pytest.raises(lg.InPlaceUpdate):
        np.copyto(array, var(p, "v"))


def test_a_number_is_bound_anew():
    def total(x):
        found, kept = 0.0, x[0]
        old = kept
        for k in range(3):
            found += x[k] ** 2
        kept *= 3.0
        found -= kept
        kept /= 2.0
        kept **= 2
        return found + kept + old

    x = np.array([1.0, 2.0, 4.0])
    assert lg.grad(total)(x) == pytest.approx([2 - 3 + 4.5 + 1, 4, 8])


def test_arrays_of_traced_values_are_stacked(p):
    x, v = var(p), var(p, "v")
    p.define("pair", np.array([x, 2 * x]))
    p.define("rows", np.array([[x, x], [x, 3 * x]]))
    p.define("listed", [x, 4.0])
    p.define("raised", np.exp(np.array([x, 0 * x])))
    p.define("mixed", np.array([x, 2 * x]) * v)
    at = p.solve(x=2.0)
    assert at["pair"].tolist() == [2.0, 4.0]
    assert at["rows"].tolist() == [[2.0, 2.0], [2.0, 6.0]]
    assert at["listed"].tolist() == [2.0, 4.0]
    assert at["raised"].tolist() == [math.exp(2.0), 1.0]
    assert at["mixed"].tolist() == [6.0, 4.0]
    with pytest.raises(lg.UnsupportedType):
        p.define("words", np.array([x, "a"], dtype=object))


def test_values_do_not_exist_while_declaring(p):
    x, v = var(p), var(p, "v")
    for call in (
        lambda: bool(x > 0),
        lambda: bool(x == 0),
        lambda: float(x),
        lambda: int(x),
        lambda: math.exp(x),
        lambda: [1, 2][x],
        lambda: np.asarray(v, dtype=float),
        lambda: v[x],
    ):
        with pytest.raises(lg.TracedValueError):
            call()


def test_functions_without_a_rule_are_named_with_the_remedy(p):
    v = var(p, "v")
    for call, name in (
        (lambda: np.sort(v), "np.sort"),
        (lambda: np.spacing(v), "np.spacing"),
        (lambda: np.fft.fft(v), "np.fft"),
        (lambda: np.add.accumulate(v), "add.accumulate"),
        (lambda: np.linalg.svd(v), "np.svd"),
    ):
        with pytest.raises(lg.UnsupportedFunction, match=f"{name} has no rule.*lg.primitive"):
            call()
    for call in (
        lambda: np.sum(v, dtype=np.float32),
        lambda: np.exp(v, where=[True, False]),
        lambda: np.linalg.norm(v, ord="nuc"),
        lambda: sparse.eye_array(2) * v,
        lambda: np.reshape(v, (1, 2), order="K"),
    ):
        with pytest.raises(lg.UnsupportedFunction):
            call()


def test_values_belong_to_their_program(p):
    other = lg.Program("other")
    y = other.parameter("y", value=1.0)
    z = p.unknown("z")
    p.subject_to(z == 1.0)
    for call in (
        lambda: var(p) + y,
        lambda: p.define("w", y),
        lambda: p.subject_to(z == y),
        lambda: p.solve()[y],
        lambda: p.solve({y: 1.0}),
    ):
        with pytest.raises(lg.ForeignValue):
            call()
    p.define("square", var(p) ** 2)
    with pytest.raises(lg.ForeignValue, match="adjoint"):
        p.define("w", p.adjoint("square").variables["λ_x"] + 1)


def test_options_must_be_objects(p):
    for options in ({"newton": "fast"}, {"linear": "lu"}):
        with pytest.raises(lg.UnsupportedType):
            p.solve(**options)
    for options in ({"on_failure": "ignore"}, {"accuracy": -1.0}):
        with pytest.raises(lg.InvalidValue):
            p.solve(**options)


def test_a_gradient_is_of_a_scalar(p):
    at = p.solve()
    for call in (at.gradient, at.multipliers, p.adjoint, at.adjoint_system):
        with pytest.raises(lg.ShapeMismatch, match="scalar"):
            call("v")


def test_values_and_derivatives_that_are_not_finite_are_named(p):
    p.define("root", np.sqrt(var(p)))
    with pytest.raises(lg.NotFinite, match="root"):
        p.solve(x=-1.0)
    with pytest.raises(lg.NotFinite, match="'root'"):
        p.solve(x=0.0).gradient("root")


def test_inputs_are_copied_and_results_are_read_only():
    p = lg.Program()
    values, table = np.ones(100), np.arange(100.0)
    x = p.parameter("x", value=values)
    p.define("y", np.sum(x * table))
    matrix = sparse.eye_array(100, format="csr")
    p.define("z", matrix @ x)
    values[:], table[:], matrix.data[:] = 7.0, 0.0, 0.0
    p.define("again", matrix @ x)
    at = p.solve()
    assert at["y"] == 4950.0
    assert at["z"].sum() == 100.0
    assert at["again"].sum() == 0.0
    for array in (at["x"], at["z"], at.gradient("y")["x"], at.tangent(x=np.ones(100))["z"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


def test_every_error_is_a_lagrad_error_and_a_builtin_one():
    kinds = [getattr(lg, name) for name in lg.__all__ if isinstance(getattr(lg, name), type)]
    kinds = [
        k
        for k in kinds
        if issubclass(k, Exception) and k not in (lg.LagradError, lg.AccuracyWarning)
    ]
    assert len(kinds) > 12
    for kind in kinds:
        assert issubclass(kind, lg.LagradError)
        assert issubclass(kind, (ValueError, TypeError, ArithmeticError))


@pytest.mark.parametrize("name", ["start", "newton", "linear", "accuracy", "on_failure"])
def test_a_parameter_may_not_be_called_like_an_option_of_solve(p, name):
    with pytest.raises(lg.InvalidName, match="option of solve"):
        p.parameter(name)


def test_names_are_what_python_reads():
    p = lg.Program()
    x = p.parameter("\u00b5", value=2.0)  # the micro sign is read as the Greek letter
    p.define("y", x * x)
    assert p.solve(**{"\u00b5": 3.0})["y"] == p.solve(**{"\u03bc": 3.0})["y"] == 9.0
    with pytest.raises(lg.InvalidName):
        p.parameter("\u03bc")


def test_variables_of_another_program_are_no_keys(p):
    other = lg.Program("other").parameter("x", value=1.0)
    p.define("y", 2 * var(p))
    at = p.solve()
    for call in (
        lambda: at.tangent({other: 1.0}),
        lambda: at.gradient("y")[other],
        lambda: p.solve(start={other: 1.0}),
    ):
        with pytest.raises(lg.ForeignValue):
            call()
    assert at.gradient("y")[var(p)] == 2.0
    assert other not in at.gradient("y")


def test_what_numpy_would_refuse_is_refused_with_the_functions_name(p):
    v = var(p, "v")
    for call in (
        lambda: np.einsum("i->j", v),
        lambda: np.tensordot(v, v, axes=5),
        lambda: np.take(v, [5]),
        lambda: np.repeat(v, -1),
        lambda: np.swapaxes(v, 0, 3),
        lambda: np.where(v > 0),
        lambda: np.mean(v, axis=(0, 0)),
        lambda: (v > 0) - (v > 1),
        lambda: np.convolve(v, v, "nonsense"),
    ):
        with pytest.raises(lg.LagradError):
            call()


def test_options_out_of_range_are_refused(p):
    for options in (
        lambda: {"newton": lg.Newton(tol=-1.0)},
        lambda: {"newton": lg.Newton(max_steps=0)},
        lambda: {"linear": lg.GMRES(restart=0)},
        lambda: {"linear": lg.CG(tol=0.0)},
        lambda: {"accuracy": 0.0},
        lambda: {"accuracy": "high"},
    ):
        with pytest.raises(lg.InvalidValue):
            p.solve(**options())
    for call in (lambda: p.solve(3), lambda: p.solve(start=3.0)):
        with pytest.raises(lg.UnsupportedType):
            call()


def test_a_primitive_that_changes_its_shape_is_told():
    p = lg.Program()
    x = p.parameter("x", value=[1.0, 2.0])
    chosen = lg.primitive(lambda x: x[x > 1.5], vjp=lambda g, y, x: (g,), shape=lambda s: s)
    p.define("f", chosen(x))
    with pytest.raises(lg.ShapeMismatch, match=r"\(1,\); expected \(2,\)"):
        p.solve()


def test_a_multiple_root_and_an_infinite_slope_are_told_apart_and_the_remedies_run():
    with pytest.raises(lg.SingularSystem, match=r"multiple root.*z - a in the place"):
        lg.root(lambda z: (z - 1.0) ** 2, 0.5)
    assert lg.grad(lambda a: lg.root(lambda z: z - a, 0.5))(1.0) == 1.0
    with pytest.raises(lg.SingularSystem, match=r"infinite slope at the solution.*inverse"):
        lg.root(lambda h: np.sign(h) * np.abs(h) ** 0.54, 1.0)
    # The flow q for the head t - h in the place of the head's root: q·|q|^0.852 = t − h.
    flow = lambda t: lg.root(
        lambda z: [z[1] * np.abs(z[1]) ** 0.852 - (t - z[0]), z[1]], [2.0, 1.0]
    )
    np.testing.assert_allclose(flow(3.0), [3.0, 0.0], atol=1e-12)
    assert lg.grad(lambda t: flow(t)[0])(3.0) == pytest.approx(1.0)
