"""Two disciplines that need each other's results (Sellar, Batill and Renaud 1996)."""

import numpy as np

import lagrad as lg

program = lg.Program("sellar")
z1 = program.parameter("z1", value=5.0)
z2 = program.parameter("z2", value=2.0)
x = program.parameter("x", value=1.0)
y1 = program.unknown("y1", start=1.0)
y2 = program.unknown("y2", start=1.0)
program.subject_to(y1 == z1**2 + z2 + x - 0.2 * y2)
program.subject_to(y2 == np.sqrt(y1) + z1 + z2)
obj = program.define("obj", x**2 + z2 + y1 + np.exp(-y2))
