"""Solutions that are one of many: what does not depend on which has a derivative."""

import mpmath
import numpy as np
import pytest
from scipy import special
from scipy.optimize import fsolve

import lagrad as lg

FIRST, SECOND = np.triu_indices(4, 1)
CLUSTER = np.array([[0, 0, 0], [1.0, 0.1, 0], [0.5, 0.8, 0.1], [0.5, 0.3, 0.8]])


def energy(r, s):
    """Lennard and Jones's, of four atoms: shifts and turns leave it alone."""
    q = (s**2 / np.sum((r[FIRST] - r[SECOND]) ** 2, -1)) ** 3
    return np.sum(q * q - 2 * q)


def cluster(s, **how):
    return lg.argmin(energy, CLUSTER, s, **how)


def bond(s, **how):
    r = cluster(s, **how)
    return np.sqrt(np.sum((r[0] - r[1]) ** 2))


HOWS = [{}, {"linear": lg.MINRES()}, {"linear": lg.DenseLU()}, {"linear": lg.CG()}]


@pytest.mark.parametrize("how", HOWS, ids=["usual", "MINRES", "DenseLU", "CG"])
def test_a_bond_of_a_cluster_that_may_be_shifted_and_turned(how):
    # All six are s long.
    assert bond(1.1, **how) == pytest.approx(1.1, rel=1e-9)
    assert lg.grad(lambda s: bond(s, **how))(1.1) == pytest.approx(1.0, rel=1e-9)


def test_it_is_right_in_every_mode():
    assert lg.jvp(bond, (1.1,), (2.0,))[1] == pytest.approx(2.0, rel=1e-9)
    assert lg.compile(lg.value_and_grad(bond))(1.2) == pytest.approx((1.2, 1.0), rel=1e-9)
    lengths = lambda s: (lambda r: np.sum((r[FIRST] - r[SECOND]) ** 2, -1))(cluster(s))
    np.testing.assert_allclose(lg.jacobian(lengths)(1.1), np.full(6, 2.2), rtol=1e-9)


def test_second_and_third_derivatives():
    # The multipliers are one of many as well.
    cubed = lambda s: bond(s) ** 3
    assert lg.grad(lg.grad(cubed))(1.1) == pytest.approx(6.6, rel=1e-9)
    assert lg.hessian(cubed)(1.1) == pytest.approx(6.6, rel=1e-9)
    assert lg.grad(lambda s: lg.jvp(cubed, (s,), (1.0,))[1])(1.1) == pytest.approx(6.6, rel=1e-9)
    assert lg.grad(lg.grad(lg.grad(cubed)))(1.1) == pytest.approx(6.0, rel=1e-8)
    with pytest.raises(lg.SingularSystem):
        lg.grad(lg.grad(lambda s: cluster(s)[1, 0]))(1.1)


def test_what_depends_on_where_it_lies_raises_and_says_along_what():
    with pytest.raises(lg.SingularSystem, match=r"leave 6 directions free.*r\[\d, \d\]"):
        lg.grad(lambda s: cluster(s)[1, 0])(1.1)
    with pytest.raises(lg.SingularSystem, match=r"\{r\} have many solutions"):
        lg.jvp(cluster, (1.1,), (1.0,))


@pytest.mark.parametrize("damping", [1e-6, 1e-3])
def test_damping_is_no_reason_to_see_curvature_downwards(damping):
    found = lg.grad(lambda s: bond(s, damping=damping))(1.1)
    assert found == pytest.approx(1.0, rel=10 * damping)


COST = np.random.default_rng(0).uniform(0, 1, (3, 4))
FROM, TO = np.array([0.2, 0.3, 0.5]), np.array([0.1, 0.2, 0.3, 0.4])


def plan(z, cost):
    return np.exp((z[:3, None] + z[None, 3:] - cost) / 0.1)


def transport(cost):
    """An entropic one, by its potentials, which are known up to a constant."""

    def marginals(z, cost):
        p = plan(z, cost)
        return np.concatenate([np.sum(p, axis=1) - FROM, np.sum(p, axis=0) - TO])

    p = plan(lg.root(marginals, np.zeros(7), cost), cost)
    return np.sum(p * cost) + 0.1 * np.sum(p * np.log(p))


