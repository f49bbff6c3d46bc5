"""The problems whose hyperparameter gradients are known to many digits."""

from __future__ import annotations

import numpy as np
import pytest

import lagrad as lg

datasets = pytest.importorskip("sklearn.datasets")


def ridge_split():
    data = datasets.load_diabetes()
    y = data.target - data.target.mean()
    return data.data[:300], y[:300], data.data[300:], y[300:]


def logistic_split():
    data = datasets.load_breast_cancer()
    X = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    y = np.where(data.target > 0, 1.0, -1.0)
    return X[:400], y[:400], X[400:], y[400:]


def ridge(lam, **options):
    X, y, V, u = ridge_split()
    train = lambda w: 0.5 * np.sum((X @ w - y) ** 2) + 0.5 * lam * np.sum(w**2)
    return 0.5 * np.mean((V @ lg.argmin(train, np.zeros(10), **options) - u) ** 2)


def ridge_by_hand(lam):
    """Loss, first and second derivative by the closed form."""
    X, y, V, u = ridge_split()
    H = X.T @ X + lam * np.eye(10)
    w = np.linalg.solve(H, X.T @ y)
    dw = -np.linalg.solve(H, w)
    ddw = -2 * np.linalg.solve(H, dw)
    r = V @ w - u
    first = np.mean(r * (V @ dw))
    return 0.5 * np.mean(r**2), first, np.mean((V @ dw) ** 2 + r * (V @ ddw))


def logistic(alpha, **options):
    X, y, V, u = logistic_split()
    train = lambda w: np.sum(np.logaddexp(0, -y * (X @ w))) + 0.5 * np.sum(alpha * w**2)
    return np.sum(np.logaddexp(0, -u * (V @ lg.argmin(train, np.zeros(30), **options))))


def lasso(log_alpha, **options):
    X, y, V, u = ridge_split()
    step = 1.0 / np.linalg.eigvalsh(X.T @ X / 300)[-1]
    descend = lambda w: lg.prox.l1(w - step * (X.T @ (X @ w - y)) / 300, step * np.exp(log_alpha))
    return np.mean((V @ lg.fixed_point(descend, np.zeros(10), **options) - u) ** 2)
