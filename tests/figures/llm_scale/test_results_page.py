"""Tables of llm_scale/RESULTS.md are those of the records: each number to the digits it has."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from figures.catalogue import ROOT
from figures.recorded import llm_text, llm_tiny, since_start
from figures.report.rows import recorded_rows
from lab.stats import interval

PAGE = (ROOT / "llm_scale" / "RESULTS.md").read_text(encoding="utf-8")


def lines(section: str) -> dict[str, list[str]]:
    """Numbers of the last table of a section, as they are written, by the line's first cell."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    out: dict[str, list[str]] = {}
    for number, (name, *cells) in enumerate(rows[1:]):
        found = re.findall(r"[-+]?\d*\.?\d+", " ".join(cells).replace("–", " "))
        out[f"{number} {name.strip()}"] = found
    return out


def agree(written: list[str], values: list[float]) -> None:
    """Each to half a unit of its last digit."""
    for text, value in zip(written, values, strict=True):
        digits = len(text.partition(".")[2])
        assert float(text) == pytest.approx(value, abs=0.51 * 10.0**-digits), text


def changed(study: str) -> pd.DataFrame:
    """Rows of a study with the change of KL since the start of their seed."""
    rows = llm_text()
    rows = rows[rows.study == study]
    return rows.assign(change=since_start(rows))


def test_recipes():
    rows = llm_text()
    rows = rows[rows.study == "recipe"].set_index(["arm", "round", "seed"]).sort_index()
    arms = [f"author, a=1/2{end}" for end in ("", ", own at temperature 0.7",
            ", own at temperature 0", ", cut own ended", ", own of a cut prompt")]  # fmt: skip
    arms += [f"spin{end}" for end in ("", ", own at temperature 0.7", ", cut own ended",
             ", own of a cut prompt")]  # fmt: skip
    arms += [f"{arm}{end}" for arm in ("ipo", "spif") for end in ("", ", by length")]
    columns = {"kl": "kl_before", "reverse_kl": "reverse_kl_before",
               "after_truncated_own": "held_out_truncated_own"}  # fmt: skip
    found = lines("The text game: recipes")
    for arm, written in zip(arms, found.values(), strict=True):
        start = rows.loc[arm, 0]
        agree(written, [
            float((rows.loc[arm, number][column] - start[before]).mean())
            for column, before in columns.items() for number in (0, 1)
        ])  # fmt: skip


def test_what_the_recipes_errors_cost():
    """The second round: less the same loss without the error, and how far a round moves IPO."""
    rows = llm_text()
    rows = rows[(rows.study == "recipe") & (rows["round"] == 1)]
    kl, moved = (rows.pivot(index="seed", columns="arm", values=c) for c in ("kl", "kl_step"))
    cost = {
        "spif, by length": ("spif", 5.3, 0.051),
        "ipo, by length": ("ipo", 25, 0.51),
        "author, a=1/2, own of a cut prompt": ("author, a=1/2", 0.13, 0.0051),
    }
    for arm, (plain, told, digit) in cost.items():
        assert (kl[arm] - kl[plain]).mean() == pytest.approx(told, abs=digit)
    assert moved["ipo, by length"].mean() == pytest.approx(30, abs=0.51)
    assert moved["ipo"].mean() == pytest.approx(0.4, abs=0.051)
    assert rows.held_out_length_expert.mean() == pytest.approx(28, abs=0.51)


def test_a_sixth_of_the_data():
    rows = changed("few")
    means = rows.groupby(["arm", "lr", "round"]).change.mean()
    found = lines("The text game: a sixth of the data")
    arms = ("sft, in rounds", "spif, per token", "author, a=1/2")
    for arm, written in zip(arms, found.values(), strict=True):
        own = [means[arm, lr] for lr in sorted(rows.lr.unique())]
        agree(written, [float(x) for each in own for x in (each.min(), each.iloc[-1])])


