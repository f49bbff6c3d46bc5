"""GradientSearchCV against scikit-learn's own cross-validation, and its own checks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import lagrad as lg

pytest.importorskip("sklearn")
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    SGDClassifier,
)
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.svm import LinearSVR
from sklearn.utils.estimator_checks import parametrize_with_checks

from lagrad.sklearn import GradientSearchCV, Range

DIABETES = load_diabetes(return_X_y=True)
TIGHT = {"tol": 1e-9, "max_iter": 100_000}


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([GradientSearchCV(Ridge(), cv=3)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [GradientSearchCV(e, cv=3) for e in (LogisticRegression(), Lasso(), PoissonRegressor())]
)
def test_scikit_learns_own_checks_of_other_models(estimator, check):
    check(estimator)


SCORED = {
    "ridge": (Ridge(), "alpha", "neg_mean_squared_error", 1.0),
    "lasso": (Lasso(**TIGHT), "alpha", "neg_mean_squared_error", 1.0),
    "elastic net": (ElasticNet(**TIGHT), "alpha", "neg_mean_squared_error", 1.0),
    "poisson": (PoissonRegressor(**TIGHT), "alpha", "neg_mean_poisson_deviance", 0.5),
    "support vectors": (
        LinearSVR(loss="squared_epsilon_insensitive", **TIGHT),
        "C",
        "neg_mean_squared_error",
        1.0,
    ),
}


@pytest.mark.parametrize("case", SCORED)
def test_the_loss_is_that_of_cross_validation_and_nearby_ones_are_no_better(case):
    model, name, scoring, factor = SCORED[case]
    search = GradientSearchCV(model, {name: (1e-3, 1e3)}, cv=3).fit(*DIABETES)
    best = search.best_params_[name]

    def loss(value):
        model.set_params(**{name: value})
        return -factor * cross_val_score(model, *DIABETES, cv=3, scoring=scoring).mean()

    assert search.best_loss_ == pytest.approx(loss(best), rel=1e-6)
    inside = [v for v in (0.8 * best, 1.25 * best) if 1e-3 <= v <= 1e3]
    assert all(search.best_loss_ <= loss(value) * (1 + 1e-7) for value in inside)


def test_logistic_regression_of_two_and_of_three_classes():
    for X, y in (load_breast_cancer(return_X_y=True), load_iris(return_X_y=True)):
        X = (X - X.mean(axis=0)) / X.std(axis=0)
        search = GradientSearchCV(LogisticRegression(), {"C": (1e-3, 1e3)}, cv=3).fit(X, y)
        model = LogisticRegression(tol=1e-9, max_iter=10_000, **search.best_params_)
        scores = cross_val_score(model, X, y, cv=3, scoring="neg_log_loss")
        assert search.best_loss_ == pytest.approx(-scores.mean(), rel=1e-6)
        assert search.predict_proba(X[:2]).shape == (2, np.unique(y).size)
        assert search.score(X, y) > 0.95


CLASSIFIED = np.random.default_rng(1).standard_normal((60, 4))
TWO = (CLASSIFIED @ [1.0, -1.0, 0.0, 0.3] + 0.5 * CLASSIFIED[::-1, 0] > -1.5).astype(int)


@pytest.mark.parametrize("scaling", [1.0, 0.3, 20.0])
@pytest.mark.parametrize("bounds", [(1e-3, 1e-1), (1e-2, 1e2)])
def test_liblinear_penalizes_its_intercept(scaling, bounds):
    model = LogisticRegression(
        solver="liblinear", intercept_scaling=scaling, tol=1e-10, max_iter=10_000
    )
    search = GradientSearchCV(model, {"C": bounds}, cv=3).fit(CLASSIFIED, TWO)

    def loss(value):
        model.set_params(C=value)
        return -cross_val_score(model, CLASSIFIED, TWO, cv=3, scoring="neg_log_loss").mean()

    best = search.best_params_["C"]
    assert search.best_loss_ == pytest.approx(loss(best), rel=1e-6)
    inside = [v for v in (0.8 * best, 1.25 * best) if bounds[0] <= v <= bounds[1]]
    assert all(search.best_loss_ <= loss(value) * (1 + 1e-7) for value in inside)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Ridge(positive=True), "positive=True is not supported"),
        (Lasso(positive=True), "positive=True is not supported"),
        (ElasticNet(positive=True), "positive=True is not supported"),
        (LogisticRegression(class_weight="balanced"), "class_weight='balanced' is not supported"),
        (LogisticRegression(penalty=None), "C changes nothing"),
    ],
)
def test_what_changes_the_solution_and_is_not_in_the_objective_is_named(model, message):
    with pytest.raises(lg.InvalidValue, match=message):
        GradientSearchCV(model).fit(CLASSIFIED, TWO)


def test_what_only_steers_a_solver_is_let_through():
    for model in (
        Ridge(solver="lsqr", max_iter=1000, copy_X=True, random_state=0, tol=1e-10),
        Lasso(selection="random", random_state=0, precompute=True, warm_start=True, **TIGHT),
        LogisticRegression(solver="newton-cholesky", verbose=0, **TIGHT),
    ):
        assert GradientSearchCV(model, cv=3).fit(CLASSIFIED, TWO).best_loss_ > 0


def test_liblinear_has_one_penalty_for_its_intercept():
    search = GradientSearchCV(
        LogisticRegression(solver="liblinear"), {"C": Range(0.1, 1, per="feature")}
    )
    with pytest.raises(lg.InvalidValue, match="solver='lbfgs'"):
        search.fit(CLASSIFIED, TWO)
    model = LogisticRegression(solver="liblinear", fit_intercept=False)
    ranges = {"C": Range(0.1, 1, per="feature")}
    assert GradientSearchCV(model, ranges).fit(CLASSIFIED, TWO).best_loss_ > 0


def test_one_penalty_for_each_feature_beats_one_for_all():
    single = GradientSearchCV(Ridge(), {"alpha": (1e-4, 1e4)}).fit(*DIABETES)
    each = GradientSearchCV(Ridge(), {"alpha": Range(1e-4, 1e4, per="feature")}).fit(*DIABETES)
    assert each.best_loss_ < single.best_loss_ - 10
    alpha = each.best_params_["alpha"]
    assert alpha.shape == (10,)
    # Its coefficients are those of the penalty matrix diag(alpha), by the normal equations.
    X, y = DIABETES
    centred, target = X - X.mean(axis=0), y - y.mean()
    w = np.linalg.solve(centred.T @ centred + np.diag(alpha), centred.T @ target)
    assert each.best_estimator_.coef_ == pytest.approx(w, rel=1e-7)
    assert each.predict(X[:1]) == pytest.approx(y.mean() + (X[:1] - X.mean(axis=0)) @ w)


def test_groups_share_a_penalty():
    groups = np.array([0, 0, 1, 1, 1, 2, 2, 2, 2, 2])
    search = GradientSearchCV(Ridge(), {"alpha": Range(1e-4, 1e4, per=groups)}).fit(*DIABETES)
    alpha = search.best_params_["alpha"]
    assert np.unique(alpha).size == 3
    assert alpha[0] == alpha[1]


def test_two_hyperparameters_and_one_of_them_linear():
    ranges = {"alpha": (1e-3, 10.0), "l1_ratio": (0.05, 0.95)}
    search = GradientSearchCV(ElasticNet(**TIGHT), ranges, cv=3).fit(*DIABETES)
    assert 0.05 <= search.best_params_["l1_ratio"] <= 0.95
    model = ElasticNet(**TIGHT, **search.best_params_)
    scores = cross_val_score(model, *DIABETES, cv=3, scoring="neg_mean_squared_error")
    assert search.best_loss_ == pytest.approx(-scores.mean(), rel=1e-6)


def test_sparse_features_give_the_same():
    X, y = DIABETES
    X = np.where(np.abs(X) > 0.05, X, 0.0)
    for model in (Ridge(), Lasso(**TIGHT)):
        dense = GradientSearchCV(model, {"alpha": (1e-3, 10.0)}, cv=3).fit(X, y)
        thin = GradientSearchCV(model, {"alpha": (1e-3, 10.0)}, cv=3).fit(sparse.csr_array(X), y)
        assert thin.best_loss_ == pytest.approx(dense.best_loss_, rel=1e-7)


def test_what_is_known_of_each_evaluation():
    search = GradientSearchCV(Ridge(), cv=3, tolerance=1e-8, n_jobs=2).fit(*DIABETES)
    results = search.cv_results_
    count = len(results["params"])
    assert {len(results[k]) for k in ("loss", "gradient_norm", "error_bound", "seconds")} == {count}
    assert results["error_bound"].max() < 1e-6
    assert results["loss"].min() == search.best_loss_
    k = int(np.argmin(results["loss"]))
    assert results["params"][k] == search.best_params_


def test_the_gradient_is_that_of_the_loss():
    search = GradientSearchCV(Ridge(), cv=3, tolerance=1e-10).fit(*DIABETES)
    assert search.cv_results_["gradient_norm"][0] > 1.0
    assert search.cv_results_["gradient_norm"][-1] < 1e-2


def test_a_progress_bar_on_request(capsys):
    GradientSearchCV(Ridge(), cv=3, progress=True).fit(*DIABETES)
    assert "hypergradient" in capsys.readouterr().err


CLASSES = np.array([0, 0, 1, 1] * 10)
ROWS = np.random.default_rng(0).standard_normal((40, 3))
BAD = {
    "estimator": (GradientSearchCV(SGDClassifier()), lg.UnsupportedType, "SGDClassifier"),
    "l1": (GradientSearchCV(LogisticRegression(l1_ratio=0.5)), lg.InvalidValue, "l1"),
    "kinked loss": (GradientSearchCV(LinearSVR()), lg.InvalidValue, "squared_epsilon"),
    "name": (GradientSearchCV(Ridge(), {"alhpa": (1, 2)}), lg.UnknownName, "'alpha'"),
    "empty": (GradientSearchCV(Ridge(), {}), lg.InvalidValue, "empty"),
    "bounds": (GradientSearchCV(Ridge(), {"alpha": (2.0, 1.0)}), lg.InvalidValue, "low < high"),
    "value": (GradientSearchCV(Ridge(), {"alpha": 3.0}), lg.InvalidValue, "Range"),
    "groups": (
        GradientSearchCV(Ridge(), {"alpha": Range(1e-3, 1.0, per=[0, 1])}),
        lg.InvalidValue,
        "3 features",
    ),
    "tolerance": (GradientSearchCV(Ridge(), tolerance="x"), lg.InvalidValue, "tolerance"),
    "max_iter": (GradientSearchCV(Ridge(), max_iter=0), lg.InvalidValue, "max_iter"),
    "empty fold": (
        GradientSearchCV(Ridge(), cv=[(np.arange(40), np.arange(0))]),
        lg.InvalidValue,
        "empty held-out fold",
    ),
    "class missing": (
        GradientSearchCV(LogisticRegression(), cv=PredefinedSplit(CLASSES)),
        lg.InvalidValue,
        "no sample of class",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    search, error, message = BAD[case]
    with pytest.raises(error, match=message):
        search.fit(ROWS, CLASSES)


def test_a_start_outside_its_bounds():
    with pytest.raises(lg.InvalidValue, match=r"start 5.0 is outside its bounds \[0.1, 1\]"):
        Range(0.1, 1.0, start=5.0)
