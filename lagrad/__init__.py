"""Gradients of programs that are systems of equality constraints."""

from lagrad import optim, primitives, prox
from lagrad.certificate import Certificate
from lagrad.checking import check_gradient
from lagrad.cholesky import Cholesky
from lagrad.compiling import compile  # noqa: A004
from lagrad.conditional import while_loop
from lagrad.declaring import trace
from lagrad.derivatives import Gradient
from lagrad.directional import hvp, jvp, vjp
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
from lagrad.implicit import argmin, fixed_point, root
from lagrad.iterations import Anderson, Minimize, Newton, Picard, WarmStart
from lagrad.jacobians import hessian, jacobian
from lagrad.kernels import logsumexp
from lagrad.krylov import CG, GMRES, MINRES
from lagrad.linear import DenseLU
from lagrad.minimizing import minimize
from lagrad.neumann import Neumann
from lagrad.packages import AMG, PARDISO
from lagrad.parallel import threads
from lagrad.primitives.custom import primitive
from lagrad.primitives.special import softmax
from lagrad.program import Program
from lagrad.reversing import reversible
from lagrad.scanning import iterate, scan
from lagrad.solution import Solution
from lagrad.sparse_lu import SparseLU
from lagrad.stopping import stop_gradient
from lagrad.transforms import grad, value_and_grad
from lagrad.unrolled import Reversible, Unrolled

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
