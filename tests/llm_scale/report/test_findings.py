"""The sentences of a report say what its rows say: by-hand numbers, errors and verdicts."""

import json
import math

import numpy as np
import pytest

from lab.stats import student
from llm_scale.report.findings import Estimate, findings, marked
from llm_scale.report.groups import gathered
from tests.llm_scale.report.test_report import make_run
from theory.errors import InvalidInput

COLUMNS = "prompt,side,log_expert,log_opponent,log_before,log_after,u,reward,link,predicted"


def rows_of(folder, change):
    """Change the rows of the rounds of a run."""
    path = folder / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row | change(row["round"]) if "round" in row else row for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def points_of(folder, round_, before, after):
    """Held-out expert responses of a round."""
    lines = [
        f"{i},expert,-1,,{b},{a},,,," for i, (b, a) in enumerate(zip(before, after, strict=True))
    ]
    path = folder / "rounds" / f"round-{round_:03d}.csv"
    path.write_text("\n".join([COLUMNS, *lines]) + "\n")


def said(*paths):
    answers = findings(gathered(paths))
    return "\n".join(text for question in answers.values() for text in question)


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        ((-2.0, -3.0, -4.0), "is **worse**: KL(p‖π) 2.000 → 0.800 nats in 3 rounds, change +2.000"),
        ((1.0, 2.0, 3.0), "improved: KL(p‖π) 2.000 → 0.800 nats in 3 rounds, change -3.000"),
        ((-2.0, 0.0, -1.0), "did not change beyond noise"),
    ],
)
def test_improvement_is_paired_by_prompt_from_before_the_first_round(tmp_path, after, verdict):
    """Before (-1, -1, -1); paired changes have the error sqrt(1/3) = .577 in all three cases."""
    run = make_run(tmp_path / "a")
    points_of(run, 0, (-1, -1, -1), (-9, -9, -9))
    points_of(run, 2, (-9, -9, -9), after)
    text = said(run)
    assert verdict in text
    assert "± 0.577 (over prompts, 1 seed)" in text


def test_from_three_seeds_on_errors_are_over_seeds(tmp_path):
    for seed, gain in enumerate((1.0, 2.0, 3.0)):
        run = make_run(tmp_path / str(seed), seed=seed)
        points_of(run, 0, (-3.0,) * 4, (-3.0,) * 4)
        points_of(run, 2, (-3.0,) * 4, (-3.0 + gain,) * 4)
    text = said(tmp_path)
    # 2 / .577 = 3.5 standard errors, and 4.3 are needed of three seeds
    assert "did not change beyond noise: KL" in text
    assert "change -2.000 ± 0.577 (over 3 seeds)" in text


def test_an_estimate_by_hand():
    one, two = Estimate.of([(1.0, 0.3)]), Estimate.of([(1.0, 0.3), (3.0, 0.4)])
    assert (one.mean, one.error, one.limit) == (1.0, 0.3, 2.0)
    assert (two.mean, two.error) == (2.0, pytest.approx(0.25))
    three = Estimate.of([(1.0, 0.3), (2.0, 0.3), (3.0, math.nan)])
    assert (three.error, three.limit) == (pytest.approx(3**-0.5), student(3))
    unknown = Estimate.of([(5.0, math.nan)])
    assert f"{unknown:+.1f}" == "+5.0 (error unknown)"
    assert not unknown.above(0.0)
    assert Estimate.of([]) is None


def test_against_sft_is_paired_by_seed_and_prompt(tmp_path):
    spin, sft = make_run(tmp_path / "spin"), make_run(tmp_path / "sft", objective="sft")
    points_of(spin, 2, (-3, -3, -3), (-3.0, -13.0, -23.0))
    points_of(sft, 2, (-3, -3, -3), (-2.0, -11.0, -20.0))
    text = said(tmp_path)
    assert "**spin** against **sft**: behind, KL(p‖π) +2.000 ± 0.577 nats" in text
    other = make_run(tmp_path / "far" / "sft", objective="sft", seed=5)
    assert "no seed in common" in said(spin, other)
    assert "no SFT baseline among these runs" in said(spin)