def test_a_learner_that_can_be_the_expert():
    rows = llm_text()
    mine = rows[(rows.study == "realisable") & rows.epochs.eq(4)]
    means = mine.groupby(["arm", "round"]).kl.mean()
    found = lines("The text game: a learner that can be the expert")
    for arm, written in zip(("sft, in rounds", "author, a=1/2", "spif, per token"), found.values(),
                            strict=True):  # fmt: skip
        agree(written, means[arm].tolist())
    assert mine[mine["round"] == 0].kl_before.mean() == pytest.approx(28.0, abs=0.051)
    chosen = rows[rows.study == "chosen realisable"].pivot(index="seed", columns="arm", values="kl")
    behind = chosen.sub(chosen.sft, axis=0).mean()
    assert chosen.sft.mean() == pytest.approx(18.2, abs=0.051)
    assert behind[["author, a=1/2", "spif, per token"]].tolist() == pytest.approx(
        [0.8, 1.8], abs=0.051
    )


def test_a_learner_that_can_be_the_expert_at_two_rates():
    rows = recorded_rows(llm_tiny(), llm_text())
    chosen = rows[rows.study == "chosen realisable of two settings"]
    kl = chosen.pivot(index="seed", columns="arm", values="kl")
    found = [interval(kl[arm] - kl["sft"]) for arm in ("author, a=1/2", "spif, per token")]
    agree(told("chosen of both, the loss is", "* What limits all of them"),
          [y for x in found for y in (x.mean, x.half)])  # fmt: skip


def test_new_responses_in_every_round():
    found = list(lines("The text game: four times the data").values())
    small, large = changed("fresh"), changed("fresh, larger rate")
    arms = ("sft, in rounds", "spif, per token", "author, a=1/2")
    for number, (arm, rows) in enumerate((a, r) for a in arms for r in (small, large)):
        (rate, *written), mine = found[number], rows[rows.arm == arm]
        assert mine.lr.unique().tolist() == [float(rate)]
        agree(written, mine.groupby("round").change.mean().tolist())
    once = small[small.arm == "sft"].groupby(["epochs", "lr"]).change.mean()
    for (rate, written), epochs in zip(found[6:], (4, 2, 4), strict=True):
        agree([written], [once[epochs, float(rate)]])


def test_new_responses_in_every_round_at_two_rates():
    rows = recorded_rows(llm_tiny(), llm_text())
    pair = ["author, a=1/2", "spif, per token"]
    kl = rows[rows.study == "chosen fresh of two settings"].pivot(
        index="seed", columns="arm", values="kl"
    )
    large = rows[(rows.study == "fresh, larger rate") & (rows["round"] == 3)]
    last = large.pivot(index="seed", columns="arm", values="kl")
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    sft, author, per_token = (last[arm].mean() for arm in ("sft, in rounds", *pair))
    assert f"at rate .001; {sft:.1f}, {per_token:.1f} and {author:.1f} at .003)" in readme
    found = [interval(kl[arm] - kl["sft"]) for arm in pair]
    found += [interval(last[arm] - last["sft, in rounds"]) for arm in pair]
    pairs = [[x.mean, x.half] for x in found]
    every = rows[rows.study.isin(["fresh", "fresh, larger rate"])].groupby(["arm", "round", "lr"])
    gain = every.kl.mean().unstack("lr").diff(axis=1)[0.003].xs(3, level="round")
    steps = every.kl_step.mean().loc[pair[0]].unstack("lr")
    ends = [steps[rate].agg(end) for rate in (0.003, 0.001) for end in ("min", "max")]
    agree(told("chosen of both, the chi^2 loss is", "and comes no nearer"), [
        *pairs[0], *pairs[1], 0.003, *pairs[2], *pairs[3], -gain[pair[1]], -gain[pair[0]],
        *ends, 0.001,
    ])  # fmt: skip
    chosen = rows[rows.study == "chosen fresh of two settings, temperature"]
    both = (chosen.kl + chosen.reverse_kl).groupby(chosen.arm).mean()
    agree(told("against 22.9 nats, of two rates", "## The text"), both[pair].tolist())


