"""Whatever a compiled function closes over is read anew at each call. The oracle is NumPy."""

import array
import collections
import contextvars
import dataclasses
import functools
import itertools
import math
import operator
import random
import sys
import threading
import types
import weakref
from types import SimpleNamespace as Space

import numpy as np
import pytest
import scipy.sparse as sparse
from scipy.interpolate import CubicSpline

import lagrad as lg

X = np.array([1.0, 2.0])
FACTOR = 1.0
NAMED = types.ModuleType("closed_over")
exec(
    "import types\nscale = 1.0\nconfig = types.SimpleNamespace(k=1.0)\n"
    "def scaled(x):\n    return scale * x\n",
    NAMED.__dict__,
)
CASES = {}


def case(make):
    CASES[make.__name__] = make
    return make


class Layer:
    scale = 1.0

    def __init__(self, w=1.0):
        self.w = w
        self.layers = [Space(w=1.0), Space(w=2.0)]

    @property
    def tripled(self):
        return 3.0 * self.w

    @classmethod
    def by_class(cls, x):
        return cls.scale * x

    @staticmethod
    def by_static(x):
        return Layer.scale * x

    def predict(self, x):
        return self.w * x

    def through(self, x):
        for layer in self.layers:
            x = layer.w * x
        return x

    __call__ = __matmul__ = predict

    def __getitem__(self, k):
        return self.layers[k].w


class Heir(Layer):
    pass


class Slotted:
    __slots__ = ("w",)

    def __init__(self, w):
        self.w = w


@dataclasses.dataclass
class Fields:
    w: float = 1.0


def setting(owner, name, value):
    return lambda: setattr(owner, name, value)


def putting(container, key, value):
    return lambda: container.__setitem__(key, value)


def factored(x):
    return FACTOR * x


@case
def attributes_along_a_path():
    config = Space(model=Space(scale=1.0))
    return (lambda x: config.model.scale * x), setting(config.model, "scale", 2.0)


@case
def an_object_on_the_path():
    config = Space(model=Space(scale=1.0))
    return (lambda x: config.model.scale * x), setting(config, "model", Space(scale=3.0))


@case
def what_a_method_reads():
    net = Layer()
    return (lambda x: net.predict(x)), setting(net, "w", 2.0)


@case
def what_a_bound_method_reads():
    net = Layer()
    return net.predict, setting(net, "w", 2.0)


@case
def an_inherited_attribute():
    net = Heir()
    return (lambda x: net.scale * x), setting(Layer, "scale", 2.0)


@case
def an_attribute_of_a_class():
    return (lambda x: Layer.scale * x), setting(Layer, "scale", 2.0)


@case
def an_attribute_that_hides_that_of_the_class():
    net = Heir()
    return (lambda x: net.scale * x), setting(net, "scale", 2.0)


@case
def a_class_that_hides_an_attribute_of_its_base():
    class Own(Layer):
        pass

    net = Own()
    return (lambda x: net.scale * x), setting(Own, "scale", 2.0)


@case
def an_attribute_of_a_metaclass():
    class Meta(type):
        k = 1.0

    class Made(metaclass=Meta):
        pass

    return (lambda x: Made.k * x), setting(Meta, "k", 2.0)


@case
def a_property():
    net = Layer()
    return (lambda x: net.tripled * x), setting(net, "w", 2.0)


@case
def a_class_method():
    return (lambda x: Heir.by_class(x)), setting(Layer, "scale", 2.0)


@case
def a_static_method():
    return (lambda x: Heir.by_static(x)), setting(Layer, "scale", 2.0)


@case
def a_method_that_is_replaced():
    class Own(Layer):
        pass

    net = Own()
    return (lambda x: net.predict(x)), setting(Own, "predict", lambda self, x: 7.0 * x)


@case
def the_class_of_an_object():
    class Doubling(Layer):
        def predict(self, x):
            return 2.0 * x

    net = Heir()
    return (lambda x: net.predict(x)), setting(net, "__class__", Doubling)


