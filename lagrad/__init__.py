"""Gradients of programs that are systems of equality constraints."""

from types import ModuleType as _ModuleType

from lagrad import optim as optim
from lagrad import primitives as primitives
from lagrad import prox as prox
from lagrad.compiler.threads import threads as threads
from lagrad.errors import AccuracyWarning as AccuracyWarning
from lagrad.errors import ForeignValue as ForeignValue
from lagrad.errors import InPlaceUpdate as InPlaceUpdate
from lagrad.errors import InvalidEquation as InvalidEquation
from lagrad.errors import InvalidFunction as InvalidFunction
from lagrad.errors import InvalidName as InvalidName
from lagrad.errors import InvalidValue as InvalidValue
from lagrad.errors import LagradError as LagradError
from lagrad.errors import LeakedValue as LeakedValue
from lagrad.errors import MissingValue as MissingValue
from lagrad.errors import NotContractive as NotContractive
from lagrad.errors import NotConverged as NotConverged
from lagrad.errors import NotFinite as NotFinite
from lagrad.errors import NotPositiveDefinite as NotPositiveDefinite
from lagrad.errors import ProgramFileError as ProgramFileError
from lagrad.errors import ShapeMismatch as ShapeMismatch
from lagrad.errors import SingularSystem as SingularSystem
from lagrad.errors import StructureError as StructureError
from lagrad.errors import StructureMismatch as StructureMismatch
from lagrad.errors import TracedValueError as TracedValueError
from lagrad.errors import UnknownName as UnknownName
from lagrad.errors import UnsupportedFunction as UnsupportedFunction
from lagrad.errors import UnsupportedType as UnsupportedType
from lagrad.errors import WrongDerivative as WrongDerivative
from lagrad.implicit.implicit_functions import argmin as argmin
from lagrad.implicit.implicit_functions import fixed_point as fixed_point
from lagrad.implicit.implicit_functions import root as root
from lagrad.implicit.unrolled import Reversible as Reversible
from lagrad.implicit.unrolled import Unrolled as Unrolled
from lagrad.implicit.warm_start import WarmStart as WarmStart
from lagrad.linear_solvers.base import DenseLU as DenseLU
from lagrad.linear_solvers.cholesky import Cholesky as Cholesky
from lagrad.linear_solvers.external import AMG as AMG
from lagrad.linear_solvers.external import PARDISO as PARDISO
from lagrad.linear_solvers.krylov import CG as CG
from lagrad.linear_solvers.krylov import GMRES as GMRES
from lagrad.linear_solvers.krylov import MINRES as MINRES
from lagrad.linear_solvers.neumann import Neumann as Neumann
from lagrad.linear_solvers.sparse_lu import SparseLU as SparseLU
from lagrad.loops.reversible import reversible as reversible
from lagrad.loops.scan import iterate as iterate
from lagrad.loops.scan import scan as scan
from lagrad.loops.while_loop import while_loop as while_loop
from lagrad.primitives.custom import primitive as primitive
from lagrad.primitives.kernels import logsumexp as logsumexp
from lagrad.primitives.shares import log_softmax as log_softmax
from lagrad.primitives.shares import softmax as softmax
from lagrad.programs.program import Program as Program
from lagrad.programs.solution import Solution as Solution
from lagrad.solving.certificate import Certificate as Certificate
from lagrad.solving.derivative_mapping import Gradient as Gradient
from lagrad.solving.iterations import Anderson as Anderson
from lagrad.solving.iterations import Minimize as Minimize
from lagrad.solving.iterations import Newton as Newton
from lagrad.solving.iterations import Picard as Picard
from lagrad.transforms.check_gradient import check_gradient as check_gradient
from lagrad.transforms.compile import compile as compile  # noqa: A004
from lagrad.transforms.directional import hvp as hvp
from lagrad.transforms.directional import jvp as jvp
from lagrad.transforms.directional import vjp as vjp
from lagrad.transforms.gradient import grad as grad
from lagrad.transforms.gradient import stop_gradient as stop_gradient
from lagrad.transforms.gradient import value_and_grad as value_and_grad
from lagrad.transforms.jacobian import hessian as hessian
from lagrad.transforms.jacobian import jacobian as jacobian
from lagrad.transforms.minimize import minimize as minimize
from lagrad.transforms.traced_program import trace as trace

__version__ = "0.1.0"
_MODULES = (optim, primitives, prox)
# Each public name is imported as itself above, which tells type checkers as much.
__all__ = sorted(
    name
    for name, thing in globals().items()
    if name[0] != "_" and (not isinstance(thing, _ModuleType) or thing in _MODULES)
)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
