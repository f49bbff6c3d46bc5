"""The training problems of scikit-learn's linear models, as they write them.

Each is `weight · Σᵢ loss(ηᵢ, yᵢ) + Σⱼ l1ⱼ |wⱼ| + ½ Σⱼ l2ⱼ wⱼ²` with η = X w + b.
"""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from scipy.special import xlogy
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, PoissonRegressor, Ridge
from sklearn.svm import LinearSVR

import lagrad as lg
from lagrad.errors import InvalidValue, UnsupportedType
from lagrad.sklearn.ranges import Range
from lagrad.typing import Array

Values = Mapping[str, Any]
PENALTY = Range(1e-6, 1e6)
# Parameters on which the way to a solution depends, and not the solution.
STEERING = frozenset(
    [
        *("copy_X", "dual", "max_iter", "n_jobs", "precompute", "random_state"),
        *("selection", "solver", "tol", "verbose", "warm_start"),
    ]
)


class Family:
    """One kind of model: its loss, its penalties, and what of it can be tuned.

    Parameters
    ----------
    estimator : scikit-learn estimator
        Whose other parameters hold.
    y : array
        The targets of all samples, as they are coded for the loss.
    """

    tunable: ClassVar[Mapping[str, Range]] = {"alpha": PENALTY}
    # What else of an estimator the objective has.
    stated: ClassVar[frozenset[str]] = frozenset(["fit_intercept"])
    proximal = False

    def __init__(self, estimator: Any, y: Array) -> None:
        self.estimator = estimator
        self._is_stated(estimator)
        self.intercept = bool(estimator.fit_intercept)
        self.outputs: int | None = None  # the number of columns of w, None for a vector

    def _is_stated(self, estimator: Any) -> None:
        """Whatever changes the solution is in the objective, or at its default."""
        known = STEERING | self.stated | set(self.tunable)
        for name, usual in inspect.signature(type(estimator)).parameters.items():
            value = getattr(estimator, name)
            if name not in known and not (value is usual.default or value == usual.default):
                raise InvalidValue(
                    f"{estimator!r}: {name}={value!r} is not supported; leave it out, or search "
                    "without gradients, by sklearn.model_selection.GridSearchCV."
                )

    def _penalized_intercept(self, z: Any) -> Any:
        """The penalty of liblinear, whose intercept is the coefficient of a constant feature."""
        return 0.5 * (self.offset(z) / self.estimator.intercept_scaling) ** 2

    def coded(self, y: Array) -> Array:
        """Targets as floats."""
        return np.asarray(y, dtype=float)

    def loss(self, scores: Any, y: Any, values: Values) -> Any:
        """The loss of each sample, in training."""
        return (scores - y) ** 2

    def held_out(self, scores: Any, y: Any) -> Any:
        """The mean loss of samples that were not trained on."""
        return np.mean(self.loss(scores, y, {}))

    def weight(self, values: Values, samples: int) -> Any:
        """What the sum of losses is multiplied by."""
        return 1.0

    def penalties(self, values: Values) -> tuple[Any, Any]:
        """The coefficients (l1, l2) of the penalty, for all features or for each."""
        return 0.0, values["alpha"]

    def scores(self, X: Any, z: Any) -> Any:
        return X @ z["w"] + self.offset(z)

    def starts(self, features: int) -> dict[str, Array]:
        """Coefficients and intercept of zero."""
        shape, free = ((), ()) if self.outputs is None else ((self.outputs,), (self.outputs - 1,))
        start = {"w": np.zeros((features, *shape))}
        return start | {"b": np.zeros(free)} if self.intercept else start

    def offset(self, z: Any) -> Any:
        """The intercept from what is solved for."""
        if self.outputs is None or "b" not in z:
            return z.get("b", 0.0)
        # A constant added to all classes changes nothing: the last one's is held at zero.
        return np.concatenate([z["b"], np.zeros(1)])

    def training(self, z: Any, X: Any, y: Any, values: Values) -> Any:
        """The objective, of a model whose penalty is smooth."""
        losses = self.loss(self.scores(X, z), y, values)
        squares = z["w"] ** 2 if self.outputs is None else np.sum(z["w"] ** 2, axis=1)
        ridge = 0.5 * np.sum(self.penalties(values)[1] * squares)
        return self.weight(values, y.shape[0]) * np.sum(losses) + ridge

    def solved(self, X: Any, y: Any, values: Values, start: Any, tol: float) -> Any:
        """The trained coefficients, as a function of the hyperparameters."""
        return lg.argmin(lambda z: self.training(z, X, y, values), start, tol=tol)

    def prepared(self, X: Any, y: Array, current: Values) -> Values:
        """Hyperparameters from which a search can start, given the estimator's own."""
        return current

    def near(self, X: Any, y: Array, values: Values, start: Any) -> Any:
        """Where to start, for hyperparameters that are numbers."""
        return start

    def installed(self, estimator: Any, z: Any) -> None:
        """Put trained coefficients into a fitted estimator."""
        estimator.coef_ = np.reshape(z["w"].T, np.shape(estimator.coef_))
        if self.intercept:
            b = np.asarray(self.offset(z))
            estimator.intercept_ = np.reshape(
                b - np.mean(b) * (self.outputs is not None), np.shape(estimator.intercept_)
            )


