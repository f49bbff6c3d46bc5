"""Faults that were found while the code was put in order, each with the right answer."""

from __future__ import annotations

import pickle
from fractions import Fraction

import numpy as np
import pytest

import lagrad as lg
from lagrad.primitives import kernels


def test_a_product_over_no_entries_keeps_the_axis_that_it_is_asked_to():
    x = np.arange(12.0).reshape(3, 4)
    shape = lambda x: np.prod(x[:0], axis=0, keepdims=True)
    assert lg.jacobian(shape)(x).shape == (1, 4, 3, 4)
    assert lg.value_and_grad(lambda x: np.sum(shape(x)))(x)[0] == 4.0


def test_einsum_over_no_entries_is_zero():
    value, gradient = lg.value_and_grad(lambda x: np.einsum("i,i->", x[:0], np.ones(0)))(np.ones(3))
    assert value == 0.0
    assert gradient.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("key", [lambda x, t: [t, 0], lambda x, t: np.array([t, 0], dtype=object)])
def test_a_traced_value_inside_an_index_is_refused_as_one(key):
    p = lg.Program()
    x, t = p.parameter("x", shape=3), p.parameter("t")
    with pytest.raises(lg.TracedValueError, match="index"):
        x[key(x, t)]


def test_a_mask_of_traced_values_is_refused_as_a_traced_index():
    p = lg.Program()
    x = p.parameter("x", shape=3)
    with pytest.raises(lg.TracedValueError, match="index"):
        x[np.greater(x, 1.0)]


def test_an_inverse_that_branches_on_a_value_is_named():
    step = lg.reversible(lambda z: 1.1 * z, lambda z: z / 1.1 if z > 0 else z / 1.2)
    with pytest.raises(lg.LagradError, match="inverse"):
        lg.while_loop(lambda z: z < 5, step, 1.0, 50, checkpoints=3)


def test_a_reversible_step_with_other_arguments_is_named():
    step = lg.reversible(lambda a, z: 1.1 * z, lambda z: z / 1.1)
    with pytest.raises(lg.InvalidFunction, match="argument"):
        lg.while_loop(lambda z: z < 5, step, 1.0, 50)


def doubling(z):
    return z * z * 1e300


def squaring(z):
    return z * z * 1e300


def test_messages_name_the_function_at_hand_not_one_of_the_same_structure():
    for step in (doubling, squaring):
        with pytest.raises(lg.NotFinite, match=step.__name__):
            lg.grad(lambda a, step=step: lg.iterate(step, a, 9))(2.0)


def test_contraction_does_not_depend_on_what_was_asked_before():
    # A linear step with eigenvalues of modulus 1.02 in one plane, far from its fixed point's size.
    n = 300
    A = 0.5 * np.eye(n)
    A[:2, :2] = 1.02 * np.array([[0.0, -1.0], [1.0, 0.0]])
    step = lambda z, b: A @ z + b
    found = []
    for ask in (lambda f: f(np.ones(n)), lambda f: lg.grad(lambda b: np.sum(f(b)))(np.ones(n))):
        try:
            ask(lambda b: lg.fixed_point(step, np.zeros(n), b))
            found.append("")
        except lg.NotContractive:
            found.append("NotContractive")
    assert found[0] == found[1]


def test_a_compiled_function_that_asks_for_floats_is_compared_at_its_own_data():
    def f(x, c):
        return x * x * c if float(x) > 1.0 else x * c

    gradient = lg.compile(lg.grad(f))
    assert [gradient(2.0, c) for c in (3.0, 5.0, 7.0)] == [12.0, 20.0, 28.0]

    # And what it misses at other data is found.
    def g(x, c):
        return x * c if c < 1.0 else x * np.exp(float(x) * c)

    gradient = lg.compile(lg.grad(g))
    with pytest.raises(lg.TracedValueError):
        gradient(2.0, 3.0)


@pytest.mark.parametrize("start", [1.0, 2.0])
def test_an_error_bound_at_the_edge_of_a_domain_takes_the_side_within(start):
    # w + w³ = 1 + √(z − √2) at z = √2: an error of z by one rounding is one of w by its root.
    p = lg.Program("edge")
    a = p.parameter("a", value=2.0)
    z, w = p.unknown("z", start=start), p.unknown("w", start=0.7)
    p.subject_to(z * z == a)
    p.subject_to(w + w**3 == np.sqrt(z - np.sqrt(2.0)) + 1.0)
    assert 1e-9 < p.solve().certificate.error_bound < 1e-6


@pytest.mark.parametrize(("program", "names"), [("my prog", ["np"]), ("q", ["np", "np_1"])])
def test_source_names_what_its_module_needs_by_identifiers_that_are_free(program, names):
    p = lg.Program(program)
    total = sum(p.parameter(name, value=2.0) for name in names)
    p.define("y", total * 3.0)
    namespace = {}
    exec(p.source(), namespace)
    assert namespace["solve"]()["y"] == 6.0 * len(names)


