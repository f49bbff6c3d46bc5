"""c = exp(x) + exp(x)², f = exp(c) + sin(c): the straight program of Domke's and Vieira's posts."""

import numpy as np

import lagrad as lg

program = lg.Program("domke")
x = program.parameter("x", value=0.0)
a = program.define("a", np.exp(x))
b = program.define("b", a**2)
c = program.define("c", a + b)
d = program.define("d", np.exp(c))
e = program.define("e", np.sin(c))
f = program.define("f", d + e)
