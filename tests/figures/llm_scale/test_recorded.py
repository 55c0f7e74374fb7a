"""The captions of the figures of recorded runs are true of what is drawn."""

import importlib
import json

import numpy as np
import pytest

from figures.catalogue import modules
from figures.llm_scale import llm_gap, llm_link, llm_stability, pretrained, text_rates
from figures.recorded import campaign, llm_text, llm_tiny
from figures.recorded import llm_gap as gap_rows
from figures.tidy import THEORY, as_text
from llm_scale.campaign.plan import CHECKED
from tests.figures.tables import drawn, is_drawn, part

RECORDED = {name: at for name, at in modules().items() if at.startswith("figures.llm_scale.")}


@pytest.mark.parametrize("name", RECORDED)
def test_what_is_drawn_is_what_is_recorded(name):
    figure = importlib.import_module(RECORDED[name])
    table = figure.table()
    is_drawn(figure, table)
    assert as_text(table) == as_text(drawn(name)), f"python -m figures {name}"


def test_llm_link():
    table = drawn("llm_link")
    for name in llm_link.PLAYED:
        for panel in ("slope", "correlation"):
            y = part(table, panel, objective=name).y.to_numpy()
            assert np.all(np.diff(np.abs(y - 1.0)) < 0.0)
        learned, link = (
            part(table, "points", objective=name, kind=k) for k in ("measured", THEORY)
        )
        assert np.array_equal(learned.x, link.x)
        assert np.corrcoef(learned.y, link.y)[0, 1] > 0.75
        kl = part(table, "kl", objective=name).y.to_numpy()
        sft = part(table, "kl", objective="sft", series="after the round").y.to_numpy()
        assert np.all(sft < kl)
    slopes = [part(table, "slope", objective=n).y.max() for n in llm_link.PLAYED]
    assert min(slopes) == slopes[0]


def test_llm_stability():
    table = drawn("llm_stability")
    spin, ipo, spif = (
        part(table, "rounds", objective=n, x=1.0).y.item() for n in ("spin", "ipo", "spif")
    )
    assert spin > ipo > spif
    assert part(table, "bound", objective="spif").y.max() < 2.0 * llm_stability.ETA
    exact, slope, noise, trained = part(table, "parts", objective="ipo").y
    assert slope < exact < noise
    assert abs(np.log(noise / trained)) < abs(np.log(exact / trained)) / 2
    levels = part(table, "level").y.to_numpy()
    assert np.all(np.diff(levels) < 0.0)
    near = part(table, "near")
    for name in ("equal data", "equal compute"):
        for x in (1.0, 2.0):
            sft = part(table, "near", objective="sft", series=name, x=x).y.item()
            assert sft < near[(near.objective != "sft") & (near.x == x)].y.min()


def test_llm_gap():
    """By hand from the rows: one seed's reports, the fall, who covers, and what bounds KL."""
    table, rows = drawn("llm_gap"), gap_rows()
    own = rows[(rows.name == "spif") & (rows.anchor == 3.0)]
    seed = own[own.seed == 0].sort_values("round")
    seen = part(table, "reported", objective="spif", series="3")
    np.testing.assert_allclose(seen.y, seed.sampled_gap, rtol=1e-4)
    np.testing.assert_allclose(seen.high - seen.low, 3.92 * seed.sampled_gap_se, rtol=1e-3)
    last = own[own["round"] == 3].set_index("seed").exact_gap
    share = last / own[own["round"] == 0].set_index("seed").exact_gap_before
    fall = part(table, "fall", objective="spif", series="3", x=4.0).y.item()
    assert fall == pytest.approx(np.exp(np.log(share).mean()), rel=1e-4)
    spin = rows[(rows.name == "spin") & (rows.anchor == 1.0)]
    for series, column in (("own", "covered_gap"), ("with pi_0", "covered_gap_ref")):
        found = part(table, "covered", objective="spin", series=series, x=1.0).y.item()
        given = spin[column.replace("covered", "given")]
        sums = spin.assign(hit=given * spin[column], given=given).groupby("seed")
        assert found == pytest.approx((sums.hit.sum() / sums.given.sum()).mean(), abs=1e-4)
    for name in llm_gap.PLAYED:
        ends = {
            s: part(table, "bound", objective=name, series=s) for s in ("reported", "exact gap")
        }
        assert all((panel.y > 1.0).all() for panel in ends.values())
        near = part(table, "bound", kind=THEORY, objective=name, series="near")
        power = {"spin": 1, "spif": 2}[name]
        np.testing.assert_allclose(near.y, (1.0 + 1.0 / near.x) ** power, rtol=1e-4)


