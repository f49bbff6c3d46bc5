"""What random functions are made of: texts with values in the places of {0} and {1}."""

from __future__ import annotations


def operations(text):
    """One for each place between bars; at the end of a line there need be none."""
    return tuple(one.strip() for line in text.strip().splitlines() for one in line.split(" | "))


# Of each, where it may be used: between its smallest and largest value, if there are any.
ENTRYWISE = operations("""
    np.sin | np.cos | np.tanh | np.arctan | np.arcsinh | np.square | np.exp | np.expm1 | np.cosh
    np.sinh | np.exp2 | np.negative | np.tan:-1.2:1.2 | np.arcsin:-.9:.9 | np.arccos:-.9:.9
    np.arctanh:-.9:.9 | np.log1p:-.7:9 | np.log:.15:9 | np.log2:.15:9 | np.log10:.15:9
    np.sqrt:.1:9 | np.reciprocal:.2:9 | np.arccosh:1.2:9 | sp.erf | sp.erfc | sp.expit | sp.ndtr
    sp.log_ndtr | sp.erfcx | sp.logit:.1:.9 | sp.gammaln:.3:5 | sp.psi:.3:5 | sp.entr:.1:5
""")
# What is not smooth at zero.
KINKED = operations("""
    np.abs({0}) | np.sign({0}) * {0} | np.cbrt({0}) | np.where({0} > 0, {0}, 0.3 * {0})
    np.where(np.logical_or({0} > 0, {0} < -1), np.sin({0}), {0}) | np.maximum({0}, 0.0)
    np.minimum({0}, 0.0) * {0} | np.clip({0}, 0.0, 9.0) | np.fmax({0}, 0.0)
""")
PAIRED = operations("""
    {0} + {1} | {0} - {1} | {0} * {1} | {0} / (1.5 + np.square({1}))
    np.hypot({0}, 1.5 + np.abs({1})) | np.arctan2({0}, 1.5 + np.square({1}))
    np.logaddexp({0}, {1}) | (0.5 + np.square({0})) ** np.tanh({1}) | {0} ** 3 - {1}
    (1.2 + np.square({0})) ** -1.5 + {1} | 2.0 ** np.tanh({0}) * {1}
    sp.xlogy({0}, 1.1 + np.square({1})) | sp.xlog1py({0}, np.square({1}))
    np.float64(0.7) * {0} + {1} | np.where(MASK, {0}, {1})
""")
# Where the two are not equal.
ORDERED = operations("""
    np.maximum({0}, {1}) | np.minimum({0}, {1}) | np.fmax({0}, {1}) | np.fmin({0}, {1})
    np.where({0} < {1}, {0} * {1}, {1}) | np.where(np.greater_equal({0}, {1}), {0}, np.sin({1}))
""")
REDUCED = operations("""
    np.sum({0}, axis={1}{2}) | np.mean({0}, axis={1}{2}) | np.prod({0}, axis={1}{2})
    lg.logsumexp({0}, axis={1}{2}) | np.var({0}, axis={1}{2}) | {0}.sum(axis={1}{2})
    np.std(np.stack([{0}, {0} + 0.4]), axis=0) | np.linalg.norm({0} + 2.0, axis={1}{2})
    np.linalg.norm({0} + 2.0, ord=3, axis=-1{2}) | np.linalg.norm({0} + 2.0, ord=1, axis=0{2})
    np.mean({0}, axis=0{2}) | {0}.mean(axis={1}{2}) | np.add.reduce({0}, axis={1}{2})
""")
EXTREMES = operations("""
    np.max({0}, axis={1}{2}) | np.min({0}, axis={1}{2})
""")
VECTORS = operations("""
    {0}[::-1] | np.flip({0}) | np.roll({0}, 1) | np.repeat({0}, 2) | np.tile({0}, 2)
    np.concatenate([{0}, {0} * {0}]) | np.stack([{0}, np.sin({0})]) | np.cumsum({0})
    np.convolve({0}, {0}) | np.convolve({0}, np.array([0.5, -1.0, 0.25]), 'same')
    np.outer({0}, {0}) | np.diag({0}) | np.pad({0}, 1) | np.pad({0}, (1, 2), mode='edge')
    {0}[[0, -1, 0]] | np.take({0}, [0, 0, -1]) | np.bincount(np.arange({0}.size) % 2, {0}, 3)
    {0}[1:] | {0}[None, :] * {0}[:, None] | np.dot({0}, {0}) | np.vdot({0}, np.cos({0}))
    np.inner({0}, {0}) | np.einsum('i,i', {0}, {0}) | np.einsum('i,j->ji', {0}, np.cos({0}))
    lg.softmax({0}) | lg.log_softmax({0}) | np.hstack([{0}, {0}[0]])
    np.average({0}, weights=np.arange(1.0, 1 + {0}.size)) | {0}[np.arange({0}.size) % 2 == 0]
    np.expand_dims({0}, 0) | np.kron({0}, {0})
""")
MATRICES = operations("""
    {0}.T | np.swapaxes({0}, 0, 1) | {0} @ {0}.T | {0}.T @ {0} | np.ravel({0}) | {0}[0] | {0}[:, -1]
    {0}[..., ::-1] | np.reshape({0}, -1) | np.cumsum({0}, axis=0) | {0}[-1:, 1:]
    np.cumsum({0}, axis=1) | np.tril({0}) | np.triu({0}, 1) | np.diagonal({0}) | np.trace({0})
    np.vstack([{0}, {0}[:1]]) | np.concatenate([{0}, np.ones(({0}.shape[0], 1))], axis=1)
    lg.softmax({0}, axis=0) | lg.log_softmax({0}, axis=1)
    np.einsum('ij->j', {0}) | np.einsum('ij,kj->ik', {0}, np.sin({0}))
    np.split({0}, [1], axis=1)[0] | {0}[[0, 0, -1]] | np.pad({0}, 1, mode='reflect')
    np.diff({0}, axis=1) | np.moveaxis({0}, 0, -1) | np.repeat({0}, 2, axis=1)
    np.roll({0}, 1, axis=0) | np.take({0}, [0, -1, 0], axis=1)
    np.tensordot({0}, {0}, axes=([1], [1]))
    np.take_along_axis({0}, ORDER({0}), axis=1)
    {0}[np.arange({0}.shape[0]), -1] | np.squeeze({0}[:1], 0)
    np.broadcast_to({0}, (2, *{0}.shape)) | {0}[:, ::-1] | np.max({0}, axis=(0, 1))
    np.sum({0}, axis=(0, 1)) | SPARSE({0}.shape[0]) @ {0}
""")
SQUARE = operations("""
    np.linalg.inv(REGULAR({0})) | np.linalg.det(REGULAR({0})) | np.linalg.solve(REGULAR({0}), {0})
    np.linalg.slogdet(REGULAR({0}))[1] | np.linalg.cholesky(DEFINITE({0}))
    np.linalg.eigvalsh(SYMMETRIC({0})) | np.linalg.eigh(SYMMETRIC({0}))[0]
    np.square(np.linalg.eigh(SYMMETRIC({0}))[1]) | np.linalg.solve(DEFINITE({0}), {0}[..., :1])
""")
CUBES = operations("""
    np.transpose({0}, (2, 0, 1)) | np.sum({0}, axis=(0, 2)) | {0}[0] | {0}[:, -1, ::2]
    np.swapaxes({0}, 0, 2) | {0} @ np.swapaxes({0}, -1, -2) | np.einsum('kij,kij->k', {0}, {0})
    np.max({0}, axis=(1, 2)) | np.moveaxis({0}, 0, 1) | {0}.reshape({0}.shape[0], -1)
    np.matmul({0}, np.ones({0}.shape[-1])) | {0}[..., None, -1] | np.cumsum({0}, axis=1)
    lg.logsumexp({0}, axis=(0, 2), keepdims=True)
""")
SCALARS = operations("""
    {0} * np.array([1.0, -0.5]) | np.stack([{0}, {0} * {0}]) | np.broadcast_to({0}, (3,))
    {0}[None]
""")
LOOPS = operations("""
    lg.iterate(lambda z: {step}, {0}, {n}{how})
    lg.scan(lambda z, x: ({step}, np.sum(z)), {0}, None, {n}{how})[0]
    lg.scan(lambda z, x: ({step} + 0.1 * x, z * x), {0}, np.linspace(0.1, 1.0, {n}){how})[1]
    lg.scan(lambda z, x: (DRAWN(z, x), x * z), {0}, STACKED({0}, {n}), backwards=True{how})[1]
    lg.while_loop(lambda z: np.sum(z * z) > {stop}, lambda z: 0.8 * {step}, {0}, 200{how})
    lg.iterate(lambda s: ({pair}), ({0}, np.cos({0})), {n}{how})[1]
""")
STEPS = operations("""
    0.9 * z + 0.2 * np.sin(z) | np.tanh(z + 0.3 * {1}) | z - 0.1 * (z - {1}) * np.cos({1})
    0.5 * z * (1.0 + np.exp(-np.sum(z * z)))
""")
PAIRS = operations("""
    s[0] + 0.1 * s[1], s[1] - 0.1 * np.sin(s[0]) | 0.9 * s[1], np.tanh(s[0] + {1})
    s[0], s[1] * 0.9 + 0.1 * s[0] * {1}
""")
HEAD = """import numpy as np
import scipy.sparse
from scipy import special as sp
import lagrad as lg

EYE = lambda x: np.eye(x.shape[-1])
REGULAR = lambda x: x + 4 * EYE(x)
DEFINITE = lambda x: x @ np.swapaxes(x, -1, -2) + EYE(x)
SYMMETRIC = lambda x: x + np.swapaxes(x, -1, -2) + np.diag(3.0 * np.arange(x.shape[-1]))
SPARSE = lambda n: scipy.sparse.csr_array(np.tri(n) - 0.3 * np.eye(n))
ORDER = lambda x: np.argsort(np.arange(x.size).reshape(x.shape) * 7 % 5, axis=1)
DRAWN = lambda z, x: 0.9 * z + 0.2 * np.sum(x) * np.cos(z)
STACKED = lambda x, n: np.stack([x * (0.3 + 0.1 * k) for k in range(n)])
MASK, OFFSET = True, 0.1
"""
