"""Values held constant by every derivative."""

from __future__ import annotations

from typing import Any

import numpy as np

from lagrad.expressions.graph import stacked
from lagrad.primitives import kernels
from lagrad.trees import flatten


def stop_gradient(x: Any) -> Any:
    """Return `x` itself, held constant by every derivative.

    Parameters
    ----------
    x : nested arrays
        Traced or not.

    Examples
    --------
    >>> import lagrad as lg
    >>> float(lg.grad(lambda x: x * lg.stop_gradient(x))(3.0))
    3.0
    """
    leaves, tree = flatten(x)
    plain = [
        stacked(leaf) if isinstance(leaf, np.ndarray) and leaf.dtype == object else leaf
        for leaf in leaves
    ]
    return tree.unflatten([kernels.stop_gradient(leaf) for leaf in plain])