def test_the_link_dumped_mass_and_matches(tmp_path):
    run = make_run(tmp_path / "a")
    slopes = {0: 0.66, 1: 0.5, 2: 0.3}
    rows_of(run, lambda r: {
        "link_slope": slopes[r], "link_slope_se": 0.05, "link_correlation": 0.86,
        "dumped": 0.1 * r, "dumped_se": 0.02, "dumped_before": 0.0,
        "match_greedy_before": 0.5, "match_greedy_before_se": 0.03,
        "match_greedy": 0.5 - 0.1 * r, "match_greedy_se": 0.04,
    })  # fmt: skip
    text = said(run)
    assert (
        "learned the link in part: slope of the rewards on R(u) (1 is the exact round's) "
        "0.66 ± 0.05, correlation 0.86 in round 0; 0.30 ± 0.05, correlation 0.86 in round 2"
    ) in text
    assert "**dumped** mass: at most 20.0 ± 2.0 % of fresh responses (round 2" in text
    assert "**fewer** greedy matches: 0.500 → 0.300, change -0.200 ± 0.050" in text
    rows_of(run, lambda r: {"link_slope": 0.05, "dumped": 0.03, "match_greedy": 0.55})
    text = said(run)
    assert "has **not learned** the link beyond noise" in text
    assert "dumped no mass beyond noise" in text
    assert "no more and no fewer greedy matches" in text
    rows_of(run, lambda r: {"link_slope": 0.05 + 0.2 * r, "dumped_se": 0.0})
    text = said(run)
    assert "learned the link in part, in round 0 not beyond noise: slope" in text
    assert "may have dumped mass (error unknown): at most 3.0 %" in text


@pytest.mark.parametrize(
    ("due", "over"),
    [({0, 1, 2}, ""), ({0, 2}, ""), ({1, 2}, "; over rounds 1 to 2 alone, where it was measured"),
     ({0, 1}, "; over rounds 0 to 1 alone, where it was measured"),
     ({1}, "; over round 1 alone, where it was measured")],
)  # fmt: skip
def test_matches_that_some_rounds_did_not_measure_say_which_the_change_is_over(tmp_path, due, over):
    run = make_run(tmp_path / "a")
    names = [f"match_greedy{end}" for end in ("", "_before", "_change")]
    row = dict.fromkeys(names, 0.5) | dict.fromkeys([f"{name}_se" for name in names], 0.1)
    rows_of(run, lambda r: row if r in due else {})
    assert f"(over prompts, 1 seed{over})." in said(run).split("greedy matches")[1]


def test_rounds_that_got_worse_and_runs_that_diverged_are_named(tmp_path):
    run = make_run(tmp_path / "a")
    make_run(tmp_path / "b", seed=1, kl=(1.0,), state="stopped")
    rows_of(run, lambda r: {"nll_change": 6.4 if r == 1 else -1.0, "nll_change_se": 0.4})
    text = said(tmp_path)
    assert (
        "1 of 2 runs finished, **1 diverged** (spin, seed 1: stopped: loss nan in round 1" in text
    )
    assert "got worse in 1 of 4 rounds: seed 0, round 1 (WORSE by 6.40 nats (16 se))." in text
    assert "The run finished; none diverged." in said(run)


def test_of_preferences_the_wins_are_the_verdict(tmp_path):
    run = make_run(tmp_path / "a", oracle="cyclic(strength=1)")
    rows_of(run, lambda r: {"win_rate_base": 0.4, "win_rate_base_se": 0.02})
    text = said(run)
    assert "**loses** to the model it began with: wins 0.400 ± 0.020 at the end" in text
    assert "KL" not in text


def test_texts_of_others_are_plain_in_a_table():
    assert marked("a|b\n**c** <i>&") == r"a\|b ⏎ \*\*c\*\* &lt;i&gt;&amp;"
    assert marked("[x](y) `z`") == r"\[x\](y) \`z\`"
    assert marked("a\x00b\x1b[2J\tc\x85d") == r"a\\x00b\\x1b\[2J" + "\tc ⏎ d"