def test_where_a_dozen_rounds_go():
    rows = changed("destination")
    means = rows.groupby(["arm", "round"])[["change", "kl_to_sft", "kl_step"]].mean()
    found = lines("The text game: where a dozen rounds go")
    arms = ("sft, in rounds", "spif", "author, a=1/2", "spif, per token", "ipo", "spin")
    for arm, written in zip(arms, found.values(), strict=True):
        own = means.loc[arm]
        values = [own.change[number - 1] for number in (1, 4, 8, 12)]
        values += [own[column][at] for column in ("kl_to_sft", "kl_step") for at in (0, 11)]
        agree(written, [float(value) for value in values])


def test_rounds_in_rounds_of_sft_and_their_angles():
    """8.8, 8.7, 8.1, 6.2, 5.9 of SFT's, by interpolation; cosines, first and last, of the steps."""
    rows = changed("destination")
    change = rows.groupby(["arm", "round"]).change.mean().unstack()
    sft = np.r_[0.0, change.loc["sft, in rounds"]]
    worth = np.interp(-change[11], -sft, np.arange(13.0))
    told = {"author, a=1/2": 8.7, "ipo": 5.9, "sft, in rounds": 12.0, "spif": 8.8,
            "spif, per token": 8.1, "spin": 6.2}  # fmt: skip
    assert dict(zip(change.index, worth, strict=True)) == pytest.approx(told, abs=0.051)
    angles = rows[rows["round"].isin([0, 11])].groupby(["arm", "round"])
    first, last = (angles[f"cosine_{at}"].mean().dropna() for at in ("start", "end"))
    assert (first.min(), first.max()) == pytest.approx((0.68, 0.73), abs=0.005)
    assert last["ipo"].max() < 0.2 < 0.4 < last["spif"].min()


def test_a_preference_without_a_best_response():
    rows = llm_text()
    rows = rows[rows.study == "cyclic"]
    found = lines("The text game: a preference without a best response")
    cells = [(arm, column) for arm in ("sppo", "sppo, 0.1 anchor")
             for column in ("exploitability", "exploitability_average")]  # fmt: skip
    for (arm, column), written in zip(cells, found.values(), strict=True):
        own = rows[rows.arm == arm].groupby("round")[[column, "nll"]].mean()
        values = [float(own[column][number - 1]) for number in (1, 4, 7, 10, 12)]
        ends = [float(own.nll.iloc[-1])] if column == "exploitability" else []
        agree(written, values + ends)


def test_its_turn_and_growth_are_those_that_are_told():
    """42 degrees a round, so that an equal share of the exact reward grows by 1.35."""
    rows = llm_text()
    rows = rows[(rows.study == "cyclic") & (rows.arm == "sppo")].sort_values("round")
    turns, early, whole = [], [], []
    for _, own in rows.groupby("seed"):
        before = own[[f"class_{k}_before" for k in range(3)]].to_numpy()[:1]
        shares = np.concatenate([before, own[[f"class_{k}" for k in range(3)]].to_numpy()])
        place = np.log(shares) @ np.exp(2j * np.pi * np.arange(3) / 3)
        angle = np.unwrap(np.angle(place))
        turns.append(np.degrees(angle[-1] - angle[0]) / 12)
        early.append(np.abs(place[3] / place[0]) ** (1 / 3))
        whole.append(np.abs(place[-1] / place[0]) ** (1 / 12))
    turn = float(np.abs(turns).mean())
    assert turn == pytest.approx(42.0, abs=0.5)
    assert 1 / np.cos(np.radians(turn)) == pytest.approx(1.35, abs=0.01)
    assert np.mean(early) == pytest.approx(1.4, abs=0.05)
    assert np.mean(whole) == pytest.approx(1.2, abs=0.05)


