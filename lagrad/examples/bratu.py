"""−Δu = λ exp(u) on the unit square, zero on its edge: five-point differences on 32 × 32 points."""

import numpy as np

import lagrad as lg

n = 32
h = 1.0 / (n + 1)
program = lg.Program("bratu")
lam = program.parameter("lam", value=5.0)
u = program.unknown("u", shape=(n, n))
p = np.pad(u, 1)
laplacian = p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4 * u
program.subject_to(laplacian + h**2 * lam * np.exp(u) == 0, name="heat")
J = program.define("J", h**2 * np.sum(u))