@case
def objects_in_a_list():
    net = Layer()
    return net.through, setting(net.layers[1], "w", 5.0)


@case
def callable_layers():
    layers = [Layer(1.0), Layer(2.0)]

    def f(x):
        for layer in layers:
            x = layer(x)
        return x

    return f, setting(layers[1], "w", 5.0)


@case
def an_operator_of_an_object():
    net = Layer()
    return (lambda x: net @ x), setting(net, "w", 2.0)


@case
def an_index_into_an_object():
    net = Layer()
    return (lambda x: net[1] * x), setting(net.layers[1], "w", 5.0)


@case
def slots():
    net = Slotted(1.0)
    return (lambda x: net.w * x), setting(net, "w", 2.0)


@case
def an_array_in_a_slot():
    net = Slotted(np.ones(2))
    return (lambda x: net.w * x), putting(net.w, 0, 2.0)


@case
def a_missing_attribute():
    class Lazy:
        def __init__(self):
            self.table = {"w": 1.0}

        def __getattr__(self, name):
            return self.__dict__["table"][name]

    net = Lazy()
    return (lambda x: net.w * x), putting(net.table, "w", 2.0)


@case
def a_descriptor():
    class Given:
        value = 1.0

        def __get__(self, owner, kind):
            return self.value

    given = Given()

    class Own:
        w = given

    net = Own()
    return (lambda x: net.w * x), setting(given, "value", 2.0)


@case
def names_of_attributes_that_are_computed():
    net = Space(w0=1.0, w1=2.0)
    return (lambda x: sum(getattr(net, f"w{k}") for k in range(2)) * x), setting(net, "w1", 5.0)


@case
def all_attributes():
    net = Space(w0=1.0, w1=2.0)
    return (lambda x: sum(vars(net).values()) * x), setting(net, "w1", 5.0)


@case
def a_getter_of_attributes():
    net, get = Space(m=Space(w=1.0)), operator.attrgetter("m.w")
    return (lambda x: get(net) * x), setting(net.m, "w", 5.0)


@case
def a_dataclass_as_a_dict():
    fields = Fields()
    return (lambda x: dataclasses.asdict(fields)["w"] * x), setting(fields, "w", 5.0)


@case
def a_function_in_a_dict():
    name = "factored"
    return (lambda x: {"factored": factored}[name](x)), putting(globals(), "FACTOR", 4.0)


@case
def a_global_that_is_deleted():
    globals()["max"] = lambda a, b: 1.0
    return (lambda x: max(2, 3) * x), lambda: globals().pop("max")


@case
def a_global_that_hides_a_builtin():
    return (lambda x: abs(-1.0) * x), putting(globals(), "abs", lambda a: 9.0)


@case
def a_global_by_its_name():
    return (lambda x: globals()["FAC" + "TOR"] * x), putting(globals(), "FACTOR", 4.0)


@case
def an_attribute_of_a_module():
    return (lambda x: NAMED.scale * x), setting(NAMED, "scale", 2.0)


@case
def a_global_of_another_module():
    return (lambda x: NAMED.scaled(x)), setting(NAMED, "scale", 2.0)


@case
def an_object_of_another_module():
    return (lambda x: NAMED.config.k * x), setting(NAMED.config, "k", 2.0)


@case
def an_import_inside():
    def f(x):
        from closed_over import scale

        return scale * x

    return f, setting(NAMED, "scale", 2.0)


@case
def a_partial():
    w = np.ones(2)
    return functools.partial(lambda a, x: a * x, w), putting(w, 0, 2.0)


@case
def a_partial_of_a_partial():
    space = Space(k=1.0)
    inner = functools.partial(lambda x, c: c.k * x, c=space)
    return functools.partial(inner), setting(space, "k", 2.0)


