"""`GradientSearchCV`: a scikit-learn estimator that tunes another one by hypergradient."""

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.optimize
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import check_cv
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from tqdm.auto import tqdm

import lagrad as lg
from lagrad.errors import InvalidValue, LagradError, SingularSystem
from lagrad.sklearn.families import Family, family_of
from lagrad.sklearn.ranges import Hyperparameters, checked_ranges
from lagrad.transforms.gradient import Certified
from lagrad.typing import Array

# Inner solves of "decreasing" tolerance: HOAG's rule in three steps, so that a trace serves many.
TOLERANCES = (1e-3, 1e-6, 1e-10)
# How far beside a knot the gradient is taken, in the logarithm.
BESIDE = 1e-6


class Fold:
    """The held-out loss of one split, as a function of the hyperparameters."""

    def __init__(
        self, family: Family, hyper: Hyperparameters, data: tuple[Any, Array, Any, Array]
    ) -> None:
        self.family, self.hyper, self.data = family, hyper, data
        self.start = family.starts(data[0].shape[1])
        self.functions: dict[float, Any] = {}

    def function(self, tol: float) -> Any:
        """Loss, gradient and certificate, with inner solves to a tolerance."""
        family, hyper = self.family, self.hyper

        def loss(vector: Any, start: Any, X: Any, y: Any, V: Any, u: Any) -> Any:
            z = family.solved(X, y, hyper.values(vector), start, tol)
            return family.held_out(family.scores(V, z), u), z

        if tol not in self.functions:
            certified = Certified(loss, 0, max(1e-6, 1e3 * tol), "raise")
            self.functions[tol] = lg.compile(certified)
        return self.functions[tol]

    def __call__(self, vector: Array, tol: float) -> tuple[float, Array, Any]:
        """Loss, gradient and certificate; at a knot of the lasso's path, those beside it.

        A loss with knots is often smallest at one, where there is a gradient on either side.
        """
        for aside in (0.0, BESIDE):
            try:
                return self._at(vector + aside, tol)
            except SingularSystem:
                if not self.family.proximal:
                    raise
        return self._at(vector - BESIDE, tol)

    def _at(self, vector: Array, tol: float) -> tuple[float, Array, Any]:
        X, y, V, u = self.data
        near = self.family.near(X, y, self.hyper.values(vector), self.start)
        (value, z), gradient, certificate = self.function(tol)(vector, near, X, y, V, u)
        self.start = {name: np.asarray(z[name]) for name in self.start}
        return float(value), np.asarray(gradient), certificate


def delegated(name: str) -> Any:
    """Whether the inner estimator has a method."""
    return available_if(lambda self: hasattr(self._inner(), name))


