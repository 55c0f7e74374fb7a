"""Captions name the numbers of the runs that are drawn, in both sizes."""

import importlib
import re

import pytest

from figures.catalogue import catalogue
from figures.sizes import WORDS, filled, sized

ENTRIES = {entry.name: entry for entry in catalogue()}


def module(name):
    return importlib.import_module(".".join(ENTRIES[name].path.with_suffix("").parts[-3:]))


with_sizes = [name for name, e in ENTRIES.items() if "SIZES = {" in e.path.read_text("utf-8")]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", with_sizes)
def test_a_caption_says_the_numbers_of_its_size(name, full):
    figure = module(name)
    text, values = filled(figure.CAPTION, figure.SIZES, full), sized(figure.SIZES, full)
    places = re.findall(r"\{(\w+)(?::word)?\}", figure.CAPTION)
    assert places
    for place in places:
        number = values[place.lower()]
        assert f"{number:,}" in text or str(number) in text or WORDS[number] in text.lower()
    assert not re.search(r"\{\w+(:word)?\}", text)
    if not full:
        assert ENTRIES[name].caption == text


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("sgd", {"FACTOR": ["seeds"], "STEPS": ["seeds"]}),
        ("players", {"SETTINGS": ["seeds", "steps", "features"]}),
        ("dumping", {"SETTINGS": ["seeds"]}),
        ("stability_sgd", {"STUDIED": ["seeds", "rounds", "early_steps"]}),
        ("preferences", {"SETTINGS": ["seeds"]}),
        ("audit", {"SETTINGS": ["seeds", "samples", "size", "sizes"]}),
    ],
)
def test_the_runs_have_the_sizes_that_the_caption_says(name, where):
    figure = module(name)
    for settings, fields in where.items():
        for field in fields:
            assert getattr(getattr(figure, settings), field) == figure.SIZES[field][0]


def test_large_sizes_can_be_played():
    """Every value of SIZES is a setting of the experiment and passes its check."""
    for name in ("players", "dumping", "stability_sgd", "preferences", "audit"):
        figure = module(name)
        given = next(getattr(figure, n) for n in ("SETTINGS", "STUDIED") if hasattr(figure, n))
        large = type(given)(**sized(figure.SIZES, full=True))
        assert all(getattr(large, n) == v[1] for n, v in figure.SIZES.items())
    for name in ("finite_samples", "misspecification"):
        figure = module(name)
        figure.Settings(**sized(figure.SIZES, full=True))


def test_the_floor_of_sgd_and_the_responses_of_the_saddle_are_counted():
    assert module("sgd").FLOOR.seeds == module("sgd").SIZES["floor_seeds"][0]
    sizes = module("saddle").SIZES
    for words, responses in zip(sizes["words"], sizes["responses"], strict=True):
        assert responses == sum((words + 1) ** length for length in range(6))  # with <unk>


def test_a_caption_that_cannot_be_filled_is_refused():
    assert (
        filled("{Seeds:word} of {seeds} in e^{x y}", {"seeds": (5, 20)}) == "Five of 5 in e^{x y}"
    )
    assert filled("{n} and {n:word}", {"n": (10, 20)}, full=True) == "20 and twenty"
    with pytest.raises(ValueError, match=r"CAPTION has \{games\}, SIZES has seeds"):
        filled("{games} games", {"seeds": (5, 20)})
    with pytest.raises(ValueError, match="CAPTION says 7 in words"):
        filled("{seeds:word}", {"seeds": (7, 20)})