def test_many():
    rows = llm_text()
    rows = rows[rows.study == "many"]
    found = lines("The text game: four times the data, kept")
    grid = [(arm, lr) for arm in ("sft, in rounds", "author, a=1/2") for lr in (0.001, 0.003)]
    for (arm, lr), (rate, *written) in zip(grid, found.values(), strict=True):
        assert float(rate) == lr
        cell = rows[(rows.arm == arm) & (rows.lr == lr)]
        agree(written, cell.groupby("round")["kl"].mean().to_list())


def test_what_is_said_of_many():
    rows = llm_text()
    rows = rows[rows.study == "chosen many"].set_index(["arm", "seed"])
    assert set(rows.lr) == {0.003}
    assert set(rows["round"]) == {3}
    behind = rows.kl["author, a=1/2"] - rows.kl["sft"]
    found = interval(behind)
    assert "ends 4.0 ± 2.2\n  nats behind SFT, 2.5 to 6.5 by seed" in PAGE
    said = [found.mean, found.half, float(behind.min()), float(behind.max())]
    agree(["4.0", "2.2", "2.5", "6.5"], said)


def test_twelve_passes_over_four_times_the_data():
    rows = llm_text()
    mine = rows[rows.study == "longer"]
    means = mine.groupby(["arm", "passes"]).kl.mean()
    found = lines("The text game: four times the data, twelve passes")
    for arm, written in zip(("sft, in rounds", "author, a=1/2"), found.values(), strict=True):
        agree(written, means[arm].tolist())
    chosen = rows[rows.study == "chosen longer"].set_index(["arm", "seed"])
    behind = chosen.kl["author, a=1/2"] - chosen.kl["sft"]
    at = rows[rows.study == "chosen longer temperature"].set_index(["arm", "seed"])
    both = at.kl + at.reverse_kl
    ways = interval(both["author, a=1/2"] - both["sft"])
    seen = interval(behind)
    agree(["0.52", "0.17", "0.35", "0.67"],
          [seen.mean, seen.half, float(behind.min()), float(behind.max())])  # fmt: skip
    agree(["1.62", "0.45"], [ways.mean, ways.half])
    last = {arm: set(chosen.passes[arm]) for arm in ("sft", "author, a=1/2")}
    assert (min(last["sft"]), max(last["sft"])) == (8, 11)
    assert (min(last["author, a=1/2"]), max(last["author, a=1/2"])) == (10, 12)
    assert means["author, a=1/2", 12] - means["author, a=1/2", 11] == pytest.approx(0.02, abs=5e-3)


def test_the_first_passes_are_those_of_the_shorter_record():
    """The same runs, made a day apart by other code: to all the digits that are kept."""
    rows = llm_text()
    first, again = (
        rows[(rows.study == study) & (rows.lr == 0.003) & (rows["round"] < 4)]
        .set_index(["arm", "seed", "round"]).kl.sort_index()
        for study in ("many", "longer")
    )  # fmt: skip
    pd.testing.assert_series_equal(first, again)


def test_rounds_at_the_larger_rate_and_at_two():
    rows = recorded_rows(llm_tiny(), llm_text())
    larger = rows[rows.study == "best, larger rate"].groupby(["method", "passes"]).kl.mean()
    named = {"sft": "SFT", "author, a=1/2": "the loss", "space": "SPACE",
             "spif, per token": "SPIF per token", "spin, per token": "SPIN per token"}  # fmt: skip
    for method, name in named.items():
        (line,) = re.findall(rf"\| \.\.\. at rate \.003, {name} \|(.*)\|\n", PAGE)
        agree(re.findall(r"[\d.]+", line), larger[method].tolist())
    chosen = rows[rows.study == "chosen of two settings"].set_index(["arm", "seed"])
    heated = rows[rows.study == "chosen of two settings, temperature"].set_index(["arm", "seed"])
    both = heated.kl + heated.reverse_kl
    behind = interval(chosen.kl["author, a=1/2"] - chosen.kl["sft"])
    ahead = interval(both["sft"] - both["author, a=1/2"])
    agree([".38", ".52", "1.20", "1.69"], [behind.mean, behind.half, ahead.mean, ahead.half])
    assert set(chosen.lr[["sft", "author, a=1/2"]]) == {0.003}
    assert set(chosen.passes["sft"]) == {8, 12}
    assert set(chosen.passes["author, a=1/2"]) == {20, 24}
    old = rows[rows.study.isin(["temperature", "best, larger rate temperature"])]
    old = old[(old.study == "temperature") | (old.method != "sft")]
    score = old.validation_kl + old.validation_reverse_kl
    least = score.groupby([old.method, old.seed]).idxmin()
    best = old.loc[least].set_index(["method", "seed"])
    sums = best.kl + best.reverse_kl
    unequal = interval(sums["sft"] - sums["author, a=1/2"])
    agree(["2.5", "1.1"], [unequal.mean, unequal.half])


