"""Loops of a length that is known: `scan` and `iterate`."""

import functools
import importlib.util
import os
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from lagrad.compiler.finite import all_finite
from lagrad.errors import InvalidFunction, InvalidValue, NotFinite, ShapeMismatch
from lagrad.expressions.expression import Expression, innermost
from lagrad.loops.chain import Chain, Execution, Starts
from lagrad.loops.chain_primitive import CHAIN
from lagrad.loops.reversible import InvertibleStep, require_called
from lagrad.loops.run_forwards import breaks_at, run
from lagrad.loops.state_storage import Storage, bytes_in, is_whole, mapped
from lagrad.transforms.trace import Trace, at_hand, declared, name_of, opened, trace
from lagrad.transforms.tracing_graph import tracing
from lagrad.trees import Tree
from lagrad.typing import Array, Function

# The bytes of memory that there are; states of loops may take a quarter unless told.
PHYSICAL = (
    os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**33
)


def scan(
    step: Function,
    state: Any,
    inputs: Any = None,
    length: int | None = None,
    *,
    backwards: bool = False,
    checkpoints: int | None = None,
    memory: int | str | None = None,
    disk: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> tuple[Any, Any]:
    """Run a step over inputs, handing a state on; return the last state and all outputs.

    Parameters
    ----------
    step : callable
        `step(state, x)` returns the next state, of the same structure, shapes and dtypes, and an
        output, or None. It is traced once, and may close over traced values.
    state : nested arrays
        The first state.
    inputs : nested arrays, optional
        Of each, the entries along the first axis are one step's. None hands None to each step.
    length : int, optional
        How many steps; that of the inputs by default.
    backwards : bool
        Whether the last inputs come first. Outputs stand where their inputs do.
    checkpoints : int, optional
        How many states are stored for the derivative at most, the first one included; those
        between are computed again, the fewest times possible. All by default.
    memory : int or str, optional
        The same as bytes, or as a text like "64 MB".
    disk : path, optional
        A folder for the stored states that `memory` has no room for, all of them without it: they
        are in one file there, which is gone afterwards. As many as there are steps, unless
        `checkpoints` says otherwise, or the file would take more than half of what is free.
    progress : bool
        Whether to show a bar, forwards and on the way back (extra `progress`).

    Returns
    -------
    state : nested arrays
    outputs : nested arrays
        Stacked along a new first axis.

    Raises
    ------
    ShapeMismatch, StructureMismatch
        A step changes the state's structure, shapes or dtypes, or inputs differ in length.
    InvalidValue
        No length, or none that can be; a budget smaller than one state; a folder that cannot be
        written to.
    InvalidFunction
        A step branches on values.
    NotFinite
        The state overflows; at which step.

    Examples
    --------
    >>> import numpy as np, lagrad as lg
    >>> growth = lambda r: lg.scan(lambda z, x: (z * (1 + r * x), z), 1.0, np.ones(3))
    >>> [float(growth(0.5)[0]), growth(0.5)[1].tolist()]
    [3.375, [1.0, 1.5, 2.25]]
    >>> float(lg.grad(lambda r: growth(r)[0])(0.5))
    6.75

    References
    ----------
    Griewank and Walther (2000), Algorithm 799: revolve, doi:10.1145/347837.347846.
    """
    loop = Loop("scan", step, state, inputs, length)
    return loop.run(backwards, loop.storage(checkpoints, memory, disk), progress=progress)


def iterate(
    step: Function,
    state: Any,
    length: int,
    *,
    checkpoints: int | None = None,
    memory: int | str | None = None,
    disk: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Any:
    """Apply a step to a state again and again; return the last one.

    Parameters
    ----------
    step : callable
        `step(state)` is the next state, of the same structure, shapes and dtypes.
    state : nested arrays
    length : int
    checkpoints, memory, disk, progress
        As of `scan`.

    Returns
    -------
    nested arrays

    Raises
    ------
    ShapeMismatch, StructureMismatch, InvalidValue, InvalidFunction, NotFinite
        As of `scan`.

    Examples
    --------
    >>> import lagrad as lg
    >>> root = lambda a: lg.iterate(lambda z: 0.5 * (z + a / z), 1.0, 6)
    >>> round(float(root(2.0)), 12), round(float(lg.grad(root)(2.0)), 12)
    (1.414213562373, 0.353553390593)
    """
    loop = Loop("iterate", step, state, None, length, alone=True)
    last, _ = loop.run(False, loop.storage(checkpoints, memory, disk), progress=progress)
    return last


class Loop:
    """A call of a loop: what it is given, and its step as a program.

    The step is one of a state and of inputs, or, `alone`, of a state that returns no outputs.
    """

    def __init__(
        self, kind: str, step: Function, state: Any, inputs: Any, length: Any, alone: bool = False
    ) -> None:
        whole = step if isinstance(step, InvertibleStep) else InvertibleStep(step)
        self.step, self.inverse, self.exact = whole.step, whole.inverse, whole.exact
        self.kind, self.name, self.alone = kind, name_of(self.step), alone
        require_called(kind, self.step, self.name, 1 if alone else 2)
        if self.inverse is not None:
            require_called(kind, self.inverse, f"the inverse of {self.name}", 1 if alone else 2)
        self.states, self.tree = opened(state)
        self.inputs, self.input_tree = opened(inputs)
        if not self.states:
            raise InvalidFunction(f"{kind} needs a state with at least one array; got {state!r}.")
        self.begin = [first_of(leaf, f"the state of {kind}") for leaf in self.states]
        self.rows = [first_of(leaf, f"the inputs of {kind}") for leaf in self.inputs]
        self.length = self._length(length)
        # Traced values as they are, others as arrays.
        pairs = zip([*self.states, *self.inputs], [*self.begin, *self.rows], strict=True)
        self.lifted = [leaf if isinstance(leaf, Expression) else array for leaf, array in pairs]

    def _length(self, length: Any) -> int:
        """How many steps, which the inputs and what was asked for must agree on."""
        lengths = {}
        for path, row in zip(self.input_tree.paths("inputs"), self.rows, strict=True):
            if row.ndim == 0:
                raise ShapeMismatch(
                    f"{self.kind}: {path!r} is a number; expected an array with an entry along "
                    "its first axis for each step. Close over what all steps have in common."
                )
            lengths[path] = len(row)
        if length is None:
            if not lengths:
                raise InvalidValue(f"{self.kind} without inputs needs length=….")
            length = next(iter(lengths.values()))
        if not is_whole(length, 0):
            name = "max_steps" if self.kind == "while_loop" else "length"
            raise InvalidValue(f"{self.kind}({name}={length!r}); expected an integer, 0 or more.")
        for path, n in lengths.items():
            if n != length:
                raise ShapeMismatch(
                    f"{self.kind}: {path!r} has {n} entries along its first axis for {length} "
                    "steps."
                )
        return int(length)

    def storage(self, checkpoints: Any, memory: Any, disk: Any) -> Storage | None:
        """How many states are stored, and where; None for all of them, in memory."""
        size, most = max(1, sum(a.nbytes for a in self.begin)), max(1, self.length)
        if checkpoints is None and memory is None and disk is None:
            if size * self.length <= PHYSICAL // 4:
                return None
            memory = max(size, PHYSICAL // 4)
        if checkpoints is not None and not is_whole(checkpoints, 1):
            raise InvalidValue(
                f"{self.kind}(checkpoints={checkpoints!r}); expected a positive integer."
            )
        near = most if memory is None else bytes_in(memory) // size
        if disk is None:
            folder, room = None, near
            if checkpoints is not None and memory is not None:
                raise InvalidValue(f"{self.kind}: checkpoints= or memory=, not both without disk=.")
            if room < 1:
                raise InvalidValue(
                    f"{self.kind}: memory={memory!r} is less than one state has; the least that "
                    f"works is {size} bytes."
                )
        else:
            if not isinstance(disk, (str, os.PathLike)) or not os.fspath(disk):
                raise InvalidValue(f"{self.kind}(disk={disk!r}); expected the path of a folder.")
            folder = os.fspath(disk)
            mapped(folder, 1, np.dtype(np.uint8))  # before anything is computed
            near = 0 if memory is None else min(most, near)
            room = max(1, near + shutil.disk_usage(folder).free // 2 // size)
        count = min(most, room if checkpoints is None else int(checkpoints))
        return Storage(count, min(near, count), folder)

    def _called(self, counted: bool) -> Function:
        """The step as it is traced: of a state and of inputs, with what its inverse makes of them.

        Where `counted` it is given the number of steps, and has no use for it.
        """
        if not (self.alone or self.inverse or counted):

            @functools.wraps(self.step)
            def stepped(state: Any, x: Any) -> Any:
                return self._in_order(self.step(state, x))

            return stepped

        def called(state: Any, x: Any, steps: Any = None) -> Any:
            found = self._in_order((self.step(state), None) if self.alone else self.step(state, x))
            if self.inverse is None or not isinstance(found, tuple) or len(found) != 2:
                return found
            undone = self.inverse(state) if self.alone else self.inverse(state, x)
            return (*found, self.tree.ordered(undone))

        called.__name__ = self.name
        return called

    def _in_order(self, found: Any) -> Any:
        """What a step returns, the keys of its state in the order of the first one."""
        if not isinstance(found, tuple) or len(found) != 2:
            return found
        return self.tree.ordered(found[0]), found[1]

    def stated(
        self, backwards: bool, storage: Storage | None, progress: bool, counted: bool = False
    ) -> tuple[Chain, list[Any], Tree]:
        """The loop as a chain, what its step closes over, and the structure of an output."""
        if progress and importlib.util.find_spec("tqdm") is None:
            raise InvalidValue(f'{self.kind}(progress=True): pip install "lagrad[progress]".')
        t = self.length - 1 if backwards else 0
        first = [
            np.asarray(row[t]) if self.length else np.zeros(row.shape[1:], row.dtype)
            for row in self.rows
        ]
        given = (self.tree.unflatten(self.begin), self.input_tree.unflatten(first), 0.0)
        positions = [k for k, wanted in enumerate((True, first, counted)) if wanted]
        called = self._called(counted)
        inner = trace(called, given[: 3 if counted else 2], {}, positions, repeating=True)
        outputs = self._checked(inner)
        constants = inner.enclosed
        if counted:
            constants |= dict.fromkeys(inner.arguments[-1].names, 0.0)
        m = len(self.states)
        inverse = 0 if self.inverse is None else m // 2 if self.exact else m
        end = len(inner.outputs) - inverse
        chain = Chain(
            inner.program,
            states=inner.arguments[0].names,
            inputs=inner.arguments[1].names if first else (),
            constants=tuple(constants),
            after=inner.outputs[:m],
            outputs=inner.outputs[m:end],
            length=self.length,
            backwards=backwards,
            starts=Starts.of(inner.starts),
            execution=Execution(
                storage, inner.outputs[end:], self.exact, counted=counted, progress=progress
            ),
        )
        return chain, list(constants.values()), outputs

    def run(
        self, backwards: bool, storage: Storage | None, progress: bool = False
    ) -> tuple[Any, Any]:
        """The last state and the stacked outputs, as numbers or as values of the outer trace."""
        chain, constants, outputs = self.stated(backwards, storage, progress)
        m = len(self.states)
        value = self.value(chain, constants)
        parts = chain.parts(value)
        if isinstance(value, np.ndarray):
            parts = [part[()].copy() for part in parts]
        return self.tree.unflatten(parts[:m]), outputs.unflatten(parts[m:])

    def value(self, chain: Chain, constants: Sequence[Any]) -> Any:
        """The chain's value: an array, or a node where anything in it is traced."""
        values = [*self.lifted, *constants]
        outer = tracing() or innermost(values)
        if outer is None or not any(isinstance(v, Expression) for v in values):
            value = run(chain, *values)
            self.require_finite(chain, values, [value])
            return value
        return CHAIN(outer, *map(outer.lift, values), parameters=(chain,))

    def require_finite(self, chain: Chain, values: Sequence[Any], found: Sequence[Array]) -> None:
        if not all_finite(found) and (where := breaks_at(chain, values, self.name)) is not None:
            raise NotFinite(f"{self.kind}: {where}")

    def _checked(self, inner: Trace) -> Tree:
        """The structure of an output; an error where the step does not return what it must."""
        if inner.guards:
            inverse = self.inverse is not None and not self._asks(inner)
            what = "the inverse of" if inverse else "the step"
            raise InvalidFunction(
                f"{what} {self.name!r} of {self.kind} branches on a value ({inner.guards[0].kind}"
                "): it is traced once for all steps. Use np.where, np.maximum and the like."
            )
        step = f"the step {self.name!r}"
        if inner.discrete:
            raise InvalidFunction(
                f"{step} of {self.kind} returned truths or integers; return floats."
            )
        children = inner.tree.children
        if inner.tree.kind is not tuple or len(children) != (2 if self.inverse is None else 3):
            raise InvalidFunction(
                f"{step} of {self.kind} must return a pair: the next state, and an output or None."
            )
        m = len(self.begin)
        returned = [("a step", repr(self.name), step, children[0], inner.outputs[:m])]
        if self.inverse is not None and not self.exact:
            undone = f"the inverse of {self.name!r}"
            returned.append(("an inverse", undone, undone, children[2], inner.outputs[-m:]))
        for one, whose, whole, tree, names in returned:
            found = self.tree.difference(tree, f"the state that {whose} returns")
            if found:
                raise ShapeMismatch(f"{found}: {one} returns a state like the one it was given.")
            inner.require_like(whole, self.tree.paths("state"), self.begin, names)
        return children[1]

    def _asks(self, inner: Trace) -> bool:
        """Whether the step alone asks for numbers."""
        given = inner.call.args[: 1 if self.alone else 2]
        positions = [k for k in inner.call.positions if k < len(given)]
        return bool(trace(self.step, given, {}, positions, repeating=True).guards)


def first_of(leaf: Any, what: str) -> Array:
    """The numbers of a state or of inputs at the first step; of a declared program, as zeros."""
    return np.zeros(leaf.shape, leaf.dtype) if declared(leaf) else at_hand(leaf, what)