@case
def a_decorated_function():
    space = Space(k=1.0)

    def decorated(g):
        return functools.wraps(g)(lambda x: space.k * g(x))

    return decorated(lambda x: x), setting(space, "k", 2.0)


@case
def a_function_by_type():
    space = Space(k=1.0)
    g = functools.singledispatch(lambda x: space.k * x)
    return (lambda x: g(x)), setting(space, "k", 2.0)


@case
def a_cache_that_is_cleared():
    space = Space(k=1.0)
    cached = functools.lru_cache(lambda n: space.k * n)

    def change():
        space.k = 5.0
        cached.cache_clear()

    return (lambda x: cached(2) * x), change


@case
def a_cached_property_that_is_cleared():
    class Own:
        w = 1.0

        @functools.cached_property
        def doubled(self):
            return 2.0 * self.w

    net = Own()

    def change():
        net.w = 5.0
        del net.doubled

    return (lambda x: net.doubled * x), change


@case
def a_generator():
    weights = [1.0, 2.0]

    def each():
        yield from weights

    return (lambda x: sum(each()) * x), lambda: weights.append(5.0)


@case
def a_default():
    def f(x, c={"k": 1.0}):  # noqa: B006
        return c["k"] * x

    return f, lambda: f.__defaults__[0].__setitem__("k", 2.0)


@case
def a_keyword_default():
    def f(x, *, c=1.0):
        return c * x

    return f, lambda: f.__kwdefaults__.__setitem__("c", 2.0)


@case
def the_code_of_a_function():
    g = lambda x: x
    return (lambda x: g(x)), setting(g, "__code__", (lambda x: 2.0 * x).__code__)


@case
def an_attribute_of_a_function():
    def f(x):
        return f.k * x

    f.k = 1.0
    return f, setting(f, "k", 2.0)


@case
def nested_lists():
    nested = [[1.0, [2.0]]]
    return (lambda x: nested[0][1][0] * x), putting(nested[0][1], 0, 5.0)


@case
def arrays_in_tuples_in_a_dict():
    table = {"a": (np.ones(2),)}
    return (lambda x: table["a"][0] * x), putting(table["a"][0], 1, -1.0)


@case
def a_key_that_is_renamed():
    table = {"a": 2.0}
    return (lambda x: table.get("a", 5.0) * x), lambda: table.update(b=table.pop("a"))


@case
def a_default_of_a_dict():
    table = collections.defaultdict(lambda: 1.0)
    return (lambda x: table["z"] * x), putting(table, "z", 4.0)


@case
def a_chain_of_dicts():
    table = collections.ChainMap({"k": 1.0}, {})
    return (lambda x: table["k"] * x), putting(table, "k", 4.0)


@case
def a_view_of_a_dict():
    table = {"k": 1.0}
    view = types.MappingProxyType(table)
    return (lambda x: view["k"] * x), putting(table, "k", 4.0)


@case
def a_dict_with_attributes():
    table = type("Table", (dict,), {})(a=1.0)
    table.k = 1.0
    return (lambda x: table.k * table["a"] * x), setting(table, "k", 2.0)


@case
def a_set():
    numbers = {1.0}
    return (lambda x: sum(numbers) * x), lambda: numbers.add(5.0)


@case
def a_deque():
    numbers = collections.deque([1.0, 2.0])
    return (lambda x: numbers[0] * x), numbers.rotate


@case
def an_item_that_moves_from_one_list_to_the_next():
    one, other = [1.0], [2.0, 3.0]
    return (lambda x: len(one) * x), lambda: one.append(other.pop(0))


@case
def a_weak_reference():
    net = Layer()
    reference = weakref.ref(net)
    return (lambda x, keep=net: reference().w * x), setting(net, "w", 2.0)


@case
def what_belongs_to_a_thread():
    local = threading.local()
    local.k = 1.0
    return (lambda x: local.k * x), setting(local, "k", 2.0)


@case
def a_variable_of_the_context():
    variable = contextvars.ContextVar("k", default=1.0)
    variable.set(1.0)
    return (lambda x: variable.get() * x), lambda: variable.set(2.0)


