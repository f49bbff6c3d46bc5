"""The same Bratu problem in other libraries, where they install (extra `bench`)."""

from __future__ import annotations

import importlib.util

import numpy as np

from .bratu import LAM, TOL, laplacian, with_lagrad
from .timing import Row, ratio, seconds


def with_casadi(n: int) -> tuple[float, float]:
    import casadi

    A = laplacian(n).tocsc()
    h2 = 1.0 / (n + 1) ** 2
    pattern = casadi.Sparsity(n * n, n * n, A.indptr.tolist(), A.indices.tolist())
    u, lam = casadi.MX.sym("u", n * n), casadi.MX.sym("lam")
    residual = casadi.DM(pattern, A.data) @ u + h2 * lam * casadi.exp(u)
    options = {"abstol": TOL, "linear_solver": "csparse"}
    problem = {"x": u, "p": lam, "g": residual}
    solver = casadi.rootfinder("solver", "newton", problem, options)
    J = h2 * casadi.sum1(solver(casadi.DM.zeros(n * n), lam))
    both = casadi.Function("both", [lam], [J, casadi.gradient(J, lam)])
    value, gradient = both(LAM)
    return float(value), float(gradient)


def with_openmdao(n: int) -> tuple[float, float]:
    import openmdao.api as om

    A = laplacian(n).tocsr()
    entries = A.tocoo()
    h2 = 1.0 / (n + 1) ** 2
    size = n * n
    diagonal = np.flatnonzero(entries.row == entries.col)

    class Heat(om.ImplicitComponent):
        def setup(self):
            self.add_input("lam", LAM)
            self.add_output("u", np.zeros(size))
            self.declare_partials("u", "u", rows=entries.row, cols=entries.col)
            self.declare_partials("u", "lam")

        def apply_nonlinear(self, inputs, outputs, residuals):
            residuals["u"] = A @ outputs["u"] + h2 * inputs["lam"] * np.exp(outputs["u"])

        def linearize(self, inputs, outputs, partials):
            e = h2 * np.exp(outputs["u"])
            values = entries.data.copy()
            values[diagonal] += inputs["lam"] * e
            partials["u", "u"] = values
            partials["u", "lam"] = e

    problem = om.Problem(reports=False)
    problem.model.add_subsystem("heat", Heat(), promotes=["*"])
    problem.model.add_subsystem(
        "total", om.ExecComp(f"J = {h2!r} * sum(u)", u=np.zeros(size)), promotes=["*"]
    )
    problem.model.nonlinear_solver = om.NewtonSolver(solve_subsystems=False, iprint=-1, rtol=TOL)
    problem.model.linear_solver = om.DirectSolver(assemble_jac=True)
    problem.model.options["assembled_jac_type"] = "csc"
    problem.setup()
    problem.run_model()
    total = problem.compute_totals(of=["J"], wrt=["lam"])
    return float(problem["J"][0]), float(total["J", "lam"][0, 0])


PEERS = {"casadi": with_casadi, "openmdao": with_openmdao}


def rows(full: bool) -> list[Row]:
    found = []
    for name, run in PEERS.items():
        if importlib.util.find_spec(name) is None:
            found.append(Row(f"2-D Bratu in {name}", "lagrad / peer", None, None, "not installed"))
            continue
        for n in (64, 128, *((256,) if full else ())):
            A = laplacian(n)
            np.testing.assert_allclose(run(n), with_lagrad(A, n), rtol=1e-6)
            r, ours, theirs = ratio(
                lambda A=A, n=n: with_lagrad(A, n), lambda n=n, run=run: run(n), 3
            )
            note = f"{seconds(ours)} beside {seconds(theirs)}"
            found.append(Row(f"2-D Bratu in {name}, {n}×{n}", "lagrad / peer", r, None, note))
    return found