def test_text_rates():
    table = drawn("text_rates")
    for name in text_rates.LEVELS:
        assert np.all(part(table, "levels", objective=name).y < 0.0)
    for panel in ("differences", "levels", "tokens"):
        sft = part(table, panel, objective="sft").y.to_numpy()
        for name in set(part(table, panel, kind="measured").objective) - {"sft"}:
            for _, curve in part(table, panel, objective=name).groupby("series"):
                assert np.all(curve.y.to_numpy() > sft)
    noise = part(table, "first", kind=THEORY, series="noise").y.to_numpy()
    np.testing.assert_allclose(noise, [*[0.5**0.5] * 3, 0.8**0.5], rtol=1e-5)
    spin, *author = part(table, "beta", kind="measured").y
    assert max(author) < 0.0 < spin


def test_changes_are_paired_by_seed():
    """By hand: IPO's means and those of its first steps, from the rows of the record."""
    rows = llm_text()
    rows = rows[(rows.study == "rate") & (rows.arm.isin(("ipo", "sft")))]
    change = {key: row.kl.item() - row.kl_before.item() for key, row in
              rows.groupby(["arm", "lr", "seed"])}  # fmt: skip
    seeds = range(5)
    table = drawn("text_rates")
    far = np.mean([change["ipo", 3e-3, seed] for seed in seeds])
    assert part(table, "differences", objective="ipo", x=3e-3).y.item() == pytest.approx(far, 1e-4)
    share = np.mean([change["ipo", 1e-4, s] / change["sft", 1e-4, s] for s in seeds])
    first = part(table, "first", objective="ipo", kind="measured").y.item()
    assert first == pytest.approx(share, 1e-4)


def test_text_rounds():
    """A quarter of old responses helps; SFT at its best is not beaten, at 24 passes its mean is."""
    table = drawn("text_rounds")
    old = table[(table.panel == "history") & (table.x == 3)].set_index("series").y
    assert old["0.25"] < old["0"]
    at = table[(table.panel == "passes") & (table.series == "rounds")].set_index(["objective", "x"])
    assert at.y["sft", 4] < at.y["spif", 4]
    assert at.y["sft", 24] > at.y["spif", 24]
    forward = table[(table.panel == "differences") & (table.series == "forward")]
    assert forward.high.iloc[0] > 0
    plane = table[table.panel == "plane"]
    for _, line in plane[plane.objective != "expert"].groupby("objective"):
        assert line.x.is_monotonic_increasing
        assert line.y.is_monotonic_decreasing


def test_text_fresh():
    """By hand: the chosen models' paired gap, and SFT in the same rounds ahead in each."""
    table, rows = drawn("text_fresh"), llm_text()
    chosen = rows[rows.study == "chosen fresh"]
    plane = table[(table.panel == "plane") & (table.series != "start")]
    for name, series, arm in (("sft", "", "sft"), ("spif", "per token", "spif, per token")):
        own = plane[(plane.objective == name) & (plane.series.fillna("") == series)]
        assert own.x.iloc[0] == pytest.approx(chosen[chosen.arm == arm].kl.mean(), abs=1e-3)
    read = table[(table.panel == "read") & (table.kind == "measured")]
    sft = read[read.series == "in rounds"].set_index("x").y
    for series in ("", "per token"):
        own = read[(read.objective == "spif") & (read.series.fillna("") == series)].set_index("x").y
        assert (own > sft).all()
        assert (own.diff().dropna() < 0).all()