@case
def integers_that_index():
    index = np.array([0, 0])
    return (lambda x: x[index] * np.array([1.0, 3.0])), putting(index, 1, 1)


@case
def a_mask():
    mask = np.array([True, False])
    return (lambda x: np.where(mask, x, 0.0)), putting(mask, 1, True)


@case
def bins():
    where = np.array([0, 0])
    return (lambda x: np.bincount(where, weights=x, minlength=2)), putting(where, 1, 1)


@case
def data_of_a_sparse_matrix():
    A = sparse.csr_array(np.eye(2))
    return (lambda x: A @ x), putting(A.data, slice(None), -1.0)


@case
def indices_of_a_sparse_matrix():
    A = sparse.csr_array(np.diag([1.0, 3.0]))
    return (lambda x: A @ x), putting(A.indices, slice(None), [1, 0])


@case
def a_sparse_matrix_of_lists():
    A = sparse.lil_array(np.eye(2))
    return (lambda x: A.tocsr() @ x), putting(A, (0, 1), 5.0)


@case
def a_sparse_matrix_of_keys():
    A = sparse.dok_array(np.eye(2))
    return (lambda x: A.tocsr() @ x), putting(A, (0, 1), 5.0)


@case
def an_array_without_axes():
    a = np.array(1.0)
    return (lambda x: a * x), putting(a, (), 2.0)


@case
def a_number_of_numpys():
    space = Space(a=np.float64(1.0))
    return (lambda x: space.a * x), setting(space, "a", np.float64(2.0))


@case
def a_zero_that_changes_its_sign():
    space = Space(a=0.0)
    return (lambda x: math.copysign(1.0, space.a) * x), setting(space, "a", -0.0)


@case
def a_sum_that_numpy_takes():
    a = np.ones(300)
    return (lambda x: a.sum() * x), putting(a, 7, 5.0)


@case
def a_branch_on_an_array():
    a = np.ones(3)
    return (lambda x: x if a[0] > 0 else -x), putting(a, 0, -1.0)


@case
def something_made_of_an_array():
    a = np.ones(2)
    return (lambda x: (2 * a) * x), putting(a, 0, -1.0)


@case
def a_view():
    base = np.ones(4)
    view = base[::2]
    return (lambda x: view * x), putting(base, 2, -1.0)


@case
def one_number_of_millions():
    a = np.ones(2_000_002)
    return (lambda x: x * a[-1]), putting(a, 2_000_001, -1.0)


@case
def signs_that_all_change():
    a = np.ones(128)
    return (lambda x: np.sum(a) * x), lambda: np.negative(a, out=a)


@case
def a_checkerboard():
    a = np.indices((64, 64)).sum(0) % 2.0
    return (lambda x: a[0, 0] * x), lambda: np.subtract(1.0, a, out=a)


@case
def rows_of_a_larger_array():
    a = np.ones((300, 300))[:, ::2]
    return (lambda x: a[9, 9] * x), putting(a, (9, 9), 2.0)


@case
def an_array_with_attributes():
    a = np.ones(2).view(type("Own", (np.ndarray,), {}))
    a.k = 1.0
    return (lambda x: a.k * x), setting(a, "k", 2.0)


@case
def an_array_of_objects():
    a = np.array([1.0, "x"], dtype=object)
    return (lambda x: a[0] * x), putting(a, 0, 3.0)


@case
def bytes_in_an_array():
    a = bytearray([1, 2])
    return (lambda x: a[0] * x), putting(a, 0, 3)


@case
def an_array_of_pythons():
    a = array.array("d", [1.0, 2.0])
    return (lambda x: a[0] * x), putting(a, 0, 3.0)


@case
def what_an_object_of_scipys_holds():
    spline = CubicSpline(np.arange(4.0), np.arange(4.0) ** 2)
    return (lambda x: float(spline(1.5)) * x), lambda: np.multiply(spline.c, 2, out=spline.c)


