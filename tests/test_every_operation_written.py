"""The modules of programs and of their adjoints, one operation at a time, do what these do."""

import numpy as np
import pytest
import random_operations as given

import lagrad as lg

NAMES = {"np": np, "lg": lg}
exec(given.HEAD, NAMES)
VECTOR = np.array([0.3, 0.7, 0.45])
MATRIX = np.array([[0.3, 0.7, 0.45], [0.9, 0.2, 0.55], [0.15, 0.65, 0.8]])
CUBE = np.random.default_rng(0).uniform(0.1, 0.9, (2, 3, 4))
AXES = (("0", ""), ("1", ", keepdims=True"), ("None", ""))


def cases():
    """Texts of operations, and the arrays that these are of."""
    for name in given.ENTRYWISE:
        called = name.split(":")[0]
        yield f"{called}({{0}})", [VECTOR + 1.2 * ("arccosh" in called)]
    yield from ((text, [VECTOR - 0.4]) for text in given.KINKED)
    yield from (
        (text, [VECTOR, VECTOR[::-1] * 1.3 + 0.1]) for text in (*given.PAIRED, *given.ORDERED)
    )
    for text in (*given.REDUCED, *given.EXTREMES):
        for axis, kept in AXES:
            yield text.replace("{1}", axis).replace("{2}", kept), [MATRIX]
    yield from ((text, [VECTOR]) for text in given.VECTORS)
    yield from ((text, [MATRIX]) for text in (*given.MATRICES, *given.SQUARE))
    yield from ((text, [CUBE]) for text in given.CUBES)
    yield from ((text, [np.float64(0.4)]) for text in given.SCALARS)
    for text in given.LOOPS:
        for step in given.STEPS[:2]:
            text = text.replace("{step}", step.replace("{1}", "0.5")).replace(
                "{pair}", given.PAIRS[0]
            )
            text = text.replace("{n}", "4").replace("{how}", "").replace("{stop}", "0.6")
            yield text, [VECTOR]


CASES = dict(cases())


@pytest.mark.parametrize("text", CASES)
def test_it_is_written_as_it_is_computed(text):
    function = eval("lambda a, b=None: " + text.format("a", "b", ""), NAMES)
    p = lg.Program("written")
    parameters = [p.parameter(name, value=v) for name, v in zip("ab", CASES[text], strict=False)]
    y = p.define("y", function(*parameters))
    p.define("f", np.sum(np.sin(y) * np.cos(np.arange(1.0, 1 + y.size).reshape(y.shape))))
    for program in (p, p.adjoint("f")):
        module = {}
        exec(program.source(), module)
        found, wanted = module["solve"](), program.solve()
        for name in program.variables:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-8, atol=1e-10)
