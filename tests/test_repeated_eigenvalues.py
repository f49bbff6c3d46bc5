"""Equal eigenvalues: what is the same for all their eigenvectors has a derivative; else an error.

Oracles: divided differences at 50 digits (mpmath), SciPy's Fréchet derivatives of the exponential,
closed forms.
"""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
import scipy.linalg

import lagrad as lg

N = 4
RNG = np.random.default_rng(1)
Q = np.linalg.qr(RNG.standard_normal((N, N)))[0]


def symmetric(a):
    return (a + np.swapaxes(a, -1, -2)) / 2


W, D = symmetric(RNG.standard_normal((N, N))), symmetric(RNG.standard_normal((N, N)))
SPECTRA = {
    "three equal": [1.0, 1.0, 1.0, 2.0],
    "equal to rounding": [1.0 - 1e-13, 1.0, 1.0 + 1e-15, 2.0],
    "nearly equal": [1.0 - 1e-10, 1.0, 1.0, 2.0],
    "two pairs": [1.0, 1.0, 3.0, 3.0],
    "all equal": [2.0] * 4,
    "a small pair": [1e-4, 1e-4, 1.0, 2.0],
    "close, not equal": [1.0 - 1e-6, 1.0, 1.5, 2.0],
}
MATRICES = {name: symmetric(Q @ np.diag(w) @ Q.T) for name, w in SPECTRA.items()}
MATRICES["a diagonal one"] = np.diag([4.0, 1.0, 1.0, 2.0])
FUNCTIONS = {
    "exp": (np.exp, mp.exp, mp.exp),
    "log": (np.log, mp.log, lambda x: 1 / x),
    "sqrt": (np.sqrt, mp.sqrt, lambda x: 1 / (2 * mp.sqrt(x))),
    "inverse": (lambda w: 1 / w, lambda x: 1 / x, lambda x: -1 / x**2),
    "tanh": (np.tanh, mp.tanh, lambda x: 1 - mp.tanh(x) ** 2),
    "cube": (lambda w: w**3, lambda x: x**3, lambda x: 3 * x**2),
}


def of_matrix(g):
    """V g(w) Vᵀ, over stacks of matrices."""

    def function(M):
        w, V = np.linalg.eigh(M)
        return (V * np.expand_dims(g(w), -2)) @ np.swapaxes(V, -1, -2)

    return function


expm = of_matrix(np.exp)


def divided(g, slope, M, direction):
    """The Fréchet derivative of a matrix function, by divided differences at 50 digits."""
    with mp.workdps(50):
        w, V = mp.eigsy(mp.matrix(M.tolist()))
        inner = V.T * mp.matrix(direction.tolist()) * V
        for i in range(len(w)):
            for j in range(len(w)):
                close = abs(w[i] - w[j]) < mp.mpf(10) ** -22
                inner[i, j] *= (
                    slope((w[i] + w[j]) / 2) if close else (g(w[i]) - g(w[j])) / (w[i] - w[j])
                )
        return np.array((V * inner * V.T).tolist(), dtype=float)


def frechet(M, direction):
    return scipy.linalg.expm_frechet(M, direction, compute_expm=False)


def second(M, a, b):
    """The second Fréchet derivative of the exponential, from a block matrix (Higham 2008)."""
    O = np.zeros_like(M)  # noqa: E741
    block = np.block([[M, a, b, O], [O, M, O, b], [O, O, M, a], [O, O, O, M]])
    return scipy.linalg.expm(block)[: len(M), 3 * len(M) :]


def close(found, expected, rtol=1e-6):
    assert np.shape(found) == np.shape(expected)
    assert np.abs(found - expected).max() <= rtol * max(np.abs(expected).max(), 1e-9)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_a_matrix(name, matrix):
    numeric, g, slope = FUNCTIONS[name]
    gradient = lg.grad(lambda M: np.sum(W * of_matrix(numeric)(M)))(MATRICES[matrix])
    close(symmetric(gradient), divided(g, slope, MATRICES[matrix], W))