def test_other_losses_at_two_rates():
    rows = recorded_rows(llm_tiny(), llm_text())
    chosen = rows[rows.study == "chosen of two settings"].set_index(["arm", "seed"])
    heated = rows[rows.study == "chosen of two settings, temperature"].set_index(["arm", "seed"])
    others = ("space", "spif, per token", "spin, per token")
    behind = [(x.mean, x.half) for kl in (chosen.kl, heated.kl + heated.reverse_kl)
              for x in (interval(kl[arm] - kl["sft"]) for arm in others)]  # fmt: skip
    agree(told("each, is farther behind SFT", "* **At the larger"), np.ravel(behind).tolist())
    apart = chosen.kl["space"] - chosen.kl["author, a=1/2"]
    found = interval(apart)
    agree([".79", ".20"], [found.mean, found.half])
    assert (apart > 0).all()
    pairs = [("spin, per token", "spif, per token"), ("spif, per token", "space")]
    found = [interval(chosen.kl[far] - chosen.kl[near]) for far, near in pairs]
    agree(["1.50", ".55", "1.1", ".3"], [y for x in found for y in (x.mean, x.half)])
    large = rows[(rows.study == "best, larger rate")].groupby(["method", "round"])
    reach = large.max_reward_other.mean()
    agree(["25", "47", "2.4", "3.6"],
          [f(reach[arm]) for arm in ("space", "author, a=1/2") for f in (min, max)])  # fmt: skip
    kl = large.kl.mean()
    assert kl["space"].idxmin() == 3
    assert kl["author, a=1/2"].idxmin() == 5


def test_each_of_two_losses_at_the_step_of_the_other():
    rows = recorded_rows(llm_tiny(), llm_text())
    other = rows[rows.study == "best, other step"].groupby(["method", "passes"]).kl.mean()
    for method, name in (("author, a=1/2", "step 1, the loss"), ("space", "step 2.5, SPACE")):
        (line,) = re.findall(rf"\| \.\.\. at rate \.003 and effective {name} \|(.*)\|\n", PAGE)
        agree(re.findall(r"[\d.]+", line), other[method].tolist())
    one = rows[rows.study == "chosen at one step"].set_index(["effective_step", "arm", "seed"])
    ahead, behind = (one.kl[step]["space"] - one.kl[step]["author, a=1/2"] for step in (2.4752, 1))
    assert (ahead > 0).all()
    assert (one.passes[1.0]["author, a=1/2"] == 24).all()
    kept = one.passes.loc[:, "space"]
    assert [f(kept[step]) for step in (2.4752, 1.0) for f in (min, max)] == [8, 16, 12, 20]
    three = rows[rows.study == "chosen of three settings"].set_index(["arm", "seed"]).kl
    found = [interval(x) for x in (ahead, -behind, three["space"] - three["author, a=1/2"])]
    numbers = [y for x in found for y in (x.mean, x.half)]
    first = rows[(rows["round"] == 0) & (rows.lr == 0.003) & rows.study.str.startswith("best, ")]
    moved = first.groupby(["method", "effective_step"]).kl_step.mean()
    numbers += [moved[of, step] for of in ("author, a=1/2", "space") for step in (1.0, 2.4752)]
    written = told("step 2.5 for both the loss ends", "; whether it is the bound")
    assert written.pop(6) == "2.5"  # a step
    agree(written, numbers)


