"""Specifications, reserved and misspelt names, files with helpers, and the implicit reward."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from theory import InvalidInput, Unavailable, laws, objectives
from theory.objectives import Group, Objective, Pairwise, Pointwise
from theory.objectives.implicit import implicit_reward

HEAD = "from theory.objectives import Pointwise, register\n\n\n@register({name!r})\n"
BODY = "class Mine(Pointwise):\n    k: float = 1.0\n\n    def a(self, r):\n        return {a}\n\n"
BODY += "    def b(self, r):\n        return -r - self.k * r * r\n"
QUADRATIC = "r - self.k * r * r"


def written(path, name="mine", a=QUADRATIC, before=""):
    path.write_text(before + (HEAD + BODY).format(name=name, a=a))
    return path


def test_specifications(tmp_path) -> None:
    assert objectives.get("spif(c=0.5)") == objectives.get("spif", c=0.5)
    assert objectives.get("spif( c = 0.5, alpha=0.3 )").label == "spif(c=0.5, alpha=0.3)"
    assert objectives.get("spif(c=0.5)", alpha=0.3).label == "spif(c=0.5, alpha=0.3)"
    assert objectives.get("spin()") == objectives.of("spin")
    path = written(tmp_path / "own.py")
    assert objectives.get(f"{path}:mine(k=0.3)").label == "mine(k=0.3)"
    obj = objectives.get("ipo")
    assert objectives.of(obj) is obj


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("SPIF", "Did you mean 'spif'"),
        ("spif(c=x)", "'c=x'; needed is parameter=number"),
        ("spif(c=1", "needed is NAME, NAME"),
        ("spif(c=1, c=2)", "c is there twice"),
        ("spif(d=1)", "unknown parameter 'd'; it takes c, alpha"),
        (":spif", "no file before the colon"),
        ("nowhere.py:spif", "no such file"),
        ("spif(c=-1)", "needed is a number > 0"),
    ],
)
def test_wrong_specifications(spec: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        objectives.of(spec)


def test_names_in_a_file_that_it_does_not_register(tmp_path) -> None:
    path = written(tmp_path / "own.py")
    with pytest.raises(InvalidInput, match="registers mine"):
        objectives.get(f"{path}:other")
    with pytest.raises(InvalidInput, match="needed is an objective"):
        objectives.of(type(objectives.get("spin")))


def test_the_baselines_name_is_reserved(tmp_path) -> None:
    with pytest.raises(InvalidInput, match="'sft' is reserved: it is the supervised baseline"):
        objectives.load_file(written(tmp_path / "own.py", name="sft"))


def test_a_helper_beside_the_file_belongs_to_it_alone(tmp_path) -> None:
    for folder, factor in (("one", 1.0), ("two", 3.0)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "helper_of_mine.py").write_text(f"FACTOR = {factor}\n")
        path = written(
            tmp_path / folder / "own.py",
            name=folder,
            a="r - helper_of_mine.FACTOR * r * r",
            before="import helper_of_mine\n",
        )
        assert objectives.load_file(path) == [folder]
    assert [objectives.get(n).a(1.0) for n in ("one", "two")] == [0.0, -2.0]


@pytest.mark.parametrize(
    ("form", "name", "value", "message"),
    [
        (
            Pairwise,
            "pair_los",
            lambda self, d: -d,
            "pair_los is not read; did you mean 'pair_loss'",
        ),
        (Group, "grouprisk", lambda self, *a: 0, "did you mean 'group_risk'"),
        (Pointwise, "link_fromula", lambda self, u, d: u, "did you mean 'link_formula'"),
        (Pointwise, "postive", ("c",), "did you mean 'positive'"),
        (Pairwise, "loss", lambda self, d: -d, "loss is derived from the formulas"),
        (Pointwise, "link", lambda self, u: u, "link is derived from the formulas"),
    ],
)
def test_misspelt_and_overridden_names(form, name, value, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        objectives.register("mine")(type("Mine", (form,), {name: value}))


def test_helpers_of_other_names_are_left_alone() -> None:
    body = {"pair_loss": lambda self, d: d * d, "margin_of": lambda self, d: d, "_loss": 1}
    made = objectives.register("mine")(type("Mine", (Pairwise,), body))
    assert made().pair_loss(2.0) == 4.0


# --- what an objective says of itself ------------------------------------------------------------


def test_slope_and_beta_at() -> None:
    for name, slope in (("spin", 1.0), ("spif(c=2)", 0.25), ("ipo(margin=3)", 1.5)):
        obj = objectives.get(name)
        assert obj.slope_at_zero == pytest.approx(slope, rel=1e-12)
        assert obj.beta_at(4.0) == pytest.approx(slope / 4, rel=1e-12)
    assert objectives.get("ipm").slope_at_zero == math.inf
    with pytest.raises(Unavailable, match="its link jumps at 0"):
        objectives.get("ipm").beta_at(1.0)
    with pytest.raises(Unavailable, match="staircase"):
        objectives.get("spin_hinge").beta_at(1.0)
    for step in (0.0, -1.0, math.nan, "2"):
        with pytest.raises(InvalidInput, match="effective_step="):
            objectives.get("spin").beta_at(step)


def test_gains_domains_and_who_is_rewarded() -> None:
    gains = {n for n in objectives.names() if objectives.get(n).has_gain}
    assert gains == {"ipo", "inpo"}
    np.testing.assert_allclose(objectives.get("ipo").gain(np.array([0.0, 2.0])), [1.0, 0.5])
    assert objectives.get("ipm(bound=2)").reward_domain == (-2.0, 2.0)
    assert objectives.get("gail").reward_domain == (0.0, math.inf)
    assert objectives.get("spin").reward_domain == (-math.inf, math.inf)
    assert all(objectives.get(n).rewards_expert for n in objectives.names())

    class Backwards(Pairwise):
        def pair_loss(self, d):
            return objectives.get("spin").pair_loss(-d)

    assert not Backwards().rewards_expert
    assert Backwards().slope_at_zero == pytest.approx(-1.0)


def test_finite_groups_of_every_form() -> None:
    p, q = laws.random_law(np.random.default_rng(0), (2, 3, 4), 1.0)
    for name in ("spif", "spin", "ipo"):  # means over responses or pairs: no error is learned
        obj = objectives.get(name)
        np.testing.assert_array_equal(obj.finite_group_reward(p, q, 1, 3), obj.reward(p, q))
    centred = objectives.get("centred_spif(c=2)")
    one = centred.finite_group_reward(p, q, 1, 1)
    np.testing.assert_allclose(one, objectives.get("ipo(margin=1)").reward(p, q), atol=1e-12)
    exact = centred.finite_group_reward(p, q, math.inf, math.inf)
    np.testing.assert_allclose(exact, centred.reward(p, q), atol=1e-12)
    with pytest.raises(Unavailable, match=r"renyi has no best response to finite groups.*too many"):
        objectives.get("renyi").finite_group_reward(p, q, 64, 64)


def test_finite_groups_of_a_risk_without_a_closed_form() -> None:
    """The minimiser of the mean over all groups: centred SPIF's, found from its risk alone."""
    known = objectives.get("centred_spif(c=2)")

    class Twin(Group):
        def group_risk(self, r_y, r_own, w_y, w_own):
            return known.group_risk(r_y, r_own, w_y, w_own)

    twin = Twin()
    p, q = laws.random_law(np.random.default_rng(1), (2, 3, 4), 1.0)
    for sizes in ((1, 1), (1, 2), (2, 3), (math.inf, 2), (1, math.inf)):
        wanted = known.finite_group_reward(p, q, *sizes)
        np.testing.assert_allclose(twin.finite_group_reward(p, q, *sizes), wanted, atol=1e-12)
    p, q = laws.random_law(np.random.default_rng(2), (2, 1, 200), 1.0)  # taken together by u
    wanted = known.finite_group_reward(p, q, 1, 2)
    off = laws.expect(0.5 * (p + q), np.square(twin.finite_group_reward(p, q, 1, 2) - wanted))
    change = laws.expect(0.5 * (p + q), np.square(wanted - known.reward(p, q)))
    assert off < 1e-3 * change
    with pytest.raises(Unavailable, match="no best response to them was found"):
        objectives.get("renyi").finite_group_reward([0.6, 0.4], [0.3, 0.7], 1, 1)  # linear