class GradientSearchCV(MetaEstimatorMixin, BaseEstimator):
    """Tune continuous hyperparameters of a linear model by the gradient of its held-out loss.

    The gradient is that of the mean loss over held-out folds, through the trained coefficients:
    one linear system for each fold, however many hyperparameters there are. So there may be one
    for each feature, where no grid can go.

    Parameters
    ----------
    estimator : estimator
        `Ridge`, `LogisticRegression` (l2), `Lasso`, `ElasticNet`, `PoissonRegressor` or
        `LinearSVR` (smooth loss).
    parameters : dict, optional
        From the name of a hyperparameter to `(low, high)`, to a `Range`, or to None for its usual
        range. By default the strength of the penalty.
    cv : int, splitter or iterable
        As of scikit-learn.
    max_iter : int
        Steps of the outer search, by L-BFGS-B in the logarithm of the hyperparameters.
    tol : float
        The relative change of the loss at which it ends.
    tolerance : "decreasing" or float
        How precisely inner problems are solved: from loose to tight as the search converges
        (HOAG's rule), or always to this relative error.
    refit : bool
        Whether to fit `best_estimator_` on all samples.
    n_jobs : int, optional
        How many folds are computed at once, as of joblib.
    progress : bool
        Whether to show a progress bar.

    Attributes
    ----------
    best_params_ : dict
        Floats, or arrays of shape (n_features,).
    best_loss_ : float
        The mean held-out loss: squared error, log-loss, or half the Poisson deviance.
    best_estimator_ : estimator
        Fitted with them; with a penalty for each feature its coefficients are those of that.
    cv_results_ : dict of arrays
        `loss`, `gradient_norm`, `error_bound`, `seconds` and `params` for each evaluation.

    References
    ----------
    Pedregosa (2016), Hyperparameter optimization with approximate gradient, arXiv:1602.02355.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.linear_model import Ridge
    >>> from lagrad.sklearn import GradientSearchCV, Range
    >>> X, y = load_diabetes(return_X_y=True)
    >>> search = GradientSearchCV(Ridge(), {"alpha": Range(1e-4, 1e4, per="feature")}).fit(X, y)
    >>> search.best_params_["alpha"].shape
    (10,)
    """

    def __init__(
        self,
        estimator: Any,
        parameters: Any = None,
        *,
        cv: Any = 5,
        max_iter: int = 50,
        tol: float = 1e-6,
        tolerance: str | float = "decreasing",
        refit: bool = True,
        n_jobs: int | None = None,
        progress: bool = False,
    ) -> None:
        self.estimator = estimator
        self.parameters = parameters
        self.cv = cv
        self.max_iter = max_iter
        self.tol = tol
        self.tolerance = tolerance
        self.refit = refit
        self.n_jobs = n_jobs
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> "GradientSearchCV":
        """Search the hyperparameters, and fit the model with the best.

        Parameters
        ----------
        X : array or sparse matrix, shape (n_samples, n_features)
        y : array, shape (n_samples,)

        Returns
        -------
        GradientSearchCV
            Itself.

        Raises
        ------
        InvalidValue, UnknownName, UnsupportedType
            Parameters, folds or an estimator that do not fit.
        NotConverged, SingularSystem
            A training problem whose solution cannot be certified.
        """
        kind, classifier = family_of(self.estimator), is_classifier(self.estimator)
        X, y = validate_data(
            self, X, y, accept_sparse="csr", dtype=np.float64, y_numeric=not classifier
        )
        if classifier:
            check_classification_targets(y)
        family = kind(self.estimator, y)
        ranges = checked_ranges(self.parameters, family.tunable, self.estimator)
        current = self.estimator.get_params(deep=False)
        fixed = {k: current[k] for k in family.tunable if k not in ranges}
        target = family.coded(y)
        hyper = Hyperparameters(ranges, family.prepared(X, target, current), fixed, X.shape[1])
        folds = [
            Fold(family, hyper, (X[train], target[train], X[test], target[test]))
            for train, test in self._splits(X, y)
        ]
        search = Search(self, folds, hyper)
        self.best_loss_, best = search.run()
        self.best_params_ = hyper.shown(best)
        self.cv_results_ = search.results()
        self.n_iter_ = max(1, search.steps)
        if self.refit:
            self.best_estimator_ = self._refitted(family, hyper.values(best), X, y, target)
            if hasattr(self.best_estimator_, "classes_"):
                self.classes_ = self.best_estimator_.classes_
        return self

    def _splits(self, X: Any, y: Array) -> list[tuple[Array, Array]]:
        classifier = is_classifier(self.estimator)
        cv = check_cv(self.cv, y, classifier=classifier)
        splits = [(np.asarray(a), np.asarray(b)) for a, b in cv.split(X, y)]
        if not splits:
            raise InvalidValue(f"cv={self.cv!r} has no splits.")
        for k, (train, test) in enumerate(splits):
            if not train.size or not test.size:
                side = "training" if not train.size else "held-out"
                raise InvalidValue(f"split {k} of cv={self.cv!r} has an empty {side} fold.")
            missing = list(np.setdiff1d(y, y[train])) if classifier else []
            if missing:
                raise InvalidValue(
                    f"split {k} of cv={self.cv!r} has no sample of class {missing[0]!r} to train "
                    "on; use fewer folds, or stratified ones."
                )
        return splits

    def _refitted(
        self, family: Family, values: Mapping[str, Any], X: Any, y: Array, target: Array
    ) -> Any:
        best = self.best_params_
        many = {k: float(np.exp(np.mean(np.log(v)))) for k, v in best.items() if np.ndim(v)}
        with warnings.catch_warnings():
            if many:
                # Its coefficients are replaced: whether these converged says nothing.
                warnings.simplefilter("ignore", ConvergenceWarning)
            model = clone(self.estimator).set_params(**{**best, **many}).fit(X, y)
        if many:
            start = family.near(X, target, values, family.starts(X.shape[1]))
            family.installed(model, family.solved(X, target, values, start, 1e-10))
        return model

    def _inner(self) -> Any:
        return getattr(self, "best_estimator_", self.estimator)

    def _fitted(self) -> Any:
        check_is_fitted(self, "best_params_")
        if not hasattr(self, "best_estimator_"):
            raise InvalidValue("refit=False left no estimator to predict with.")
        return self.best_estimator_

    @delegated("predict")
    def predict(self, X: Any) -> Array:
        """Return the predictions of the best model."""
        return self._fitted().predict(self._given(X))

    @delegated("predict_proba")
    def predict_proba(self, X: Any) -> Array:
        """Return the probabilities of the best model."""
        return self._fitted().predict_proba(self._given(X))

    @delegated("predict_log_proba")
    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of the best model's probabilities."""
        return self._fitted().predict_log_proba(self._given(X))

    @delegated("decision_function")
    def decision_function(self, X: Any) -> Array:
        """Return the scores of the best model."""
        return self._fitted().decision_function(self._given(X))

    @delegated("score")
    def score(self, X: Any, y: Any) -> float:
        """Return the score of the best model: accuracy, or the explained share of variance."""
        return float(self._fitted().score(self._given(X), y))

    def _given(self, X: Any) -> Any:
        return validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=False)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = self.estimator.__sklearn_tags__()
        for name in ("estimator_type", "classifier_tags", "regressor_tags"):
            setattr(tags, name, getattr(inner, name))
        tags.target_tags.required = True
        tags.target_tags.positive_only = inner.target_tags.positive_only
        tags.input_tags.sparse = inner.input_tags.sparse
        return tags