PAIRS = [(1.0, 1.0), (1.0, 1.0 + 1e-9), (1.0, 2.0), (np.nan, np.nan), (np.nan, 1.0)]
PAIRS += [(np.inf, np.inf), (1.0, np.inf), (np.inf, 1.0), (-np.inf, np.inf)]


@pytest.mark.parametrize("equal_nan", [False, True])
@pytest.mark.parametrize("function", [np.isclose, np.allclose, np.array_equal])
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_closeness_of_nan_and_infinity_is_numpys(function, a, b, equal_nan):
    answers = []

    def f(x):
        answers.append(bool(np.all(function(a * x, np.array([b]), equal_nan=equal_nan))))
        return np.sum(x * x)

    lg.grad(f)(np.ones(1))
    assert answers == [np.all(function([a], [b], equal_nan=equal_nan))]


def test_lengths_below_minus_one_are_refused():
    with pytest.raises(lg.ShapeMismatch, match="reshape"):
        lg.grad(lambda x: np.sum(np.reshape(x, (-2, -3))))(np.ones(6))


def test_nan_is_no_infinity_in_a_share():
    with np.errstate(invalid="ignore"):
        shares = kernels.logistic_share(np.full(2, -np.inf), np.array([np.nan, -np.inf]))
    assert np.isnan(shares[0])
    assert shares[1] == 0.0


def test_whole_numbers_beyond_64_bits_and_fractions():
    assert lg.root(lambda z: z**2 - 10**20, 1e9) == pytest.approx(1e10, rel=1e-12)
    assert lg.grad(np.log)(10**20) == pytest.approx(1e-20, rel=1e-15)
    assert lg.grad(np.log)(Fraction(1, 3)) == pytest.approx(3, rel=1e-15)
    assert lg.value_and_grad(lambda x: x * 10**20)(1.0) == (1e20, 1e20)
    p = lg.Program()
    a, z = p.parameter("a", 1.0), p.unknown("z", start=1.0)
    p.subject_to(z * z == a)
    assert p.solve(a=10**30)["z"] == pytest.approx(1e15, rel=1e-12)


def test_certificates_are_pickled_with_what_they_say():
    p = lg.Program()
    a, z = p.parameter("a", 2.0), p.unknown("z", start=1.0)
    p.subject_to(z * z == a)
    p.define("s", z + 0)
    at = p.solve()
    for certificate in (at.certificate, at.gradient("s").certificate):
        copy = pickle.loads(pickle.dumps(certificate))
        assert str(copy) == str(certificate)
        assert copy.bounds == certificate.bounds
        assert copy.distance == certificate.distance


def test_half_of_an_unsymmetric_matrix_is_not_factored_for_the_whole():
    f = lambda x, solver: np.sum(
        lg.root(lambda z: z**3 + 2 * z - np.roll(z, 1) - x, np.ones(5), linear=solver)
    )
    with pytest.raises(lg.NotConverged, match="Cholesky needs a symmetric Jacobian"):
        lg.grad(lambda x: f(x, lg.Cholesky()))(1.0)
    z = lg.root(lambda z: z**3 + z - 1, 0.5)
    for solver in (lg.DenseLU(), lg.SparseLU()):
        found = lg.grad(lambda x, solver=solver: f(x, solver))(1.0)
        assert found == pytest.approx(5 / (3 * z**2 + 1), rel=1e-12)


def test_steps_that_shrink_too_slowly_are_said_to_shrink():
    with pytest.raises(lg.NotContractive, match=r"each is 0\.99\d* of the one before, on average"):
        lg.fixed_point(lambda z: z + 1e-3 * (2.0 - z), 0.999, solver="picard")
    found = lg.fixed_point(lambda z: z + 1e-3 * (2.0 - z), 0.999, solver="newton")
    assert found == pytest.approx(2, rel=1e-12)


@pytest.mark.parametrize("shape", [(4, 6), (24,), (-1, 4), (3, -1, 2), -1, 24])
def test_reshaping_by_columns(shape):
    x, w = np.arange(24.0).reshape(2, 3, 4), np.random.default_rng(0).standard_normal(24)
    weights = w.reshape(np.reshape(x, shape, order="F").shape)
    wanted = np.reshape(np.ravel(weights, order="F"), x.shape, order="F")
    for f in (lambda x: np.reshape(x, shape, order="F"), lambda x: x.reshape(shape, order="F")):
        np.testing.assert_array_equal(lg.compile(f)(x), np.reshape(x, shape, order="F"))
        np.testing.assert_array_equal(lg.grad(lambda x, f=f: np.sum(weights * f(x)))(x), wanted)
    flat = lambda x: np.sum(w * np.ravel(x, order="F")) + np.sum(w * x.flatten("F"))
    np.testing.assert_array_equal(lg.grad(flat)(x), 2 * np.reshape(w, x.shape, order="F"))
