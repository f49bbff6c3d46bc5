"""Hyperparameters of scikit-learn's linear models, tuned by their gradient (extra `sklearn`)."""

from lagrad.sklearn.ranges import Range
from lagrad.sklearn.search import GradientSearchCV

__all__ = ["GradientSearchCV", "Range"]