@case
def what_a_function_of_numpys_calls():
    space = Space(k=1.0)
    f = np.vectorize(lambda t: space.k * t)
    return (lambda x: float(f(2.0)) * x), setting(space, "k", 3.0)


@pytest.fixture(autouse=True)
def _as_they_were(monkeypatch):
    monkeypatch.setitem(sys.modules, "closed_over", NAMED)
    yield
    Layer.scale = NAMED.scale = NAMED.config.k = 1.0
    globals().update(FACTOR=1.0)
    globals().pop("abs", None)
    globals().pop("max", None)


@pytest.mark.parametrize("name", CASES)
def test_a_compiled_function_sees_a_change_of(name):
    f, change = CASES[name]()
    value, slope = lg.compile(f), lg.compile(lg.grad(lambda x: np.sum(f(x))))
    unit = np.eye(2)

    def both():
        # Each of these functions is linear in x.
        slopes = [np.sum(f(X + e)) - np.sum(f(X)) for e in unit]
        np.testing.assert_allclose(value(X), f(X), rtol=1e-14)
        np.testing.assert_allclose(slope(X), slopes, rtol=1e-12, atol=1e-12)
        return np.array(f(X))

    before = [both() for _ in range(3)][-1]
    change()
    after = [both() for _ in range(3)][-1]
    assert not np.array_equal(before, after)


def counted(f):
    calls = Space(number=0)

    def counting(*args):
        calls.number += 1
        return f(*args)

    return counting, calls


def test_what_did_not_change_is_not_traced_again():
    space = Space(w=np.ones(3), unread=1, table={"k": 2.0})
    f, calls = counted(lambda x: np.sum(space.table["k"] * space.w * x))
    g = lg.compile(lg.grad(f))
    for k in range(5):
        space.unread = k
        setattr(space, f"further_{k}", k)
        space.table["k"] = float("2.0")  # another object, and the same number
        assert g(np.ones(3)).tolist() == [2.0] * 3
        assert g(np.ones(2)[:1]).tolist() == [6.0]
    assert calls.number == 2


def test_an_object_in_the_place_of_one_that_is_gone_is_another():
    space = Space(part=Space(k=0.0))
    g = lg.compile(lg.grad(lambda x: space.part.k * x))
    for k in range(1, 20):
        space.part = None
        space.part = Space(k=float(k))
        assert g(1.0) == k
    h = lg.compile(lg.grad(lambda part, x: part.k * x, 1))
    for k in range(1, 20):
        assert h(Space(k=float(k)), 1.0) == k


def test_objects_and_functions_that_are_arguments_are_looked_into():
    space, w = Space(k=[Space(c=1.0)]), np.ones(2)
    g = lg.compile(lg.grad(lambda given, f, x: given.k[0].c * f(x), 2))
    f = lambda x: np.sum(w * x)
    assert g(space, f, X).tolist() == [1.0, 1.0]
    space.k[0].c = 3.0
    assert g(space, f, X).tolist() == [3.0, 3.0]
    w[1] = 2.0
    assert g(space, f, X).tolist() == [3.0, 6.0]
    A = sparse.csr_array(np.eye(2))
    h = lg.compile(lg.grad(lambda A, x: np.sum(A @ x), 1))
    assert h(A, X).tolist() == [1.0, 1.0]
    A.data *= -1.0
    assert h(A, X).tolist() == [-1.0, -1.0]
    A.indices[:] = [0, 0]
    assert h(A, X).tolist() == [-2.0, 0.0]