def test_potentials_known_up_to_a_constant():
    # By the envelope theorem the gradient is the plan itself, whose marginals are given.
    found = lg.grad(transport)(COST)
    np.testing.assert_allclose(found.sum(axis=1), FROM, atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=0), TO, atol=1e-9)
    step = 1e-5 * np.eye(3, 4)
    differences = (transport(COST + step) - transport(COST - step)) / 2e-5
    assert np.trace(found[:, :3]) == pytest.approx(float(differences), rel=1e-7)


LINE = 2 * np.eye(20) - np.eye(20, k=1) - np.eye(20, k=-1)
LINE[0, 0] = LINE[-1, -1] = 1.0
LOAD = np.sin(np.arange(20.0)) - np.mean(np.sin(np.arange(20.0)))


def test_a_rod_without_a_fixed_end():
    heat = lambda k: lg.root(lambda u: k * (LINE @ u) - LOAD, np.zeros(20))
    exact = np.linalg.pinv(LINE) @ LOAD
    between = lg.grad(lambda k: (lambda u: u[3] - u[7])(heat(k)))(2.0)
    assert between == pytest.approx(-(exact[3] - exact[7]) / 4, rel=1e-9)
    with pytest.raises(lg.SingularSystem, match="leave 1 direction free"):
        lg.grad(lambda k: heat(k)[3])(2.0)


def test_solutions_that_are_there_for_one_parameter_only_have_no_derivative():
    # What flows in is what flows out at t = 1 alone.
    heat = lambda t: lg.root(lambda u: LINE @ u - LOAD - (t - 1), np.zeros(20))
    between = lambda t: (lambda u: u[3] - u[7])(heat(t))
    assert np.isfinite(between(1.0))
    with pytest.raises(lg.SingularSystem, match="perhaps none"):
        lg.grad(between)(1.0)
    with pytest.raises(lg.SingularSystem, match="have solutions only while"):
        lg.jvp(between, (1.0,), (1.0,))
    with pytest.raises(lg.SingularSystem, match="singular Jacobian"):
        between(1.5)


def test_a_total_that_a_step_keeps_is_that_of_the_start():
    flow = lambda x, k: np.stack([-k * x[0] + 0.7 * x[1], k * x[0] - 0.7 * x[1]])
    start = np.array([1.0, 2.0])
    assert lg.root(lambda x: flow(x, 2.0), start)[0] == pytest.approx(2.1 / 2.7, rel=1e-12)
    by_euler = lambda k: lg.fixed_point(lambda x: x + 0.1 * flow(x, k), start)
    assert by_euler(2.0).sum() == pytest.approx(3.0, rel=1e-12)
    # A = 0.7·3/(k + 0.7)
    assert lg.grad(lambda k: by_euler(k)[0])(2.0) == pytest.approx(-2.1 / 2.7**2, rel=1e-9)


def test_totals_of_three_species():
    # A + B <-> C and 2A <-> B keep A + 2B + 3C; the rates are no straight lines.
    def rates(x, k):
        first, second = k * x[0] * x[0] - x[1], 2 * x[0] * x[1] - x[2]
        return np.stack([-2 * first - second, first - second, second])

    def exact(k):
        closed = lambda x: np.r_[np.array(rates(x, k))[1:], x @ [1, 2, 3] - 6]
        return fsolve(closed, np.ones(3), xtol=1e-14)[0]

    settled = lambda k: lg.fixed_point(lambda x: x + 0.05 * rates(x, k), np.ones(3))[0]
    assert settled(1.5) == pytest.approx(exact(1.5), rel=1e-9)
    wanted = (exact(1.5 + 1e-5) - exact(1.5 - 1e-5)) / 2e-5
    assert lg.grad(settled)(1.5) == pytest.approx(wanted, rel=1e-7)