@pytest.mark.parametrize("name", ["spif", "ipo", "centred_spif", "renyi", "sppo"])
def test_link_of_laws_is_the_written_link(name: str) -> None:
    obj: Objective = objectives.get(name)
    p, q = laws.random_law(np.random.default_rng(1), (2, 3, 4), 1.0)
    u = np.linspace(-2, 2, 5) * np.ones((3, 1))
    delta = laws.triangular(p, q)[:, None]
    np.testing.assert_array_equal(obj.link_of(p, q)(u), obj.link(u, delta))


def test_implicit_reward() -> None:
    rng = np.random.default_rng(2)
    now, opponent, anchor = rng.normal(-5, 2, (3, 4))
    spin, free = objectives.get("spin"), objectives.get("tspin")
    full = implicit_reward(spin, now, opponent, 0.7, anchor, 0.3)
    np.testing.assert_allclose(full, 0.7 * (now - opponent) + 0.3 * (now - anchor), rtol=1e-14)
    plain = implicit_reward(spin, now, opponent, 0.7)
    np.testing.assert_allclose(plain, 0.7 * (now - opponent), rtol=1e-14)
    np.testing.assert_allclose(implicit_reward(free, now, None, 0.7), 0.7 * now, rtol=1e-14)
    tensors = [torch.tensor(x) for x in (now, opponent, anchor)]
    ours = implicit_reward(spin, tensors[0], tensors[1], 0.7, tensors[2], 0.3)
    np.testing.assert_allclose(ours.numpy(), full, rtol=1e-14)
    x, y = full[:2], full[2:]
    extras = {"tau": 0.3, "expert_anchor": (now - anchor)[:2], "policy_anchor": (now - anchor)[2:]}
    ratio = now - opponent
    loss = spin.loss(ratio[:2], ratio[2:], 0.7, **extras)
    np.testing.assert_allclose(loss, spin.reward_loss(x, y), rtol=1e-13)