DRAWN = Space(
    generator=np.random.default_rng(0),
    other=np.random.default_rng(1).normal,
    state=np.random.RandomState(0),
    random=random.Random(0),
    count=itertools.count(1),
    numbers=iter(range(1, 99)),
)
DRAWS = {
    "a generator": lambda x: x * DRAWN.generator.normal(),
    "its method": lambda x, draw=DRAWN.other: x * draw(),
    "a state": lambda x: x * DRAWN.state.rand(),
    "np.random": lambda x: x * np.random.normal(),  # noqa: NPY002
    "random": lambda x: x * random.random(),
    "a generator of Python's": lambda x: x * DRAWN.random.random(),
    "a counter": lambda x: x * next(DRAWN.count),
    "an iterator": lambda x: x * next(DRAWN.numbers),
}


@pytest.mark.parametrize("name", DRAWS)
def test_what_is_drawn_is_drawn_at_every_call(name):
    f = lg.compile(DRAWS[name])
    assert len({float(f(1.0)) for _ in range(6)}) == 6


def test_a_generator_that_nothing_is_drawn_from_costs_no_trace():
    rng = np.random.default_rng(0)
    f, calls = counted(lambda x: x * (rng.normal() if x.ndim else 2.0))
    g = lg.compile(f)
    assert [g(1.0) for _ in range(9)] == [2.0] * 9
    assert calls.number <= 2


def test_functions_that_lagrad_made_are_looked_into():
    space, w = Space(k=1.0), np.ones(2)
    inner = lg.grad(lambda y: space.k * np.sum(y**2))
    kept = lg.compile(lambda y: space.k * y)
    square = lg.primitive(
        lambda x: space.k * w * x * x, vjp=lambda g, y, x: (2.0 * g * space.k * w * x,)
    )
    step = lambda x: lg.fixed_point(lambda z: 0.25 * space.k * z + x, np.zeros(2))
    functions = {
        "grad": (lambda x: inner(x), lambda: 2.0 * space.k * np.ones(2)),
        "compile": (lambda x: kept(x), lambda: space.k * np.ones(2)),
        "primitive": (lambda x: square(x), lambda: 2.0 * space.k * w * X),
        "fixed_point": (step, lambda: np.ones(2) / (1.0 - 0.25 * space.k)),
    }
    made = {n: lg.grad(lambda x, f=f: np.sum(f(x))) for n, (f, _) in functions.items()}
    compiled = {name: lg.compile(g) for name, g in made.items()}
    for change in (lambda: None, setting(space, "k", 3.0), putting(w, 1, 5.0)):
        change()
        for name, (_, expected) in functions.items():
            for g in (made[name], compiled[name]):
                assert g(X) == pytest.approx(expected(), rel=1e-9), name


def test_many_branches_are_kept_and_found_at_once():
    def stairs(x):
        n = 0
        while x > n:
            n += 1
        return n * x

    f, calls = counted(stairs)
    g = lg.compile(lg.grad(f))
    for _ in range(3):
        for n in range(60):
            assert g(n - 0.5) == n
    assert calls.number == 60
    table = np.arange(200.0)
    f, calls = counted(lambda x: table[int(x)] * x)
    g = lg.compile(f)
    for _ in range(2):
        for n in range(200):
            assert g(n + 0.5) == n * (n + 0.5)
    assert calls.number == 200


def test_the_trace_that_was_not_used_longest_makes_room(monkeypatch):
    monkeypatch.setattr("lagrad.transforms.compile.KEPT", 5)
    f, calls = counted(lambda x: int(x) * x)
    g = lg.compile(f)
    for n in range(5):
        g(n + 0.5)
    for n in range(5, 20):
        assert g(0.5) == 0.0
        assert g(n + 0.5) == n * (n + 0.5)
    assert calls.number == 20
    assert len(g.kept) == sum(len(b.kept) for b in g.branches.values()) == 5


def test_branches_behind_a_solution_are_found_again():
    def f(a):
        z = lg.root(lambda z: z**3 - a, 1.0)
        return int(z) * z

    counting, calls = counted(f)
    g = lg.compile(counting)
    for _ in range(3):
        for n in (1, 2, 3, 4):
            assert g((n + 0.5) ** 3) == pytest.approx(n * (n + 0.5))
    assert calls.number == 4