@pytest.mark.parametrize("matrix", [*MATRICES, "zero"])
def test_every_transform_of_the_exponential(matrix):
    M = MATRICES.get(matrix, np.zeros((N, N)))
    f, first, bent = lambda M: np.sum(W * expm(M)), frechet(M, W), second(M, W, D)
    gradient = lg.compile(lg.grad(f))
    for _ in range(2):
        close(symmetric(gradient(M)), first)
    apart = M + np.diag([1.0, 2.0, 3.0, 4.0])
    close(symmetric(gradient(apart)), frechet(apart, W))
    close(symmetric(gradient(M)), first)
    close(lg.jvp(expm, (M,), (D,))[1], frechet(M, D))
    close(symmetric(lg.vjp(expm, M)[1](W)), first)
    close(np.einsum("ijkl,kl->ij", lg.jacobian(expm)(M), D), frechet(M, D))
    close(symmetric(lg.hvp(f, M, D)), bent)
    close(symmetric(np.einsum("ijkl,kl->ij", lg.hessian(f)(M), D)), symmetric(bent))
    close(symmetric(lg.grad(lambda M: np.sum(lg.grad(f)(M) * D))(M)), symmetric(bent))


@pytest.mark.parametrize("matrix", MATRICES)
def test_declared_programs(matrix):
    M = MATRICES[matrix]
    p = lg.Program()
    w, V = np.linalg.eigh(p.parameter("M", value=M))
    w, V = p.define("w", w), p.define("V", V)
    F = p.define("F", (V * np.exp(w)) @ V.T)
    p.define("y", np.sum(W * F))
    at = p.solve()
    close(symmetric(at.gradient("y")["M"]), frechet(M, W))
    close(at.multipliers("y")["F"], W)
    close(np.einsum("ijkl,kl->ij", at.jacobian("F", "M")["F"]["M"], D), frechet(M, D))
    close(symmetric(at.hessian_vector("y", M=D)["M"]), symmetric(second(M, W, D)))
    close(symmetric(p.adjoint("y").solve()["λ_M"]), frechet(M, W))
    close(symmetric(p.solve_many([{"M": M}])[0].gradient("y")["M"]), frechet(M, W))
    assert at.gradient("y").certificate.error_bound < 1e-6


@pytest.mark.parametrize("matrix", MATRICES)
def test_beside_equations_and_in_loops(matrix):
    M = MATRICES[matrix]
    f, slope = lambda x: np.sum(W * expm(x * M)), np.sum(frechet(M, W) * M)
    close(lg.grad(f)(1.0), slope)
    before = lambda x: f(lg.root(lambda z: z**3 - 8 * x, 1.0) / 2)
    close(lg.grad(before)(1.0), slope / 3)
    high = 100.0 - f(1.0)
    after = lambda x: lg.root(lambda z, c: z**3 - c, 1.0, f(x) + high)
    close(lg.grad(after)(1.0), slope / 3 / 100.0 ** (2 / 3))
    loop = lambda x: lg.scan(lambda z, _: (z + f(x), None), 0.0, np.ones(3))[0]
    close(lg.grad(loop)(1.0), 3 * slope)


@pytest.mark.parametrize("matrix", MATRICES)
def test_symmetric_functions_of_eigenvalues(matrix):
    M, values = MATRICES[matrix], np.linalg.eigvalsh
    close(symmetric(lg.grad(lambda M: np.sum(values(M)))(M)), np.eye(N), 1e-12)
    close(symmetric(lg.grad(lambda M: np.sum(values(M) ** 2))(M)), 2 * M, 1e-9)
    close(symmetric(lg.grad(lambda M: np.sum(np.log(values(M))))(M)), np.linalg.inv(M))
    weights = scipy.linalg.expm(M) / np.trace(scipy.linalg.expm(M))
    close(symmetric(lg.grad(lambda M: lg.logsumexp(values(M)))(M)), weights)
    close(symmetric(lg.hvp(lambda M: np.sum(values(M) ** 3), M, D)), 3 * (M @ D + D @ M))


def test_one_of_equal_eigenvalues_has_the_mean_of_their_derivatives():
    lowest = lg.grad(lambda M: np.linalg.eigvalsh(M)[0])
    np.testing.assert_allclose(lowest(np.diag([4.0, 1.0, 1.0])), np.diag([0.0, 0.5, 0.5]))
    M = symmetric(Q @ np.diag([1.0 - 1e-15, 1.0, 1.0 + 1e-15, 2.0]) @ Q.T)
    close(symmetric(lowest(M)), Q[:, :3] @ Q[:, :3].T / 3)
    close(lg.jvp(lambda M: np.linalg.eigvalsh(M)[1], (np.eye(N),), (D,))[1], np.trace(D) / N)
    assert lg.grad(lambda M: np.max(np.linalg.eigvalsh(M)))(np.diag([1.0, 2.0]))[1, 1] == 1.0


