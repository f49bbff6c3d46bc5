"""A current source into two resistors and a diode; volts, ohms and amperes.

From V2 = 1 mV an undamped Newton step lands at a diode current of e^400 amperes.
"""

import numpy as np

import lagrad as lg

program = lg.Program("diode")
current = program.parameter("current", value=0.1)
R1 = program.parameter("R1", value=100.0)
R2 = program.parameter("R2", value=1.0e4)
saturation = program.parameter("saturation", value=1.0e-15)
thermal = program.parameter("thermal", value=0.025875)
V1 = program.unknown("V1", start=10.0)
V2 = program.unknown("V2", start=1.0e-3)
branch = program.define("branch", (V1 - V2) / R2)
program.subject_to(current - V1 / R1 - branch == 0, name="node_1")
program.subject_to(branch == saturation * np.expm1(V2 / thermal), name="node_2")
power = program.define("power", V2 * branch)