def test_text_distance():
    """By hand from the rows: bounded rewards are learned far away, where they contract nothing."""
    table, rows = drawn("text_distance"), llm_text()
    rows = rows[rows.study == "distance"]
    for arm in ("spin", "spif", "ipo"):
        own = part(table, "slope", objective=arm).sort_values("x").y.to_numpy()
        mean = rows[rows.arm == arm].groupby("max_new_tokens").link_slope.mean()
        np.testing.assert_allclose(own, mean, atol=1e-5)
        assert (own.max() < 0.2) if arm == "spin" else (np.diff(own) > 0.2).all()
    factor = part(table, "contraction", objective="spif", kind="measured").sort_values("x").y
    exact = part(table, "contraction", objective="spif", kind=THEORY).sort_values("x").y
    assert factor.iloc[-1] == pytest.approx(exact.iloc[-1], abs=0.005)
    assert factor.iloc[0] - exact.iloc[0] > 0.25
    sft = part(table, "left", objective="sft").set_index("x").y
    assert sft.iloc[-1] < 0.5


def test_text_preferences():
    """By hand from the rows: one algorithm under two names, and DPO's wins and their cost."""
    table, rows = drawn("text_preferences"), llm_text()
    rows = rows[rows.study == "preferences"]
    last = rows[rows["round"] == 2].groupby("arm")[["win_rate_base", "nll"]].mean()
    names = ("sppo", "spif", "dpo")
    wins, change = (
        {name: part(table, panel, objective=name).set_index("x").y for name in names}
        for panel in ("wins", "change")
    )
    assert change["sppo"][1.0] == pytest.approx(change["spif"][1.0], abs=1e-3)
    assert wins["dpo"][3.0] == pytest.approx(last.win_rate_base["dpo"], abs=1e-5)
    assert wins["dpo"][3.0] > wins["sppo"][3.0] + 0.05
    gap = last.nll["dpo"] - last.nll["sppo"]
    assert change["dpo"][3.0] - change["sppo"][3.0] == pytest.approx(gap, abs=1e-3)


def test_text_destination():
    """By hand from the rows: all go toward the one model where SFT ends."""
    table, rows = drawn("text_destination"), llm_text()
    rows = rows[rows.study == "destination"]
    first = rows[rows["round"] == 0].groupby("arm")[["kl_before", "kl_step", "kl_to_sft"]].mean()
    last = rows[rows["round"] == 11].groupby("arm")[["kl", "kl_step", "kl_to_sft"]].mean()
    for arm in ("spin", "ipo", "spif"):
        change, end, step = (
            part(table, panel, objective=arm, series="").set_index("x").y
            for panel in ("kl", "end", "step")
        )
        assert change[12.0] == pytest.approx(last.kl[arm] - first.kl_before[arm], abs=1e-3)
        assert end[12.0] == pytest.approx(last.kl_to_sft[arm], abs=1e-4)
        assert step[1.0] == pytest.approx(first.kl_step[arm], abs=1e-5)
        assert end[12.0] < end[1.0]
    ends = rows.kl - rows.kl_gap_to_sft  # of one model a seed
    assert ends.groupby(rows.seed).std().max() < 0.01
    line = part(table, "kl", kind=THEORY, objective="expert").y.iloc[0]
    assert line == pytest.approx(ends.mean() - first.kl_before.mean(), abs=1e-3)


def test_text_cyclic():
    """By hand from the rows: the last model spirals away, average and anchored do not."""
    table, rows = drawn("text_cyclic"), llm_text()
    rows = rows[rows.study == "cyclic"]
    shares = rows[[f"class_{k}" for k in range(3)]].to_numpy()
    wins, loses = np.roll(shares, 1, axis=1), np.roll(shares, -1, axis=1)  # of class k, by k
    np.testing.assert_allclose(rows.exploitability, (wins - loses).max(-1) / 2, atol=1e-4)
    last = {
        panel: part(table, panel, objective="sppo", series="last").set_index("x").y
        for panel in ("free", "anchored")
    }
    free = rows[rows.arm == "sppo"].groupby("round").exploitability.mean()
    np.testing.assert_allclose(last["free"], free, atol=1e-5)
    assert last["free"][7.0] > 4 * last["free"][1.0]
    average = part(table, "free", objective="sppo", series="average").set_index("x").y
    assert average.max() < 0.1
    assert last["anchored"].max() < 0.1
    turned = table[(table.panel == "path") & (table.objective == "sppo")].groupby("series")
    for _, path in turned:  # around equal shares, once at least
        angle = np.unwrap(np.arctan2(path.y - 1 / 3, path.x - 1 / 3))
        assert abs(angle[-1] - angle[0]) > 2 * np.pi