class RidgeFamily(Family):
    def penalties(self, values: Values) -> tuple[Any, Any]:
        return 0.0, 2.0 * values["alpha"]


class PoissonFamily(Family):
    def coded(self, y: Array) -> Array:
        y = super().coded(y)
        if (y < 0).any():
            raise InvalidValue("Some value(s) of y are out of the valid range of the loss: y >= 0.")
        return y

    def loss(self, scores: Any, y: Any, values: Values) -> Any:
        return np.exp(scores) - y * scores

    def held_out(self, scores: Any, y: Any) -> Any:
        return np.mean(self.loss(scores, y, {}) + xlogy(y, y) - y)

    def weight(self, values: Values, samples: int) -> Any:
        return 1.0 / samples


class SupportVectorFamily(Family):
    """`LinearSVR` with its smooth loss; its intercept is penalised as liblinear does."""

    tunable: ClassVar[Mapping[str, Range]] = {"C": PENALTY, "epsilon": Range(0.0, 1e3, log=False)}
    stated = Family.stated | {"loss", "intercept_scaling"}

    def __init__(self, estimator: Any, y: Array) -> None:
        super().__init__(estimator, y)
        if estimator.loss != "squared_epsilon_insensitive":
            raise InvalidValue(
                f"{estimator!r} has a loss with kinks, whose solution has no derivative at them; "
                "use loss='squared_epsilon_insensitive'."
            )

    def loss(self, scores: Any, y: Any, values: Values) -> Any:
        return np.maximum(np.abs(scores - y) - values["epsilon"], 0.0) ** 2

    def held_out(self, scores: Any, y: Any) -> Any:
        return np.mean(super().loss(scores, y, {}))

    def weight(self, values: Values, samples: int) -> Any:
        return values["C"] if np.ndim(values["C"]) == 0 else 1.0

    def penalties(self, values: Values) -> tuple[Any, Any]:
        return 0.0, 1.0 if np.ndim(values["C"]) == 0 else 1.0 / values["C"]

    def training(self, z: Any, X: Any, y: Any, values: Values) -> Any:
        return super().training(z, X, y, values) + self._penalized_intercept(z)


class LogisticFamily(Family):
    tunable: ClassVar[Mapping[str, Range]] = {"C": PENALTY}
    stated = Family.stated | {"penalty", "l1_ratio", "intercept_scaling"}

    def __init__(self, estimator: Any, y: Array) -> None:
        super().__init__(estimator, y)
        penalty = getattr(estimator, "penalty", "l2")
        if estimator.l1_ratio or penalty in ("l1", "elasticnet"):
            raise InvalidValue(f"{estimator!r} has an l1 penalty; only l2 is tuned by gradient.")
        if penalty is None:
            raise InvalidValue(f"{estimator!r} has no penalty, so that C changes nothing.")
        self.classes = np.unique(y)
        if self.classes.size < 2:
            raise InvalidValue(f"y has one class only, {self.classes[0]!r}; expected two or more.")
        self.outputs = None if self.classes.size == 2 else self.classes.size

    def coded(self, y: Array) -> Array:
        number = np.searchsorted(self.classes, y)
        if self.outputs is None:
            return 2.0 * number - 1.0
        return np.eye(self.outputs)[number]

    def loss(self, scores: Any, y: Any, values: Values) -> Any:
        if self.outputs is None:
            return np.logaddexp(0.0, -y * scores)
        return lg.logsumexp(scores, axis=1) - np.sum(y * scores, axis=1)

    def penalties(self, values: Values) -> tuple[Any, Any]:
        return 0.0, 1.0 / values["C"]

    def training(self, z: Any, X: Any, y: Any, values: Values) -> Any:
        found = super().training(z, X, y, values)
        if self.estimator.solver != "liblinear" or not self.intercept:
            return found
        if np.ndim(values["C"]):
            raise InvalidValue(
                f"{self.estimator!r} has one C for its intercept, and not one per feature; "
                "use another solver, as solver='lbfgs'."
            )
        return found + self._penalized_intercept(z) / values["C"]


