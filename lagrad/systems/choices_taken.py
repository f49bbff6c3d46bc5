"""Partials by what no choice takes: they are zero, whatever they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from lagrad.expressions.linear_maps import Chosen, LinearMap, Reindex, Scale


def restricted(step: Any, values: list[Any], taken: list[Any]) -> LinearMap | None:
    """A step's map where its target is taken; notes in `taken` where its source is.

    An entry of `taken` is True, for the whole array, or says which of its entries; None until
    something is known to use the slot.
    """
    linear: LinearMap | None = step.map
    if values[step.target] is None:
        return linear
    here = True if taken[step.target] is None else taken[step.target]
    there: Any = here if linear is None else True
    if isinstance(linear, Scale) and linear.data:
        weight = linear.weights().reshape(linear.target)
        kept: Any = np.ones(linear.target, bool) if here is True else here
        if isinstance(linear, Chosen):
            kept = kept & (weight != 0)
        if here is not True:
            linear = linear.with_data((np.where(here, weight, 0.0),))
        there = Scale(1.0, linear.source, linear.target).rmv(np.asarray(kept, float)) > 0
    elif isinstance(linear, (Scale, Reindex)):
        used = np.ones(linear.target) if here is True else np.asarray(here, float)
        there = np.abs(linear.rmv(used)) > 0
    before = taken[step.source]
    if there is not True and there.all():
        there = True
    taken[step.source] = (
        True if before is True or there is True else (there if before is None else before | there)
    )
    return linear