def test_what_only_other_eigenvectors_matter_to_is_not_refused():
    v, P = Q[:, 3], Q[:, :3] @ Q[:, :3].T
    for name in ("three equal", "equal to rounding", "nearly equal"):
        M = MATRICES[name]
        top = lambda M: (lambda v: v @ W @ v)(np.linalg.eigh(M)[1][:, 3])
        expected = symmetric(2 * np.outer((np.eye(N) - np.outer(v, v)) @ W @ v, v))
        close(symmetric(lg.grad(top)(M)), expected)
        space = lambda M: (lambda V: np.sum(W * (V @ V.T)))(np.linalg.eigh(M)[1][:, :3])
        lost = np.outer(v, v) @ W @ P
        close(symmetric(lg.grad(space)(M)), -(lost + lost.T))
        unit = lambda M: (lambda V: np.sum(W * (V @ V.T)))(np.linalg.eigh(M)[1])
        np.testing.assert_allclose(lg.grad(unit)(M), 0.0, atol=1e-9)


UNDEFINED = {
    "an entry": lambda w, V: V[0, 0],
    "its square": lambda w, V: V[0, 0] ** 2,
    "what permutations keep": lambda w, V: np.sum(V[0] ** 4),
    "absolute values": lambda w, V: np.sum(np.abs(V)),
    "however small": lambda w, V: 1e-12 * V[0, 0],
    "a quotient": lambda w, V: V[:, 0] @ W @ V[:, 0],
    "a product": lambda w, V: w[0] * np.sum(V[:, 0] * W[0]),
    "an unequal weight": lambda w, V: np.sum(W * ((V * np.arange(4.0)) @ V.T)),
}


@pytest.mark.parametrize("matrix", ["three equal", "equal to rounding", "all equal", "two pairs"])
@pytest.mark.parametrize("name", UNDEFINED)
def test_what_depends_on_the_eigenvectors_taken_is_named(name, matrix):
    f = lambda M: UNDEFINED[name](*np.linalg.eigh(M))
    for derivative in (lg.grad(f), lg.compile(lg.grad(f)), lg.hessian(f)):
        with pytest.raises(
            lg.NotFinite, match=r"np\.linalg\.eigh has the (nearly )?equal eigenvalues"
        ):
            derivative(MATRICES[matrix])
    with pytest.warns(lg.AccuracyWarning):
        assert np.isnan(lg.grad(f, on_failure="warn")(MATRICES[matrix])).any()


def test_the_curvature_of_one_of_equal_eigenvalues_is_named():
    with pytest.raises(lg.NotFinite, match="equal eigenvalues"):
        lg.hessian(lambda M: np.linalg.eigvalsh(M)[0])(np.eye(3))


@pytest.mark.parametrize("gap", [1e-8, 1e-6, 1e-3])
def test_eigenvectors_of_close_eigenvalues_keep_their_derivatives(gap):
    M = np.diag([1.0, 1.0 + gap, 2.0])
    # Of [[a, x], [x, b]]: the tangent t of the angle is x/(a − b), and of a change d of b − a
    # also x d/(a − b)².
    tangent = lambda M: np.linalg.eigh(M)[1][1, 0] / np.linalg.eigh(M)[1][0, 0]
    np.testing.assert_allclose(lg.grad(tangent)(M)[1, 0], -1 / gap, rtol=1e-6)
    np.testing.assert_allclose(lg.hessian(tangent)(M)[1, 0, 1, 1], 1 / gap**2, rtol=1e-6)
    lowest = lg.grad(lambda M: np.linalg.eigvalsh(M)[0])(M)
    np.testing.assert_allclose(lowest, np.diag([1.0, 0.0, 0.0]), atol=1e-12)


def test_stacks_and_single_precision():
    stack = np.stack([np.eye(3), np.diag([1.0, 2.0, 2.0]), np.diag([1.0, 2.0, 3.0])])
    weights = symmetric(RNG.standard_normal(stack.shape))
    found = symmetric(lg.grad(lambda S: np.sum(weights * expm(S)))(stack))
    close(found, np.stack([frechet(M, w) for M, w in zip(stack, weights, strict=True)]))
    single = weights[0].astype(np.float32)
    found = lg.grad(lambda M: np.sum(single * expm(M)))(np.eye(3, dtype=np.float32))
    assert found.dtype == np.float32
    close(symmetric(found), np.e * single, 1e-3)


def test_compositions_of_matrix_functions():
    M = np.diag([1.0, 1.0, 2.0, 2.0])
    back = lambda M: np.sum(W * of_matrix(np.log)(expm(M)))
    close(symmetric(lg.grad(back)(M)), W)
    polar = lambda A: np.trace(of_matrix(np.sqrt)(A @ A.T))
    close(lg.grad(polar)(np.eye(3)), np.eye(3))
    white = lambda M: np.sum(W * of_matrix(lambda w: 1 / np.sqrt(w))(M))
    close(symmetric(lg.grad(white)(np.eye(N))), -W / 2)


