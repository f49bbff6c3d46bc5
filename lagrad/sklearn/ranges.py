"""Ranges of hyperparameters, and the unconstrained vector that the search moves in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lagrad.errors import InvalidValue, UnknownName
from lagrad.typing import Array


@dataclass(frozen=True)
class Range:
    """Where a hyperparameter may lie, and how many of it there are.

    Parameters
    ----------
    low, high : float
        Bounds, in the estimator's own units.
    start : float, optional
        Where the search starts; by default the estimator's own value, or the nearest inside.
    per : "model", "feature" or array of ints, shape (n_features,)
        One for the whole model, one for each feature, or the number of each feature's group,
        counted from zero.
    log : bool, optional
        Whether the search moves in the logarithm; by default where `low` is above zero.

    Examples
    --------
    >>> from lagrad.sklearn import Range
    >>> Range(1e-4, 1e4, per="feature").log
    True
    """

    low: float
    high: float
    start: float | None = None
    per: Any = "model"
    log: bool = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise InvalidValue(f"{self!r}: expected finite low < high.")
        if self.log is None:
            object.__setattr__(self, "log", self.low > 0)
        if self.log and self.low <= 0:
            raise InvalidValue(f"{self!r}: a logarithm needs low > 0.")
        if self.start is not None and not self.low <= self.start <= self.high:
            raise InvalidValue(
                f"the start {self.start!r} is outside its bounds [{self.low:g}, {self.high:g}]."
            )
        if isinstance(self.per, str) and self.per not in ("model", "feature"):
            raise InvalidValue(f"per={self.per!r}; expected 'model', 'feature' or group numbers.")

    def groups(self, features: int) -> Array:
        """The number of each feature's group."""
        if isinstance(self.per, str):
            return np.zeros(features, int) if self.per == "model" else np.arange(features)
        numbers = np.asarray(self.per)
        if numbers.shape != (features,) or numbers.dtype.kind not in "iu" or numbers.min() < 0:
            raise InvalidValue(
                f"per has shape {numbers.shape} and dtype {numbers.dtype}; expected the number of "
                f"a group, from zero, for each of {features} features."
            )
        return numbers

    def inward(self, value: Any) -> Any:
        return np.log(value) if self.log else value

    def outward(self, value: Any) -> Any:
        return np.exp(value) if self.log else value


class Hyperparameters:
    """Several ranges as one vector: logarithms, one entry for each model, group or feature."""

    def __init__(self, ranges: Mapping[str, Range], current: Mapping[str, Any], features: int):
        self.ranges = dict(ranges)
        self.groups = {name: r.groups(features) for name, r in ranges.items()}
        self.sizes = {name: int(g.max(initial=0)) + 1 for name, g in self.groups.items()}
        starts, lows, highs = [], [], []
        for name, r in ranges.items():
            value = r.start if r.start is not None else min(max(current[name], r.low), r.high)
            size = self.sizes[name]
            starts.append(np.full(size, r.inward(float(value))))
            lows.append(np.full(size, r.inward(float(r.low))))
            highs.append(np.full(size, r.inward(float(r.high))))
        self.start = np.concatenate(starts)
        self.bounds = (np.concatenate(lows), np.concatenate(highs))

    def values(self, vector: Any, by_feature: bool = True) -> dict[str, Any]:
        """Each hyperparameter from the vector: a scalar, or one for each feature."""
        found, begin = {}, 0
        for name, r in self.ranges.items():
            piece = r.outward(vector[begin : begin + self.sizes[name]])
            begin += self.sizes[name]
            single = isinstance(r.per, str) and r.per == "model"
            found[name] = piece[0] if single else piece[self.groups[name]] if by_feature else piece
        return found

    def shown(self, vector: Array) -> dict[str, Any]:
        """The same as numbers, for `best_params_`."""
        found = self.values(np.asarray(vector))
        return {k: float(v) if np.ndim(v) == 0 else np.array(v) for k, v in found.items()}


def checked_ranges(given: Any, tunable: Mapping[str, Range], estimator: Any) -> dict[str, Range]:
    """Ranges as they were given: None, names, pairs or `Range`s."""
    if given is None:
        first = next(iter(tunable))
        return {first: tunable[first]}
    if not isinstance(given, Mapping):
        given = dict.fromkeys([given] if isinstance(given, str) else list(given))
    if not given:
        raise InvalidValue("parameters is empty; name at least one hyperparameter.")
    found = {}
    for name, value in given.items():
        if name not in tunable:
            raise UnknownName.among(name, tunable, f"tunable hyperparameter of {estimator!r}")
        if value is None:
            found[name] = tunable[name]
        elif isinstance(value, Range):
            found[name] = value
        elif isinstance(value, (tuple, list)) and len(value) == 2:
            found[name] = Range(float(value[0]), float(value[1]))
        else:
            raise InvalidValue(f"parameters[{name!r}] is {value!r}; expected (low, high) or Range.")
        if name != next(iter(tunable)) and not (
            isinstance(found[name].per, str) and found[name].per == "model"
        ):
            raise InvalidValue(f"{name!r} is one number for the whole model: per='model'.")
    return found
