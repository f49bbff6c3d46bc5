"""Values held constant by every derivative."""

from __future__ import annotations

from typing import Any

from lagrad.primitives import kernels
from lagrad.transforms.trace import unboxed
from lagrad.trees import tree_map


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
    return tree_map(lambda leaf: kernels.stop_gradient(unboxed(leaf)), x)