class LassoFamily(Family):
    """Squares with an l1 penalty: a proximal fixed point, that coordinate descent leads to."""

    proximal = True

    def penalties(self, values: Values) -> tuple[Any, Any]:
        ratio = values.get("l1_ratio", 1.0)
        return values["alpha"] * ratio, values["alpha"] * (1.0 - ratio)

    def starts(self, features: int) -> dict[str, Array]:
        return {"w": np.zeros(features)}

    def solved(self, X: Any, y: Any, values: Values, start: Any, tol: float) -> Any:
        l1, l2 = self.penalties(values)
        # The step of the quadratic part; that of the penalty is added for each value of it.
        step = 1.0 / (self.curvature + l2)

        def descended(w: Any) -> Any:
            residual = X @ w - y
            if self.intercept:
                residual = residual - np.mean(residual)
            slope = X.T @ residual / y.shape[0] + l2 * w
            return lg.prox.l1(w - step * slope, step * l1)

        w = lg.fixed_point(descended, start["w"], tol=tol)
        return {"w": w, "b": np.mean(y - X @ w)} if self.intercept else {"w": w}

    def prepared(self, X: Any, y: Array, current: Values) -> Values:
        # The step of the descent follows from the largest curvature of the squares.
        probe = np.random.default_rng(0).standard_normal(X.shape[1])
        for _ in range(100):
            probe = X.T @ (X @ (probe / np.linalg.norm(probe)))
        # The power method comes from below.
        self.curvature = 1.02 * float(np.linalg.norm(probe)) / X.shape[0]
        # Beyond this all coefficients are zero, and so is the gradient.
        slopes = X.T @ (y - np.mean(y) * self.intercept)
        largest = float(np.abs(slopes).max()) / X.shape[0] / max(current.get("l1_ratio", 1.0), 1e-3)
        return {**current, "alpha": min(current["alpha"], 0.1 * largest)}

    def near(self, X: Any, y: Array, values: Values, start: Any) -> Any:
        l1, l2 = (np.asarray(p) for p in self.penalties(values))
        if l1.ndim and np.any(l2):
            return start
        # A penalty for each feature is one penalty on scaled features.
        scale = np.broadcast_to(l1, X.shape[1]) if l1.ndim else np.ones(X.shape[1])
        scaled = X / scale if isinstance(X, np.ndarray) else (X / scale).tocsc()
        alpha, ratio = (1.0, 1.0) if l1.ndim else (float(l1 + l2), float(l1 / (l1 + l2)))
        model = ElasticNet(
            alpha=alpha, l1_ratio=ratio, fit_intercept=self.intercept, tol=1e-12, max_iter=100_000
        )
        return {"w": model.fit(scaled, y).coef_ / scale}


class ElasticNetFamily(LassoFamily):
    tunable: ClassVar[Mapping[str, Range]] = {
        "alpha": PENALTY,
        "l1_ratio": Range(1e-3, 1.0, log=False),
    }


FAMILIES: dict[type, type[Family]] = {
    Lasso: LassoFamily,
    ElasticNet: ElasticNetFamily,
    Ridge: RidgeFamily,
    LogisticRegression: LogisticFamily,
    PoissonRegressor: PoissonFamily,
    LinearSVR: SupportVectorFamily,
}


def family_of(estimator: Any) -> type[Family]:
    """The family of an estimator; UnsupportedType for one that is not differentiated."""
    if type(estimator) not in FAMILIES:
        names = ", ".join(kind.__name__ for kind in FAMILIES)
        raise UnsupportedType(f"{estimator!r} is not tuned by gradient; expected one of {names}.")
    return FAMILIES[type(estimator)]