# -- labels ----------------------------------------------------------------------------------------


def labels(*paths, named=()):
    return [(g.label, g.name) for g in gathered(paths, named)]


def test_objectives_have_their_own_label_and_not_their_files_path(tmp_path):
    spec = "/somewhere/long/mine.py:smoothed_js(eps=0.1)"
    run = make_run(tmp_path / "a", objective=spec)
    assert labels(run) == [("smoothed_js(eps=0.1)",) * 2]
    record = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps(record | {"labels": {"objective": "js(eps=9)"}}))
    make_run(tmp_path / "b", objective="spif(c=0.5)")
    assert labels(tmp_path) == [("js(eps=9)",) * 2, ("spif(c=0.5, alpha=0.5)",) * 2]


def test_two_files_with_one_name_are_told_apart(tmp_path):
    for folder in "ab":
        make_run(tmp_path / folder, objective=f"/{folder}/mine.py:js")
    assert labels(tmp_path) == [("/a/mine.py:js",) * 2, ("/b/mine.py:js",) * 2]


def test_many_differences_get_letters_with_a_key(tmp_path):
    make_run(tmp_path / "spin", prompts=8192, batch=64, lr=3e-3)
    make_run(tmp_path / "rev", task="/data/reverse.jsonl", sft_steps=60)
    names = (
        "spin, batch=64, lr=0.003, prompts=8192, sft_steps=0, task=phrases",
        "spin, batch=32, lr=0.001, prompts=0, sft_steps=60, task=reverse.jsonl",
    )
    assert labels(tmp_path / "spin", tmp_path / "rev") == list(zip("AB", names, strict=True))


def test_a_user_names_groups(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"spin-{seed}", seed=seed)
        make_run(tmp_path / f"ipo-{seed}", seed=seed, objective="ipo")
    found = labels(tmp_path, named=[("ours", tmp_path / "spin-0")])
    assert found == [("ipo(margin=1)",) * 2, ("ours", "spin")]
    alone = gathered([], [("ours", tmp_path / "spin-0"), ("ours", tmp_path / "spin-1")])
    assert [(g.label, len(g.runs)) for g in alone] == [("ours", 2)]
    ipo, spin = tmp_path / "ipo-0", tmp_path / "spin-0"
    for named, why in (
        ([("x", tmp_path)], "runs of 2 kinds"),
        ([("x", spin), ("y", tmp_path / "spin-1")], "are replicates of 'x'"),
        ([("x", spin), ("x", ipo)], "another group has this label"),
        ([("x", tmp_path / "nowhere")], "neither a run nor a folder"),
    ):
        with pytest.raises(InvalidInput, match=why):
            gathered([tmp_path], named)
    with pytest.raises(InvalidInput, match="say folders of runs"):
        gathered([])


def test_runs_on_files_that_changed_between_them_are_no_replicates(tmp_path):
    """An older run, that recorded none, is with the first of them."""
    data = {"/d/pairs.jsonl": "a"}
    beside = {"/s/final/model.safetensors": "b", "/match.py": "c"}
    for seed, files in enumerate(
        (data, {"/d/pairs.jsonl": "b"}, {}, data | beside, data | dict.fromkeys(beside, "z"))
    ):
        run = make_run(tmp_path / str(seed), seed=seed, sft_run="/s", match="/match.py:f")
        record = json.loads((run / "settings.json").read_text()) | {"files": files}
        (run / "settings.json").write_text(json.dumps(record))
    found = gathered([tmp_path])
    seeds = [[run.settings["seed"] for run in group.runs] for group in found]
    assert seeds == [[0, 2, 3, 4], [1]]
    one, two = (group.name for group in found)
    assert one != two
    assert one.startswith("spin, files=")


def test_what_is_measured_beside_tells_no_groups_apart(tmp_path):
    make_run(tmp_path / "a", seed=0)
    make_run(tmp_path / "b", seed=1, match="exact", eval_every=2, log="wandb")
    (group,) = gathered([tmp_path])
    assert len(group.runs) == 2
    assert np.isfinite(group.values("kl", 0)).all()
