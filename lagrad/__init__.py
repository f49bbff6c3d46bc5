"""Gradients of programs that are systems of equality constraints."""

from lagrad import primitives
from lagrad.certificate import Certificate
from lagrad.derivatives import Gradient
from lagrad.errors import (
    AccuracyWarning,
    ForeignValue,
    InPlaceUpdate,
    InvalidEquation,
    InvalidName,
    InvalidValue,
    LagradError,
    MissingValue,
    NotConverged,
    NotFinite,
    ProgramFileError,
    ShapeMismatch,
    SingularSystem,
    StructureError,
    TracedValueError,
    UnknownName,
    UnsupportedFunction,
    UnsupportedType,
)
from lagrad.kernels import logsumexp, stop_gradient
from lagrad.linear import CG, GMRES, DenseLU, SparseLU
from lagrad.nonlinear import Newton
from lagrad.primitives.custom import primitive
from lagrad.primitives.special import softmax
from lagrad.program import Program
from lagrad.solution import Solution

__all__ = [
    "CG",
    "GMRES",
    "AccuracyWarning",
    "Certificate",
    "DenseLU",
    "ForeignValue",
    "Gradient",
    "InPlaceUpdate",
    "InvalidEquation",
    "InvalidName",
    "InvalidValue",
    "LagradError",
    "MissingValue",
    "Newton",
    "NotConverged",
    "NotFinite",
    "Program",
    "ProgramFileError",
    "ShapeMismatch",
    "SingularSystem",
    "Solution",
    "SparseLU",
    "StructureError",
    "TracedValueError",
    "UnknownName",
    "UnsupportedFunction",
    "UnsupportedType",
    "logsumexp",
    "primitive",
    "primitives",
    "softmax",
    "stop_gradient",
]
__version__ = "0.1.0"
