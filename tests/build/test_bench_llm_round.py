"""The rows of the language-model round's benchmark, from parts that are made up."""

import pytest

from benchmarks import __main__ as runner
from benchmarks import bench_llm_round as bench

ABOUT = {"weights": 10**6, "prompts": 4, "prompted": 50, "generated": 100, "trained": 300}
OURS = {
    "parts": {"generate": 1.0, "score": 0.5, "train": 4.0},
    "first_loss": 0.7,
    "matrix_flops": 1e10,
    **ABOUT,
}
THEIRS = {
    "parts": {"generate": 4.0, "references": 1.0, "train": 8.0},
    "first_loss": 0.7,
    "generated": 200,
}


@pytest.fixture
def asked(monkeypatch):
    """Every part that was asked for; each turn is a little slower than the one before."""
    calls = []

    def part(who, folder, full, memory=False):
        calls.append((who, memory, full))
        if who == "prepare":
            return ABOUT
        made = OURS if who == "ours" else THEIRS
        factor = 2.0**20 if memory else 1.0 + 0.1 * len(calls)
        return {**made, "parts": {k: factor * v for k, v in made["parts"].items()}}

    monkeypatch.setattr(bench, "_part", part)
    return calls


def test_rows_are_whole_and_the_best_of_each_part_counts(asked, monkeypatch):
    monkeypatch.setattr(bench, "find_spec", lambda name: object())
    rows = [runner.checked(row) for row in bench.run(False)]
    assert len(rows) == 1 + 3 * len(bench.SHORT)
    assert sum(not memory for who, memory, _ in asked if who == "ours") == bench.TURNS
    whole = next(r for r in rows if "whole" in r["name"])
    assert whole["ours_s"] == pytest.approx(1.2 * 5.5), "the first turn, the second call"
    # half of the peer's 4 s, as it drew twice the tokens
    assert whole["peer_s"] == pytest.approx(1.3 * (2.0 + 9.0))
    assert whole["aim"] == bench.AIM
    memory = next(r for r in rows if "memory" in r["name"])
    assert (memory["ours_s"], memory["peer_s"], memory["unit"]) == (4.0, 8.0, "MiB")
    assert "MiB" in str(runner._quantity(memory["ours_s"], memory["unit"]))


def test_without_trl_ours_is_timed_and_the_row_says_how_to_get_it(asked, monkeypatch):
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    (row,) = map(runner.checked, bench.run(True))
    assert row["peer_s"] is None
    assert "make bench" in row["note"]
    assert {who for who, _, _ in asked} == {"prepare", "ours"}
    assert all(full for _, _, full in asked)