class Search:
    """One outer minimisation over all folds."""

    def __init__(self, owner: GradientSearchCV, folds: Sequence[Fold], hyper: Hyperparameters):
        self.owner, self.folds, self.hyper = owner, folds, hyper
        self.tolerances = self._tolerances(owner.tolerance)
        self.rows: list[dict[str, Any]] = []
        self.best: tuple[float, Array] = (np.inf, hyper.start)
        self.steps = 0

    @staticmethod
    def _tolerances(given: Any) -> tuple[float, ...]:
        if given == "decreasing":
            return TOLERANCES
        if isinstance(given, (int, float)) and 0 < given < 1:
            return (float(given),)
        raise InvalidValue(f"tolerance={given!r}; expected 'decreasing' or a number in (0, 1).")

    def run(self) -> tuple[float, Array]:
        """The least loss and its place: each tolerance's search starts where the last one ended."""
        owner, point = self.owner, self.hyper.start
        if not isinstance(owner.max_iter, (int, np.integer)) or owner.max_iter < 1:
            raise InvalidValue(f"max_iter={owner.max_iter!r}; expected one or more.")
        share = owner.max_iter // 4
        bar = tqdm(total=owner.max_iter, desc="hypergradient", disable=not owner.progress)
        with bar, Parallel(n_jobs=owner.n_jobs, prefer="threads") as parallel:
            for k, tol in enumerate(self.tolerances):
                last = k == len(self.tolerances) - 1
                # Losses that were loosely solved are not comparable with those that were not.
                self.best = (np.inf, point)
                result = scipy.optimize.minimize(
                    lambda v, tol=tol: self.evaluate(v, tol, parallel, bar),
                    point,
                    jac=True,
                    method="L-BFGS-B",
                    bounds=scipy.optimize.Bounds(*self.hyper.bounds),
                    options={
                        "maxiter": max(1, owner.max_iter - self.steps if last else share),
                        "ftol": max(owner.tol, tol if not last else 0.0),
                        "gtol": 1e-10,
                    },
                )
                self.steps += int(result.nit)
                point = self.best[1]
        return self.best

    def evaluate(self, vector: Array, tol: float, parallel: Any, bar: Any) -> tuple[float, Array]:
        """The mean held-out loss and its gradient."""
        began = time.perf_counter()
        try:
            found = parallel(delayed(fold)(vector, tol) for fold in self.folds)
        except LagradError as error:
            error.add_note(f"at {self.hyper.shown(vector)}, of {self.owner.estimator!r}.")
            raise
        losses, gradients, certificates = zip(*found, strict=True)
        loss, gradient = float(np.mean(losses)), np.mean(gradients, axis=0)
        self.rows.append(
            {
                "loss": loss,
                "gradient_norm": float(np.linalg.norm(gradient)),
                "error_bound": max(c.error_bound for c in certificates),
                "seconds": time.perf_counter() - began,
                "params": self.hyper.shown(vector),
            }
        )
        bar.update(1)
        bar.set_postfix(loss=f"{loss:.6g}", gradient=f"{self.rows[-1]['gradient_norm']:.2g}")
        if loss < self.best[0]:
            self.best = (loss, np.array(vector))
        return loss, gradient

    def results(self) -> dict[str, Any]:
        """One array for each thing known of each evaluation."""
        found: dict[str, Any] = {key: [row[key] for row in self.rows] for key in self.rows[0]}
        return {k: v if k == "params" else np.array(v) for k, v in found.items()}
