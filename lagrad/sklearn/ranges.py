"""Ranges of hyperparameters, and the unconstrained vector that the search moves in."""

from collections.abc import Mapping, Sequence
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

    @property
    def shared(self) -> bool:
        """Whether there is one for the whole model."""
        return isinstance(self.per, str) and self.per == "model"

    def groups(self, features: int) -> Array:
        """The number of each feature's group."""
        if isinstance(self.per, str):
            return np.zeros(features, int) if self.shared else np.arange(features)
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

    def __init__(
        self,
        ranges: Mapping[str, Range],
        current: Mapping[str, Any],
        fixed: Mapping[str, Any],
        features: int,
    ) -> None:
        self.ranges, self.fixed = dict(ranges), dict(fixed)
        self.groups = {name: r.groups(features) for name, r in ranges.items()}
        self.sizes = [int(g.max(initial=0)) + 1 for g in self.groups.values()]
        own = {k: current[k] if r.start is None else r.start for k, r in ranges.items()}
        starts = [np.clip(own[name], r.low, r.high) for name, r in ranges.items()]
        lows, highs = zip(*((r.low, r.high) for r in ranges.values()), strict=True)
        self.start, *self.bounds = map(self._vector, (starts, lows, highs))

    def _vector(self, values: Sequence[float]) -> Array:
        """One value for each hyperparameter, in the vector."""
        pairs = zip(self.ranges.values(), values, strict=True)
        return np.repeat([r.inward(float(value)) for r, value in pairs], self.sizes)

    def values(self, vector: Any) -> dict[str, Any]:
        """Each hyperparameter from the vector, a scalar or one for each feature; the fixed ones."""
        found, begin = dict(self.fixed), 0
        for (name, r), size in zip(self.ranges.items(), self.sizes, strict=True):
            piece = r.outward(vector[begin : begin + size])
            begin += size
            found[name] = piece[0] if r.shared else piece[self.groups[name]]
        return found

    def shown(self, vector: Array) -> dict[str, Any]:
        """Those that are searched as numbers, for `best_params_`."""
        found = self.values(np.asarray(vector)).items()
        return {k: np.array(v) if np.ndim(v) else float(v) for k, v in found if k in self.ranges}


def checked_ranges(given: Any, tunable: Mapping[str, Range], estimator: Any) -> dict[str, Range]:
    """Ranges as they were given: None, names, pairs or `Range`s."""
    first = next(iter(tunable))
    given = first if given is None else given
    if not isinstance(given, Mapping):
        given = dict.fromkeys([given] if isinstance(given, str) else list(given))
    if not given:
        raise InvalidValue("parameters is empty; name at least one hyperparameter.")
    found = {}
    for name, value in given.items():
        if name not in tunable:
            raise UnknownName.among(name, tunable, f"tunable hyperparameter of {estimator!r}")
        if value is None or isinstance(value, Range):
            found[name] = value or tunable[name]
        elif isinstance(value, (tuple, list)) and len(value) == 2:
            found[name] = Range(float(value[0]), float(value[1]))
        else:
            raise InvalidValue(f"parameters[{name!r}] is {value!r}; expected (low, high) or Range.")
        if name != first and not found[name].shared:
            raise InvalidValue(f"{name!r} is one number for the whole model: per='model'.")
    return found