@pytest.mark.parametrize("gap", [1e-12, 1e-13, 1e-14, 3e-15])
def test_parameters_as_small_as_a_gap_that_rounding_hides(gap):
    # Its derivative is 2e-3/gap or so: what is found beside the matrix is another one.
    first = lambda s: np.linalg.eigh(np.block([[1 + gap, s], [s, 1.0]]))[1][0, 0] ** 2
    with pytest.raises(lg.NotFinite, match="equal eigenvalues"):
        lg.grad(first)(1e-3 * gap)


@pytest.mark.parametrize("gap", [1e-5, 1e-6, 1e-7, 1e-8, 1e-10, 1e-11, 1e-12, 1e-13])
def test_nearly_equal_eigenvalues_are_not_equal(gap):
    """One of them has a derivative of its own, off by rounding over the gap: right, or named."""
    M = symmetric(Q @ np.diag([1.0, 2.0, 2.0 + gap, 5.0]) @ Q.T)
    with mp.workdps(50):
        w, V = mp.eigsy(mp.matrix(M.tolist()))
        slopes = [float((V[:, k].T * mp.matrix(D.tolist()) * V[:, k])[0]) for k in range(N)]
        total = float(sum(mp.cos(w[k]) * slopes[k] for k in range(N)))
    for k in range(N):
        one = lg.grad(lambda t, k=k: np.linalg.eigvalsh(M + t * D)[k])
        if k in (0, 3) or gap > 1e-9:
            assert one(0.0) == pytest.approx(slopes[k], rel=1e-6)
        else:
            with pytest.raises(lg.SingularSystem):
                one(0.0)
            with pytest.raises(lg.SingularSystem):
                lg.grad(lambda M, k=k: np.linalg.eigvalsh(M)[k])(M)
    every = lg.compile(lg.grad(lambda t: np.sum(np.sin(np.linalg.eigvalsh(M + t * D)))))
    for _ in range(3):
        assert every(0.0) == pytest.approx(total, rel=1e-10)


def test_a_diagonal_matrix_is_rounded_nowhere():
    for gap in (1e-9, 1e-10, 1e-11, 1e-12, 1e-13):
        f = lambda t, gap=gap: np.linalg.eigvalsh(
            np.diag([1.0, 1.0 + gap, 3.0]) + t * np.diag([1.0, 5.0, 0.0])
        )[0]
        assert lg.grad(f)(0.0) == 1.0


@pytest.mark.parametrize("noise", [1e-13, 1e-12, 1e-8, 1e-6, 1e-2])
def test_a_determinant_by_eigenvalues(noise):
    """Σ log w: what is less than rounding of the largest has few digits, and raises."""
    t = np.linspace(0, 1, 12)
    K = np.exp(-((t[:, None] - t) ** 2) / 0.5) + noise * np.eye(12)
    E = symmetric(np.outer(np.sin(7 * t), np.cos(3 * t)))
    with mp.workdps(60):
        inverse = mp.matrix(K.tolist()) ** -1
        product = inverse * mp.matrix(E.tolist())
        wanted = float(mp.fsum(product[i, i] for i in range(12)))
    f = lambda K: np.sum(np.log(np.linalg.eigvalsh((K + K.T) / 2)))
    along, gradient = lambda: lg.jvp(f, (K,), (E,))[1], lambda: np.sum(lg.grad(f)(K) * E)
    for found in (along, gradient):
        if noise > 1e-11:
            assert found() == pytest.approx(wanted, rel=1e-6)
        else:
            with pytest.raises(lg.SingularSystem):
                found()


def test_eigenvalues_of_which_some_are_zero():
    L = np.array([[1.0, -1, 0], [-1, 2, -1], [0, -1, 1]])
    f = lg.compile(lg.grad(lambda t: np.linalg.eigvalsh(t * L)[1]))
    for _ in range(3):
        assert f(2.0) == pytest.approx(1.0, rel=1e-12)
    v = np.arange(1.0, 6)
    largest = lg.grad(lambda v: np.linalg.eigvalsh(np.outer(v, v))[-1])
    np.testing.assert_allclose(largest(v), 2 * v, rtol=1e-12)
    with pytest.raises(lg.LagradError):
        lg.grad(lambda v: np.sum(np.log(np.abs(np.linalg.eigvalsh(np.outer(v, v))))))(v)
