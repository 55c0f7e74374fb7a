"""The examples in docstrings are run, and every public verb has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import lab
import theory

NAMES = [m.name for p in (theory, lab) for m in pkgutil.walk_packages(p.__path__, p.__name__ + ".")]
NAMES = [name for name in NAMES if "__main__" not in name]
EXAMPLES = {
    test.name: test
    for name in NAMES
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
    if test.examples
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name):
    assert doctest.DocTestRunner().run(EXAMPLES[name]).failed == 0


def test_every_verb_has_one():
    verbs = [v for v in map(vars(theory).get, theory.__all__) if inspect.isfunction(v)]
    verbs += [theory.objectives.get, theory.preferences.self_play, theory.preferences.nash]
    names = [f"{verb.__module__}.{verb.__qualname__}" for verb in verbs]
    assert not set(names) - set(EXAMPLES)
