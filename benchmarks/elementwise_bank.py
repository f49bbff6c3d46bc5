"""Forty elementwise functions from several fields, each with its arguments: none was tuned.

They are written for any module with NumPy's names, so that NumPy, lagrad and JAX run the same text.
Each returns a number: most add up at the end, some along an axis first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

# The ranges that arguments are drawn from; a letter after a colon is a shape: v the whole vector
# (n), r a row (1, columns), c a column (rows, 1), m the matrix (rows, columns), s a number.
COLUMNS = 30


@dataclass(frozen=True)
class Problem:
    """A function of arrays, and how its arguments are drawn."""

    name: str
    function: Callable[..., Any]
    ranges: tuple[tuple[float, float, str], ...]

    def arguments(self, n: int, dtype: Any) -> list[np.ndarray]:
        """Arguments of about n entries, drawn once and for all."""
        rng = np.random.default_rng(sum(map(ord, self.name)))
        rows = max(1, n // COLUMNS)
        shapes = {"v": (n,), "m": (rows, COLUMNS), "r": (1, COLUMNS), "c": (rows, 1), "s": ()}
        return [
            np.asarray(rng.uniform(low, high, shapes[kind]), dtype)
            for low, high, kind in self.ranges
        ]


def problem(text: str, function: Callable[..., Any]) -> Problem:
    """`name: low high kind, …`."""
    name, _, rest = text.partition(": ")
    parts = [part.split() for part in rest.split(", ")]
    return Problem(name, function, tuple((float(a), float(b), kind) for a, b, kind in parts))


def black_scholes(m, price, strike, time, volatility):
    root = volatility * m.sqrt(time)
    d = (m.log(price / strike) + (0.03 + 0.5 * volatility**2) * time) / root
    return m.sum(price * m.ndtr(d) - strike * m.exp(-0.03 * time) * m.ndtr(d - root))


def wind_chill(m, temperature, wind):
    power = wind**0.16
    return m.sum(13.12 + 0.6215 * temperature - 11.37 * power + 0.3965 * temperature * power)


def redlich_kwong(m, temperature, volume):
    return m.sum(
        8.314 * temperature / (volume - 0.3) - 1.6 / (m.sqrt(temperature) * volume * (volume + 0.3))
    )


def antoine(m, temperature, share):
    pressure = 10 ** (8.07131 - 1730.63 / (233.426 + temperature))
    return m.sum(share * pressure / (760.0 + share * pressure))


def haversine(m, north, east, south, west):
    half = m.sin((north - south) / 2) ** 2
    half = half + m.cos(north) * m.cos(south) * m.sin((east - west) / 2) ** 2
    return m.sum(2 * m.arcsin(m.sqrt(half)))


def morse(m, distance, depth):
    return m.sum(depth * (1 - m.exp(-1.3 * (distance - 1.1))) ** 2)


def lennard_jones(m, distance):
    sixth = (1.0 / distance) ** 6
    return m.sum(4 * (sixth**2 - sixth))


def planck(m, frequency, temperature):
    return m.sum(frequency**3 / m.expm1(frequency / temperature))


def fermi(m, energy, level):
    return m.sum(m.log1p(m.exp(-(energy - level) / 0.3)))


def relativistic(m, momentum, mass):
    return m.sum(m.sqrt(momentum**2 + mass**2) - mass)


def gravity(m, x, y):
    return m.sum(-1 / m.sqrt(x * x + y * y + 0.01))


def pendulum(m, angle, speed):
    return m.sum(0.5 * speed**2 + 9.81 * (1 - m.cos(angle)))


def van_der_pol(m, x, speed, friction):
    return m.sum((friction * (1 - x**2) * speed - x) ** 2)


def gaussian_likelihood(m, x, mean, scale):
    return m.sum(0.5 * ((x - mean) / scale) ** 2 + m.log(scale) + 0.5 * math.log(2 * math.pi))


def student_likelihood(m, x, mean):
    return m.sum(2.5 * m.log1p((x - mean) ** 2 / 4))


def gamma_likelihood(m, x, shape):
    return m.sum(m.gammaln(shape) + x - (shape - 1) * m.log(x))


def beta_likelihood(m, x, a, b):
    normal = m.gammaln(a) + m.gammaln(b) - m.gammaln(a + b)
    return m.sum(normal - (a - 1) * m.log(x) - (b - 1) * m.log1p(-x))


def poisson_likelihood(m, rate, log_rate):
    return m.sum(m.exp(log_rate) - rate * log_rate)


def logistic_likelihood(m, score, label):
    return m.sum(m.logaddexp(0.0, -label * score))


def von_mises(m, angle, mean, concentration):
    return m.sum(concentration * m.cos(angle - mean) - m.log(1 + concentration**2))


def huber(m, residual):
    size = m.abs(residual)
    return m.sum(m.where(size < 1, 0.5 * residual**2, size - 0.5))


def pinball(m, residual):
    return m.sum(m.maximum(0.3 * residual, -0.7 * residual))


def gelu(m, x):
    return m.sum(0.5 * x * (1 + m.erf(x / math.sqrt(2))))


def swish(m, x):
    return m.sum(x * m.expit(x))


def mish(m, x):
    return m.sum(x * m.tanh(m.log1p(m.exp(x))))


def elu(m, x):
    return m.sum(m.where(x > 0, x, m.expm1(m.minimum(x, 0.0))))


def gated(m, x, gate):
    return m.sum(m.tanh(x) * m.expit(gate))


def attention_scores(m, x, weight):
    scores = x * weight
    top = m.exp(scores - m.max(scores, axis=1, keepdims=True))
    return m.sum(m.log(m.sum(top, axis=1)))


def layer_norm(m, x, gain):
    centred = x - m.mean(x, axis=1, keepdims=True)
    spread = m.mean(centred**2, axis=1, keepdims=True)
    return m.sum((gain * centred / m.sqrt(spread + 1e-5)) ** 3)


def kernel_row(m, x, centre, width):
    return m.sum(m.exp(-((x - centre) ** 2) / (2 * width**2)), axis=0) @ m.ones(COLUMNS)


def michaelis(m, substrate, inhibitor):
    return m.sum(1.7 * substrate / (0.4 * (1 + inhibitor / 0.9) + substrate))


def hill(m, dose, power):
    raised = dose**power
    return m.sum(raised / (1 + raised))


def arrhenius(m, temperature, energy):
    return m.sum(1e3 * m.exp(-energy / (8.314e-3 * temperature)))


def debye_hueckel(m, strength, charge):
    root = m.sqrt(strength)
    return m.sum(charge**2 * (root / (1 + root) - 0.3 * strength))


def production(m, capital, labour):
    return m.sum((0.3 * capital**-0.5 + 0.7 * labour**-0.5) ** -2)


def crra(m, consumption, aversion):
    return m.sum((consumption ** (1 - aversion) - 1) / (1 - aversion))


def spherical(m, radius, polar, azimuth):
    x = radius * m.sin(polar) * m.cos(azimuth)
    y = radius * m.sin(polar) * m.sin(azimuth)
    return m.sum(x * y + radius * m.cos(polar))


def rosenbrock(m, x):
    return m.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def advection(m, u):
    return m.sum((u[2:] - 2 * u[1:-1] + u[:-2] - 0.1 * u[1:-1] * (u[2:] - u[:-2])) ** 2)


def bearing(m, x, y):
    return m.sum(m.arctan2(y, x) ** 2 + m.hypot(x, y))


BANK = [
    problem("Black-Scholes call: 80 120 v, 80 120 v, 0.2 2 v, 0.1 0.5 v", black_scholes),
    problem("wind chill: -30 5 v, 5 60 v", wind_chill),
    problem("Redlich-Kwong: 280 400 v, 1 5 v", redlich_kwong),
    problem("Antoine and Langmuir: 10 90 v, 0 1 v", antoine),
    problem("haversine: -1 1 v, -1 1 v, -1 1 v, -1 1 v", haversine),
    problem("Morse: 0.8 3 m, 1 5 r", morse),
    problem("Lennard-Jones: 0.9 3 v", lennard_jones),
    problem("Planck: 0.5 8 m, 0.5 2 c", planck),
    problem("Fermi: -3 3 v, -0.5 0.5 s", fermi),
    problem("relativistic energy: 0 3 v, 0.5 1.5 s", relativistic),
    problem("softened gravity: -3 3 v, -3 3 v", gravity),
    problem("pendulum: -3 3 v, -2 2 v", pendulum),
    problem("van der Pol: -2 2 v, -2 2 v, 0.5 2 s", van_der_pol),
    problem("normal likelihood: -3 3 m, -1 1 r, 0.5 2 r", gaussian_likelihood),
    problem("Student likelihood: -3 3 v, -1 1 s", student_likelihood),
    problem("gamma likelihood: 0.2 4 v, 0.5 5 v", gamma_likelihood),
    problem("beta likelihood: 0.05 0.95 m, 1 4 r, 1 4 r", beta_likelihood),
    problem("Poisson likelihood: 0 9 v, -1 2 v", poisson_likelihood),
    problem("logistic likelihood: -6 6 v, -1 1 v", logistic_likelihood),
    problem("von Mises: -3 3 v, -1 1 s, 0.5 3 v", von_mises),
    problem("Huber: -3 3 v", huber),
    problem("pinball: -3 3 v", pinball),
    problem("GELU: -4 4 v", gelu),
    problem("swish: -6 6 v", swish),
    problem("Mish: -6 6 v", mish),
    problem("ELU: -4 4 v", elu),
    problem("gated unit: -3 3 m, -3 3 r", gated),
    problem("log-partition of rows: -3 3 m, -1 1 r", attention_scores),
    problem("layer norm: -2 2 m, 0.5 1.5 r", layer_norm),
    problem("kernel columns: -2 2 m, -1 1 r, 0.5 1.5 s", kernel_row),
    problem("Michaelis-Menten: 0 5 v, 0 3 v", michaelis),
    problem("Hill: 0.1 4 v, 1 3 v", hill),
    problem("Arrhenius: 280 900 v, 20 60 v", arrhenius),
    problem("Debye-Hueckel: 0.001 0.5 m, -2 2 r", debye_hueckel),
    problem("CES production: 0.5 4 v, 0.5 4 v", production),
    problem("CRRA utility: 0.3 4 v, 2 4 s", crra),
    problem("spherical coordinates: 0.5 2 v, 0 3 v, -3 3 v", spherical),
    problem("Rosenbrock: -2 2 v", rosenbrock),
    problem("advection and diffusion: -1 1 v", advection),
    problem("bearing and range: -3 3 v, -3 3 v", bearing),
]