def chain(e):
    steps = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.4, 0.4, 0.2]])
    return steps + e * np.array([[-1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


def test_the_stationary_distribution_of_a_chain():
    def exact(e):
        left = np.r_[(np.eye(3) - chain(e).T)[:2], np.ones((1, 3))]
        return np.linalg.solve(left, [0, 0, 1.0])

    stationary = lambda e: lg.fixed_point(lambda p: p @ chain(e), np.full(3, 1 / 3))
    np.testing.assert_allclose(stationary(0.0), exact(0.0), rtol=1e-12)
    wanted = (exact(1e-6) - exact(-1e-6)) / 2e-6
    np.testing.assert_allclose(lg.jacobian(stationary)(0.0), wanted, rtol=1e-7)


def test_a_total_whose_weights_change_with_a_parameter_is_none():
    # The step keeps x₀ + w·x₁, another total for another w.
    step = lambda x, w: np.stack([x[0] + 0.1 * w * (x[1] - x[0]), x[1] - 0.1 * (x[1] - x[0])])
    found = lambda w: lg.fixed_point(lambda x: step(x, w), np.array([1.0, 2.0]))
    assert found(3.0)[0] == pytest.approx((1.0 + 3.0 * 2.0) / 4.0, rel=1e-12)
    with pytest.raises(lg.SingularSystem, match="leave 1 direction free"):
        lg.grad(lambda w: found(w)[0])(3.0)


def test_least_squares_that_leave_unknowns_free_stay_near_the_start():
    matrix, target = np.array([[1.0, 1.0], [2.0, 2.0]]), np.array([1.0, 2.0])
    misfit = lambda x, t: np.sum((matrix @ x - t * target) ** 2)
    np.testing.assert_allclose(lg.argmin(misfit, np.zeros(2), 1.0), [0.5, 0.5], rtol=1e-12)
    assert lg.grad(lambda t: np.sum(lg.argmin(misfit, np.zeros(2), t)))(2.0) == pytest.approx(1.0)


def test_unknowns_that_come_in_one_combination_only():
    apart = lambda t: (lambda x: x[0] - x[1])(
        lg.argmin(lambda x, t: (x[0] - x[1] - t) ** 2, np.zeros(2), t)
    )
    assert apart(3.0) == pytest.approx(3.0)
    assert lg.grad(apart)(3.0) == pytest.approx(1.0)


MULTIPLE = {
    "a double root": lambda z: np.stack([z[0] + z[1] - 2, (z[0] - 1) ** 2 + (z[1] - 1) ** 2]),
    "a parabola's foot": lambda z: np.stack([z[0] - z[1] ** 2, z[0]]),
}


@pytest.mark.parametrize("residual", MULTIPLE.values(), ids=MULTIPLE)
def test_a_multiple_root_is_alone_and_raises(residual):
    with pytest.raises(lg.SingularSystem):
        lg.root(residual, np.array([3.0, 0.5]))


def test_a_saddle_is_not_taken_for_a_minimum():
    saddle = lambda x: (x[0] - x[1]) ** 2 - (x[0] + x[2]) ** 2 + x[2] ** 4
    with pytest.raises(lg.LagradError):
        lg.argmin(saddle, np.zeros(3))


def test_a_circle_of_solutions():
    both = lambda z, r: np.stack([z @ z - r * r, 2 * (z @ z) - 2 * r * r])
    radius = lambda r: (lambda z: np.sqrt(z @ z))(lg.root(both, np.array([3.0, 4.0]), r))
    assert radius(2.0) == pytest.approx(2.0)
    assert lg.grad(radius)(2.0) == pytest.approx(1.0)
    with pytest.raises(lg.SingularSystem, match="leave 1 direction free"):
        lg.grad(lambda r: lg.root(both, np.array([3.0, 4.0]), r)[0])(2.0)


def test_a_long_rod_whose_jacobian_is_known_by_its_products():
    n = 200
    line = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    line[0, 0] = line[-1, -1] = 1.0
    ends = np.zeros(n)
    ends[[0, -1]] = 1.0, -1.0
    heat = lambda k: lg.root(lambda u: k * (line @ u) - ends, np.zeros(n))
    # A drop of 1/k between neighbours.
    found = lg.grad(lambda k: (lambda u: u[0] - u[-1])(heat(k)))(2.0)
    assert found == pytest.approx(-(n - 1) / 4, rel=1e-9)


def test_weights_of_a_softmax_are_known_up_to_a_shift():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 2)), np.random.default_rng(1).integers(0, 3, 30)

    def misfit(w, t):
        z = x @ w * t
        return np.mean(lg.logsumexp(z, axis=1) - z[np.arange(30), y])

    best = lambda t: lg.argmin(misfit, np.zeros((2, 3)), t)
    apart = lambda t: (lambda w: w[0, 0] - w[0, 1])(best(t))
    # What matters is w·t, so that w is a constant over t.
    assert lg.grad(apart)(1.3) == pytest.approx(-apart(1.3) / 1.3, rel=1e-8)
    with pytest.raises(lg.SingularSystem, match="leave 2 directions free"):
        lg.grad(lambda t: best(t)[0, 0])(1.3)


def test_a_factorisation_is_known_up_to_a_scale():
    table = np.outer([1.0, 2.0, 3.0], [1.0, 0.5])
    misfit = lambda z, t: np.sum((np.outer(z[:3], z[3:]) - t * table) ** 2)
    best = lambda t: lg.argmin(misfit, np.ones(5), t)
    assert lg.grad(lambda t: (lambda z: z[0] * z[3])(best(t)))(2.0) == pytest.approx(1.0)


def test_the_remedies_that_the_error_names():
    # An equation in the place of one that follows from the others.
    exact = np.linalg.pinv(LINE) @ LOAD
    fixed = np.array(LINE)
    fixed[0], load = np.eye(20)[0], np.r_[0.0, LOAD[1:]]
    heat = lambda k: lg.root(
        lambda u: np.r_[1.0, k * np.ones(19)] * (fixed @ u) - load, np.zeros(20)
    )
    wanted = -(exact[3] - exact[0]) / 4
    assert lg.grad(lambda k: heat(k)[3])(2.0) == pytest.approx(wanted, rel=1e-9)
    # A penalty on what is minimised: both are t/2 then, to 1e-3.
    near = lambda x, t: (x[0] + x[1] - t) ** 2 + 1e-3 * np.sum(x**2)
    found = lg.grad(lambda t: lg.argmin(near, np.zeros(2), t)[0])(1.0)
    assert found == pytest.approx(0.5, rel=1e-3)


def test_who_insists_has_one_of_them_and_a_warning():
    between = lambda s: cluster(s)[1, 0]
    with pytest.warns(lg.AccuracyWarning, match="leave 6 directions free"):
        found = lg.grad(between, on_failure="warn")(1.1)
    assert np.isfinite(found)


def test_a_start_that_is_differentiated_decides_what_a_total_is():
    # The limit is b/2, and the implicit derivative knows nothing of the start: 0 in silence once.
    settled = lambda b: lg.fixed_point(lambda z: 0.5 * (z + z[::-1]), np.stack([b, 0 * b]))
    with pytest.raises(lg.SingularSystem, match="leave 1 direction free"):
        lg.grad(lambda b: settled(b)[0])(2.0)


def means(z):
    """A step of the arithmetic-geometric mean: it leaves (m, m) as it is, for every m."""
    return np.stack([(z[0] + z[1]) / 2, np.sqrt(z[0] * z[1])])


@pytest.mark.parametrize("start", [(2.0, 1.0), (3.0, 1.0), (2.0, 2.0), (24.0, 6.0)])
def test_a_fixed_point_among_many_is_the_one_that_steps_lead_to(start):
    found = lg.fixed_point(means, np.array(start))
    a, b = start
    # Gauss: π (a + b)/4 over the complete elliptic integral of ((a − b)/(a + b))².
    wanted = np.pi * (a + b) / 4 / special.ellipk(((a - b) / (a + b)) ** 2)
    np.testing.assert_allclose(found, [wanted, wanted], rtol=1e-12)


def test_what_its_start_decides_has_no_derivative_and_the_steps_have():
    mean = lambda x: lg.fixed_point(means, np.stack([x, 1.0 + 0 * x]))[0]
    with pytest.raises(lg.SingularSystem, match=r"decided by the start.*lg\.iterate"):
        lg.grad(mean)(2.0)
    with pytest.raises(lg.SingularSystem, match="many solutions"):
        lg.jvp(mean, (2.0,), (1.0,))
    steps = lambda x: lg.iterate(means, np.stack([x, 1.0 + 0 * x]), 8)[0]
    exact = lambda x: np.pi * (x + 1) / 4 / special.ellipk(((x - 1) / (x + 1)) ** 2)
    slope = (exact(2 + 1e-5) - exact(2 - 1e-5)) / 2e-5
    assert lg.grad(steps)(2.0) == pytest.approx(slope, rel=1e-8)


def dyadic(rng, rows, columns):
    """Numbers of 20 bits, which add up to one in each row without rounding."""
    a = np.floor(rng.random((rows, columns)) * 2**16) / 2**20
    a[:, -1] += 1 - a.sum(axis=1)
    return a


def two_groups(seed, exchanged):
    """A mean over a chain of two groups of states; its value and derivative."""
    rng = np.random.default_rng(seed)
    apart = np.zeros((8, 8))
    apart[:4, :4], apart[4:, 4:] = dyadic(rng, 4, 4), dyadic(rng, 4, 4)
    together, weights = dyadic(rng, 8, 8), rng.random(8)
    step = lambda x, e: x @ ((1 - e) * apart + e * together)
    mean = lambda e: lg.fixed_point(step, np.full(8, 1 / 8), e) @ weights

    def exact(e):
        parts = mpmath.matrix(apart.tolist()), mpmath.matrix(together.tolist())
        left = ((1 - e) * parts[0] + e * parts[1]).T - mpmath.eye(8)
        for j in range(8):
            left[7, j] = 1
        shares = mpmath.lu_solve(left, mpmath.matrix([0] * 7 + [1]))
        return (mpmath.matrix([weights.tolist()]) * shares)[0]

    with mpmath.workdps(80):
        e = mpmath.mpf(exchanged)
        return mean, float(exact(e)), float(mpmath.diff(exact, e, h=e * mpmath.mpf(10) ** -20))


@pytest.mark.parametrize("bits", [7, 14, 17, 19])
@pytest.mark.parametrize("seed", range(3))
def test_groups_of_states_that_exchange_slowly(seed, bits):
    # The Jacobian is singular by the total, and all but singular by what the groups exchange.
    mean, value, slope = two_groups(seed, 2.0**-bits)
    assert lg.value_and_grad(mean)(2.0**-bits) == pytest.approx((value, slope), rel=1e-6)


@pytest.mark.parametrize("bits", [24, 34, 40, 44, 46, 48])
@pytest.mark.parametrize("seed", range(3))
def test_groups_that_exchange_next_to_nothing_keep_no_totals(seed, bits):
    mean, value, slope = two_groups(seed, 2.0**-bits)
    try:
        found = lg.value_and_grad(mean)(2.0**-bits)
    except lg.SingularSystem:
        return
    assert found == pytest.approx((value, slope), rel=1e-6)


@pytest.mark.parametrize("exchanged", 2.0 ** -np.arange(0.0, 48.0, 4))
def test_a_slow_reaction_keeps_no_total(exchanged):
    # a ⇌ b fast, b ⇌ c slow, 2c ⇌ 2d fast.
    def step(z, r):
        fast, slow = z[0] - 0.5 * z[1], exchanged * (r * z[1] - z[2])
        other = 0.25 * z[2] ** 2 - 0.75 * z[3] ** 2
        return z + 0.25 * np.stack([-fast, fast - slow, slow - other, other])

    start, ratio = np.array([1.0, 0.25, 0.5, 1.25]), 3**-0.5
    amount = lambda r: lg.fixed_point(step, start, r)[1]
    try:
        found = lg.value_and_grad(amount)(1.5)
    except lg.SingularSystem:
        assert exchanged < 1e-8
        return
    whole = 1.5 + 1.5 * (1 + ratio)
    assert found == pytest.approx((3 / whole, -3 * (1 + ratio) / whole**2), rel=1e-7)


def dual_value(cost, rows, columns, eps=0.3):
    """Of the transport between two distributions, by potentials known up to a constant."""
    first = lambda g: -eps * lg.logsumexp((g - cost) / eps + np.log(columns), axis=1)
    second = lambda f: (
        -eps * lg.logsumexp((f[:, None] - cost) / eps + np.log(rows)[:, None], axis=0)
    )
    g = lg.fixed_point(lambda g: second(first(g)), np.zeros(len(columns)))
    return first(g) @ rows + g @ columns


@pytest.mark.parametrize("seed", range(8))
def test_the_value_at_an_optimum_that_is_one_of_many(seed):
    # Its derivative by the potentials is zero but for rounding, which is no dependence on them.
    rng = np.random.default_rng(seed)
    n, m = rng.integers(2, 6, 2)
    cost, rows, columns = rng.random((n, m)), rng.random(n), rng.random(m)
    rows, columns = rows / rows.sum(), columns / columns.sum()
    plan = np.outer(rows, columns) * np.exp(-cost / 0.3)
    for _ in range(2000):
        plan *= (rows / plan.sum(axis=1))[:, None]
        plan *= columns / plan.sum(axis=0)
    found = lg.grad(lambda c: dual_value(c, rows, columns))(cost)
    np.testing.assert_allclose(found, plan, rtol=1e-6)


NETWORK = np.array([[1.0, -1, 0], [-1, 2, -1], [0, -1, 1]])


@pytest.mark.parametrize("flow", [(1.0, 0, -1), (1.0, 1, -2), (2.0, 0.5, -2.5), (1e6, -1e6, 0)])
@pytest.mark.parametrize("how", ["argmin", "root", "forwards"])
def test_the_energy_of_a_network_without_a_ground(flow, how):
    q = np.array(flow)
    energy = lambda k, u: 0.5 * k * (u @ (NETWORK @ u)) - q @ u
    state = {
        "argmin": lambda k: lg.argmin(lambda u: energy(k, u), np.zeros(3)),
        "root": lambda k: lg.root(lambda u: k * (NETWORK @ u) - q, np.zeros(3)),
    }
    least = lambda k: energy(k, state.get(how, state["argmin"])(k))
    found = lg.jvp(least, (2.0,), (1.0,))[1] if how == "forwards" else lg.grad(least)(2.0)
    assert float(found) == pytest.approx(q @ np.linalg.pinv(NETWORK) @ q / 8, rel=1e-9)
    with pytest.raises(lg.SingularSystem, match="leave 1 direction free"):
        lg.grad(lambda k: state["argmin"](k) @ np.array([1.0, 2.0, 3.0]) + 1e3 * least(k))(2.0)


@pytest.mark.parametrize("solver", [None, "newton", "picard"])
@pytest.mark.parametrize("seed", range(20))
def test_chains_whose_rows_add_up_to_one_but_for_rounding(seed, solver):
    # Of 1 − p all may be rounding, and the Jacobian regular by that: to zero it leads.
    rng = np.random.default_rng(seed)
    a, b = 10 ** rng.uniform(-4, -0.3, 2)
    chain = lambda a: np.block([[1 - a, a], [b, 1 - b]])
    first = lambda a: lg.fixed_point(lambda p: p @ chain(a), np.full(2, 0.5), solver=solver)[0]
    try:
        found = lg.value_and_grad(first)(a)
    except lg.NotContractive:  # too slow for plain steps
        assert solver == "picard"
        return
    assert found == pytest.approx((b / (a + b), -b / (a + b) ** 2), rel=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_chains_with_states_that_are_hardly_visited(seed):
    rng = np.random.default_rng(seed + 30)
    n = int(rng.integers(2, 8))
    chain = rng.random((n, n)) ** 6
    chain /= chain.sum(axis=1, keepdims=True)
    shares = np.linalg.solve(np.r_[(chain.T - np.eye(n))[:-1], np.ones((1, n))], np.eye(n)[-1])
    found = lg.fixed_point(lambda p: p @ chain, np.full(n, 1 / n))
    np.testing.assert_allclose(found, shares, rtol=1e-7)


@pytest.mark.parametrize("solver", [None, "newton"])
@pytest.mark.parametrize("e", [0.1, 0.03, 0.01, 0.003])
def test_chains_in_single_precision(e, solver):
    chain = lambda e: np.block([[1 - e, e], [2 * e * e, 1 - 2 * e * e]])
    start = np.full(2, 0.5, np.float32)
    share = lambda e: lg.fixed_point(lambda p: p @ chain(e), start, solver=solver)[0]
    value, slope = lg.value_and_grad(share)(np.float32(e))
    assert (value, slope) == pytest.approx((2 * e / (1 + 2 * e), 2 / (1 + 2 * e) ** 2), rel=1e-3)


def test_an_unknown_that_nothing_depends_on():
    def first(a):
        return lg.argmin(lambda z: (z[0] * a - 1) ** 2, np.array([0.0, 0.3]))[0]

    assert lg.grad(first)(2.0) == pytest.approx(-0.25, rel=1e-9)
    assert lg.grad(lg.grad(first))(2.0) == pytest.approx(0.25, rel=1e-9)
    assert lg.hvp(first, 2.0, 1.0) == pytest.approx(0.25, rel=1e-9)


def test_third_derivatives_of_a_share():
    # .2/(.7 − t), of a chain that keeps a total.
    chain = lambda t: np.array([[0.5, 0.5], [0.2, 0.8]]) + t * np.array([[1.0, -1.0], [0, 0]])
    share = lambda t: lg.fixed_point(lambda p: p @ chain(t), np.full(2, 0.5))[0]
    assert lg.grad(lg.grad(share))(0.0) == pytest.approx(0.4 / 0.7**3, rel=1e-8)
    assert lg.grad(lg.grad(lg.grad(share)))(0.0) == pytest.approx(1.2 / 0.7**4, rel=1e-7)


def bus(z):
    """Three buses without a load: at no voltage at the third its angle is anything."""
    angles, voltages = [0.0, z[0], z[1]], [1.0, 1.02, z[2]]
    lines = {(0, 1): (1.0, -5.0), (0, 2): (2.0, -8.0), (1, 2): (1.5, -6.0)}

    def flow(i, part):
        total = 0.0
        for j in range(3):
            if j != i:
                g, b = lines[min(i, j), max(i, j)]
                c, s = np.cos(angles[i] - angles[j]), np.sin(angles[i] - angles[j])
                own, other = (g, g * c + b * s) if part == "P" else (-b, g * s - b * c)
                total = total + voltages[i] ** 2 * own - voltages[i] * voltages[j] * other
        return total

    return np.stack([flow(1, "P"), flow(2, "P"), flow(2, "Q")])


@pytest.mark.parametrize("angle", [0.0, 0.2, -0.3])
@pytest.mark.parametrize("voltage", [0.0, 0.05, 0.2, 0.25, 0.4])
def test_an_angle_at_a_voltage_that_has_gone_to_nothing(angle, voltage):
    """It has no derivative at zero, and one of 1e56 at 1e-58, where Newton's method ends."""
    loads = lambda p, q: np.stack([0 * p, p, q])
    f = lambda p, q: lg.root(lambda z: bus(z) - loads(p, q), np.array([0.0, angle, voltage]))
    with pytest.raises(lg.SingularSystem, match="free"):
        lg.grad(lambda p, q: f(p, q)[1], (0, 1))(0.0, 0.0)


@pytest.mark.parametrize("rare", [1e-4, 1e-5, 1e-6, 1e-7, 1e-8])
def test_rare_transitions_keep_the_total(rare):
    def stationary(e, module=np):
        step = [[1 - e, 2 * e, 0.1], [e / 2, 1 - 2 * e - 0.1, 0.2], [e / 2, 0.1, 0.7]]
        if module is np:
            rows = np.stack([np.stack([x + 0 * e for x in row]) for row in step])
            return lg.fixed_point(lambda r: rows @ r, np.ones(3) / 3)[0]
        system = mpmath.matrix(step) - mpmath.eye(3)
        for k in range(3):
            system[2, k] = 1
        return mpmath.lu_solve(system, mpmath.matrix([0, 0, 1]))[0]

    with mpmath.workdps(60):
        wanted = float(mpmath.diff(lambda e: stationary(e, mpmath), mpmath.mpf(rare)))
    # Rounding of 1 - e is rounding of e, over e: the rates are known to so many digits.
    assert lg.grad(stationary)(rare) == pytest.approx(wanted, rel=max(1e-9, 1e-15 / rare))
