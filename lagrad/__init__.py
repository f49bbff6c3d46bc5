"""Gradients of programs that are systems of equality constraints."""

from lagrad import optim, prox
from lagrad.compiler.threads import threads
from lagrad.errors import (
    AccuracyWarning,
    ForeignValue,
    InPlaceUpdate,
    InvalidEquation,
    InvalidFunction,
    InvalidName,
    InvalidValue,
    LagradError,
    LeakedValue,
    MissingValue,
    NotContractive,
    NotConverged,
    NotFinite,
    NotPositiveDefinite,
    ProgramFileError,
    ShapeMismatch,
    SingularSystem,
    StructureError,
    StructureMismatch,
    TracedValueError,
    UnknownName,
    UnsupportedFunction,
    UnsupportedType,
    WrongDerivative,
)
from lagrad.implicit.implicit_functions import argmin, fixed_point, root
from lagrad.implicit.unrolled import Reversible, Unrolled
from lagrad.implicit.warm_start import WarmStart
from lagrad.linear_solvers.base import DenseLU
from lagrad.linear_solvers.cholesky import Cholesky
from lagrad.linear_solvers.external import AMG, PARDISO
from lagrad.linear_solvers.krylov import CG, GMRES, MINRES
from lagrad.linear_solvers.neumann import Neumann
from lagrad.linear_solvers.sparse_lu import SparseLU
from lagrad.loops.reversible import reversible
from lagrad.loops.scan import iterate, scan
from lagrad.loops.while_loop import while_loop
from lagrad.primitives.custom import primitive
from lagrad.primitives.kernels import logsumexp
from lagrad.primitives.special import softmax
from lagrad.programs.program import Program
from lagrad.programs.solution import Solution
from lagrad.solving.certificate import Certificate
from lagrad.solving.derivatives import Gradient
from lagrad.solving.iterations import Anderson, Minimize, Newton, Picard
from lagrad.transforms.check_gradient import check_gradient
from lagrad.transforms.compile import compile  # noqa: A004
from lagrad.transforms.directional import hvp, jvp, vjp
from lagrad.transforms.gradient import grad, stop_gradient, value_and_grad
from lagrad.transforms.jacobian import hessian, jacobian
from lagrad.transforms.minimize import minimize
from lagrad.transforms.traced_program import trace

__all__ = [
    "AMG",
    "CG",
    "GMRES",
    "MINRES",
    "PARDISO",
    "AccuracyWarning",
    "Anderson",
    "Certificate",
    "Cholesky",
    "DenseLU",
    "ForeignValue",
    "Gradient",
    "InPlaceUpdate",
    "InvalidEquation",
    "InvalidFunction",
    "InvalidName",
    "InvalidValue",
    "LagradError",
    "LeakedValue",
    "Minimize",
    "MissingValue",
    "Neumann",
    "Newton",
    "NotContractive",
    "NotConverged",
    "NotFinite",
    "NotPositiveDefinite",
    "Picard",
    "Program",
    "ProgramFileError",
    "Reversible",
    "ShapeMismatch",
    "SingularSystem",
    "Solution",
    "SparseLU",
    "StructureError",
    "StructureMismatch",
    "TracedValueError",
    "UnknownName",
    "Unrolled",
    "UnsupportedFunction",
    "UnsupportedType",
    "WarmStart",
    "WrongDerivative",
    "argmin",
    "check_gradient",
    "compile",
    "fixed_point",
    "grad",
    "hessian",
    "hvp",
    "iterate",
    "jacobian",
    "jvp",
    "logsumexp",
    "minimize",
    "optim",
    "primitive",
    "primitives",
    "prox",
    "reversible",
    "root",
    "scan",
    "softmax",
    "stop_gradient",
    "threads",
    "trace",
    "value_and_grad",
    "vjp",
    "while_loop",
]
__version__ = "0.1.0"


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
