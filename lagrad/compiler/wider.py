"""A plan of few numbers in a wider precision: what rounding has done to its results is seen there.

Doubles are widened to the machine's long doubles, singles to doubles. LAPACK's functions, and some
of SciPy's, know nothing wider than doubles; nor does every machine.
"""

from collections.abc import Sequence

import numpy as np

from lagrad.compiler.plan import Plan
from lagrad.typing import Array, DType

# How many times finer a wider precision rounds, at the least.
FINER = 1000.0
# Relative changes that are rounding.
CLOSE = 1e-9
# Numbers up to which nobody waits for these: they are computed whenever a derivative is. A
# program with its gradient computes about three times as many.
SMALL = 400


def wider_than(dtype: DType) -> DType | None:
    """The next wider dtype of floats, where the machine has one that is."""
    wider = np.dtype(float if dtype == np.float32 else np.longdouble)
    spacing, finer = (float(np.finfo(str(kind)).eps) for kind in (dtype, wider))
    return wider if finer <= spacing / FINER else None


class WidePlan:
    """A plan's results in a wider precision.

    Attributes
    ----------
    dtype : dtype or None
        What it evaluates in; None where there is nothing, or where it computes too many numbers.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.tested = plan, False
        usual = np.result_type(*[node.dtype for node in plan.inputs], np.float32)
        operations = () if plan.lowered is None else plan.lowered.operations
        primitives = [o.primitive for o in operations if o.primitive is not None]
        # Loops and functions of the user's would be run once more.
        whole = any(p.joint is not None or bool(p.rules) for p in primitives)
        few = plan.lowered is not None and sum(o.size for o in operations) <= 3 * SMALL
        self.floats = [o.dtype.kind == "f" for o in operations]
        self.dtype = wider_than(usual) if few and not whole else None

    def __call__(self, values: Sequence[Array]) -> list[Array] | None:
        """The outputs, in order; None where there is nothing wider."""
        if self.dtype is None:
            return None
        arrays = [np.asarray(a) for a in values]
        wide = [a.astype(self.dtype) if a.dtype.kind == "f" else a for a in arrays]
        with np.errstate(all="ignore"):
            try:
                if not self.tested:
                    self._test(wide)
                return self.plan.interpreted(wide)
            except TypeError:  # of a function that knows doubles only
                self.dtype = None
                return None

    def agrees(self, values: Sequence[Array], found: Sequence[Array], first: int) -> bool | None:
        """Whether results from the first one on are those that it finds; None where it has none."""
        finer = self(values)
        if finer is None:
            return None
        return all(
            bool(np.abs(b - a).max(initial=0.0) <= CLOSE * np.abs(a).max(initial=0.0))
            for b, a in zip(finer[first:], found[first:], strict=False)
        )

    def _test(self, wide: Sequence[Array]) -> None:
        """TypeError where a step makes something narrower of what is wide."""
        plan = self.plan
        memory = dict(enumerate(wide)) | dict(plan.constants)
        for step in plan.steps:
            given = [memory[i] for i in step.arguments]
            found = step.function(*given)
            memory.update(zip(step.results, found if step.several else (found,), strict=True))
            if any(np.asarray(a).dtype == self.dtype for a in given):
                for place in step.results:
                    if self.floats[place] and np.asarray(memory[place]).dtype != self.dtype:
                        raise TypeError(f"{step.function} computes in doubles only")
        self.tested = True