def test_rounds_of_two_lengths_of_losses_that_the_rate_of_others_breaks():
    rows = recorded_rows(llm_tiny(), llm_text())
    longer = rows[rows.study == "best, longer rounds"].groupby(["method", "round"]).kl.mean()
    agree(told("in rounds of four", "after 4 to 24"), [*longer["spin"], *longer["ipo"]])
    chosen = rows[rows.study == "chosen of two settings"].set_index(["arm", "seed"]).kl
    for arm in ("spin", "ipo"):
        assert (chosen[arm] - chosen["author, a=1/2"]).mean() == pytest.approx(7.7, abs=0.051)


def told(before: str, after: str) -> list[str]:
    """Numbers of a sentence of the page, that begins and ends so."""
    text = re.sub(r"\s+", " ", PAGE)
    return re.findall(r"[-+]?\d*\.\d+|[-+]\d+", text.partition(before)[2].partition(after)[0])


def test_other_effective_steps_and_bounds_that_are_left():
    rows = llm_text()
    steps = rows[rows.study == "step"].assign(change=lambda rows: rows.kl - rows.kl_before)
    means = steps.groupby(["arm", "effective_step"]).change.mean()
    found = told("KL changes by", ": rewards per token need")
    agree(found, [means[arm, step] for arm in ("spif", "spif, per token", "spin", "ipo")
                  for step in (0.25, 2.5, 10.0)])  # fmt: skip
    rates = rows[(rows.study == "rate") & (rows.lr > 2e-4)]
    largest = rates.groupby(["arm", "lr"]).max_reward_other.mean()
    found = told("is, at the three rates,", "for IPO")
    agree(found, [x for arm in ("spif", "centred_spif", "ipo") for x in largest[arm].tolist()])


def test_what_one_schedule_starts_and_own_responses_say():
    rows = recorded_rows(llm_tiny(), llm_text())
    one = rows[rows.study == "chosen on one schedule"]
    kl = one.set_index(["arm", "seed", "prompts"]).kl
    arms = ("author, a=1/2", "space", "spif, per token", "spin, per token")
    again = [interval((kl[arm] - kl["sft"]).xs(3072, level="prompts")) for arm in arms]
    found = told("six models each, the loss is", "In three seeds")
    agree(found, [x for each in again for x in (each.mean, each.half)])
    ends = one[one.prompts == 12288].groupby("arm").kl.mean()
    assert [f"{ends[arm]:.1f}" for arm in ("sft", "spif, per token", "author, a=1/2")] == [
        "16.0", "19.4", "21.6"]  # fmt: skip
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert "(16.0 nats of SFT against 19.4 of SPIF per token and 21.6 of the first" in readme

    best = rows[rows.study == "best"]
    starts = best[best["round"] == 0].groupby("seed").kl_before.first()
    agree(told("The five are", "nats from the expert"), starts.tolist())
    chosen = rows[rows.study == "chosen"].set_index(["arm", "seed"])
    behind = chosen.kl["author, a=1/2"] - chosen.kl["sft"]
    agree(["2.3", "1.8"], behind.nlargest(2).tolist())
    assert set(behind.nlargest(2).index) == set(starts.nlargest(2).index)
    assert (chosen["round"]["author, a=1/2"] == 5).sum() == 3

    at = rows[rows.study == "chosen temperature"].set_index(["arm", "seed"])
    both = at.kl + at.reverse_kl
    alone, own = "author, expert term", "author, a=1/2"
    values = [chosen.kl[alone] - chosen.kl[own], both[own] - both[alone],
              chosen.kl["author, own of the start"] - chosen.kl[own],
              both[alone] - both["sft"]]  # fmt: skip
    found = told("Without them, its expert term alone is", "* A lower")
    agree(found, [x for each in map(interval, values) for x in (each.mean, each.half)])
