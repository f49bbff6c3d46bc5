"""AC power flow on the IEEE 14-bus case, and what a megawatt more at each bus loses.

Data: University of Washington Power Systems Test Case Archive, "14 Bus Power Flow Test Case", as
in MATPOWER's case14. Powers are in MW and Mvar, everything else per unit of 100 MVA; angles in
radians. Bus 1 is the slack; buses 2, 3, 6 and 8 hold their voltage.
"""

import numpy as np

import lagrad as lg

BASE = 100.0
SHUNT = {9: 19.0}  # Mvar at one per unit
GENERATION = {2: 40.0}  # MW
VOLTAGE = {1: 1.06, 2: 1.045, 3: 1.01, 6: 1.07, 8: 1.09}
DEMAND = np.array(
    [0, 21.7, 94.2, 47.8, 7.6, 11.2, 0, 0, 29.5, 9.0, 3.5, 6.1, 13.5, 14.9], dtype=float
)
REACTIVE = np.array(
    [0, 12.7, 19.0, -3.9, 1.6, 7.5, 0, 0, 16.6, 5.8, 1.8, 1.6, 5.8, 5.0], dtype=float
)
BRANCHES = [  # from, to, resistance, reactance, charging, tap
    (1, 2, 0.01938, 0.05917, 0.0528, 1.0),
    (1, 5, 0.05403, 0.22304, 0.0492, 1.0),
    (2, 3, 0.04699, 0.19797, 0.0438, 1.0),
    (2, 4, 0.05811, 0.17632, 0.0340, 1.0),
    (2, 5, 0.05695, 0.17388, 0.0346, 1.0),
    (3, 4, 0.06701, 0.17103, 0.0128, 1.0),
    (4, 5, 0.01335, 0.04211, 0.0, 1.0),
    (4, 7, 0.0, 0.20912, 0.0, 0.978),
    (4, 9, 0.0, 0.55618, 0.0, 0.969),
    (5, 6, 0.0, 0.25202, 0.0, 0.932),
    (6, 11, 0.09498, 0.19890, 0.0, 1.0),
    (6, 12, 0.12291, 0.25581, 0.0, 1.0),
    (6, 13, 0.06615, 0.13027, 0.0, 1.0),
    (7, 8, 0.0, 0.17615, 0.0, 1.0),
    (7, 9, 0.0, 0.11001, 0.0, 1.0),
    (9, 10, 0.03181, 0.08450, 0.0, 1.0),
    (9, 14, 0.12711, 0.27038, 0.0, 1.0),
    (10, 11, 0.08205, 0.19207, 0.0, 1.0),
    (12, 13, 0.22092, 0.19988, 0.0, 1.0),
    (13, 14, 0.17093, 0.34802, 0.0, 1.0),
]


def admittance() -> np.ndarray:
    """The bus admittance matrix, (14, 14), complex."""
    Y = np.zeros((14, 14), dtype=complex)
    for start, end, r, x, charging, tap in BRANCHES:
        i, j = start - 1, end - 1
        series = 1.0 / complex(r, x)
        Y[i, i] += (series + 0.5j * charging) / tap**2
        Y[j, j] += series + 0.5j * charging
        Y[i, j] -= series / tap
        Y[j, i] -= series / tap
    for bus, shunt in SHUNT.items():
        Y[bus - 1, bus - 1] += 1j * shunt / BASE
    return Y


Y = admittance()
held = np.array([bus - 1 for bus in VOLTAGE])
free = np.array([bus for bus in range(14) if bus not in held])
generation = np.zeros(14)
for bus, megawatts in GENERATION.items():
    generation[bus - 1] = megawatts

program = lg.Program("power_flow")
Pd = program.parameter("Pd", value=DEMAND)
Qd = program.parameter("Qd", value=REACTIVE)
setpoint = program.parameter("setpoint", value=list(VOLTAGE.values()))
angle = program.unknown("angle", shape=(13,))  # of buses 2 to 14
magnitude = program.unknown("magnitude", shape=(9,), start=1.0)  # of the free buses

theta = program.define("theta", np.concatenate([[0.0], angle]))
order = np.argsort(np.concatenate([held, free]))
V = program.define("V", np.concatenate([setpoint, magnitude])[order])
across = theta[:, None] - theta[None, :]
current_p = Y.real * np.cos(across) + Y.imag * np.sin(across)
current_q = Y.real * np.sin(across) - Y.imag * np.cos(across)
P = program.define("P", BASE * V * (current_p @ V))  # MW into the network at each bus
Q = program.define("Q", BASE * V * (current_q @ V))
program.subject_to(P[1:] == generation[1:] - Pd[1:], name="active")
program.subject_to(Q[free] == -Qd[free], name="reactive")
loss = program.define("loss", np.sum(P))  # MW