def test_text_recipes():
    """By hand from the rows: a temperature costs SPIN most, and the first author's loss little."""
    table, rows = drawn("text_recipes"), llm_text()
    rows = rows[rows.study == "recipe"].set_index(["arm", "round", "seed"]).sort_index()
    plain, cold = "author, a=1/2", "author, a=1/2, own at temperature 0.7"
    for series, number in (("round 0", 0), ("round 1", 1)):
        own = part(table, "forward", objective="spif", series=series).set_index("x").y
        for place, arm in ((0.0, plain), (1.0, cold)):
            change = rows.kl.loc[arm, number] - rows.kl_before.loc[arm, 0]
            assert own[place] == pytest.approx(change.mean(), rel=1e-3)
    reverse = part(table, "reverse", objective="spif", series="round 1").set_index("x").y
    assert reverse[1.0] - reverse[0.0] > 1.5
    spin = part(table, "forward", objective="spin", series="round 0").set_index("x").y
    assert spin[1.0] - spin[0.0] > 10.0
    assert 2.0 not in spin.index


def test_text_rewards():
    """Rewards beyond their bound, hardly any mass outside where theory has nearly half of it."""
    table = drawn("text_rewards")
    assert np.all(part(table, "reward", objective="spif").low > 1.0)
    least = part(table, "outside", objective="spif", kind=THEORY)
    outside = part(table, "outside", objective="spif", kind="measured")
    assert np.all(outside.high < 0.1 * least.y.to_numpy())
    rows = llm_text()
    spif = rows[(rows.study == "length") & (rows.arm == "spif") & (rows.epochs == 4)]
    predicted = part(table, "longer", objective="spif", kind=THEORY, x=4.0).y.item()
    found = part(table, "longer", objective="spif", kind="measured", x=4.0).y.item()
    assert predicted == pytest.approx((1 - np.exp(spif.log_partition)).mean() / 2, rel=1e-4)
    assert found == pytest.approx(spif.dumped.mean(), rel=1e-4)
    slope = part(table, "slope", objective="spin")
    assert slope[slope.x == 4].y.item() < 0.1


def test_pretrained():
    table, rows = drawn("pretrained"), campaign()
    lists = rows[rows.study == "checked"]
    assert set(lists.lr) == {3e-4, CHECKED.start_rate}
    for panel, fast, lr in (("lists", "", 3e-4), ("lists", pretrained.FAST, CHECKED.start_rate)):
        spin = lists[(lists.arm == "spin") & (lists.lr == lr)]
        found = part(table, panel, objective="spin", series=fast).y.item()
        assert found == pytest.approx((spin.nll - spin.nll_before).mean(), abs=1e-4)
    right = part(table, "right", kind=THEORY, objective="expert").y.iloc[0]
    assert right == pytest.approx(lists.match_greedy_before.mean(), abs=1e-4)
    fallen = part(table, "right", objective="spin", series=pretrained.FAST)
    assert fallen.high.item() < right
    assert set(part(table, "verses").objective) == {"sft", "spif", "spin"}


def test_without_a_record_of_the_text_game_there_are_no_rows(tmp_path):
    assert llm_text(tmp_path).empty


def test_a_record_belongs_to_the_regime_of_its_preset(tmp_path):
    for name, preset in (("rates", "text-cpu"), ("real", "verses-cpu")):
        rows = [{"study": name, "seed": 1, **({"kl": 2.0} if name == "rates" else {"nll": 3.0})}]
        found = {"provenance": {"preset": preset}, "rows": rows}
        (tmp_path / f"llm_text_{name}.json").write_text(json.dumps(found))
    assert campaign(tmp_path).set_index("study").regime.to_dict() == {
        "rates": "real text", "real": "135M"
    }  # fmt: skip
    text = llm_text(tmp_path)
    assert list(text.study) == ["rates"]
    assert "nll" not in text


def test_a_table_that_is_not_there_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="make llm-tiny"):
        llm_tiny(tmp_path / "llm_tiny.json")
    (tmp_path / "llm_tiny.json").write_text(json.dumps({"rows": [{"objective": "spif(c=1)"}]}))
    assert llm_tiny(tmp_path / "llm_tiny.json").name.tolist() == ["spif"]
