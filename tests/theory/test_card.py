"""Theory cards are computed: they equal the closed forms, for any parameters and for strangers."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.objectives.test_links import FEW, applies
from tests.theory.strategies import Instance, games, label
from theory import InvalidInput, Unavailable, objectives, self_play, theory_card, xp
from theory.card import markdown_table
from theory.checks import theorems as checks
from theory.objectives import Group, Objective, Pairwise, Pointwise

INF, NAN = math.inf, math.nan
positive = st.floats(0.05, 20.0)
unit = st.floats(0.02, 0.98)


def spif_row(c: float, alpha: float) -> tuple:
    bounds = -1 / (2 * c * (1 - alpha)), 1 / (2 * c * alpha)
    return 1 / (8 * c * alpha * (1 - alpha)), 0.0, 1 / (2 * c), bounds


LINE = (-INF, INF)
ROWS = {
    # L, mu, R'(0), bounds
    "spif": spif_row,
    "centred_spif": lambda c: spif_row(c, 0.5),
    "iq_learn": lambda c: (INF, 0.0, 1 / (2 * c), (-INF, 1 / (2 * c))),
    "policy_only": lambda c: (INF, 0.0, 1 / (2 * c), (-1 / (2 * c), INF)),
    "nwj": lambda: (1.0, 1.0, 1.0, LINE),
    "exponential": lambda: (0.5, 0.5, 0.5, LINE),
    "gail": lambda: (1.0, 0.0, 0.5, (0.0, INF)),
    "airl": lambda: (1.0, 1.0, 1.0, LINE),
    "space": lambda mu: (1.0, 1.0, 1.0, LINE),
    "brier": lambda: (1.0, 1.0, 1.0, LINE),
    "ipm": lambda bound: (INF, 0.0, INF, (-bound, bound)),
    "sppo": lambda: (0.25, 0.0, 0.25, (-0.5, 0.5)),
    "spin": lambda: (1.0, 1.0, 1.0, LINE),
    "dpo": lambda: (1.0, 1.0, 1.0, LINE),
    "spin_exponential": lambda: (0.5, 0.5, 0.5, LINE),
    "ipo": lambda margin: (margin / 2, 0.0, margin / 2, (-margin, margin)),
    "inpo": lambda margin: (margin / 2, 0.0, margin / 2, (-margin, margin)),
    "alpha_spin": lambda base_weight: (1.0, 1.0, 1.0, LINE),
    "renyi": lambda order: (1.0, 1.0, 1.0, LINE),
}
"""The table of the theory: L, mu, R'(0) and reward bounds as functions of the parameters."""


def drawn(name: str, data: st.DataObject) -> dict[str, float]:
    cls = type(objectives.get(name))
    ranges = {p: unit if p in cls.unit else positive for p in vars(objectives.get(name))}
    return {p: data.draw(values, label=p) for p, values in ranges.items()}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.claim("T1.increasing", regime="tabular")
@given(data=st.data())
def test_card_is_the_table(claim, name: str, data: st.DataObject) -> None:
    parameters = drawn(name, data)
    card = theory_card(objectives.get(name, **parameters))
    upper, lower, at_zero, bounds = ROWS[name](**parameters)
    claim.close(card.L, upper, atol=0, rtol=1e-9, what="L = sup R'")
    claim.close(card.mu, lower, atol=1e-12, rtol=1e-12, what="mu = inf R'")
    claim.close(card.slope_at_zero, at_zero, atol=0, rtol=1e-12, what="R'(0)")
    claim.close(card.reward_bounds, bounds, atol=1e-12, rtol=1e-12, what="reward bounds")
    if name == "sppo":
        assert math.isnan(card.stability_beta)
        assert math.isnan(card.descent_beta)
    elif name == "alpha_spin":  # a change of log pi_t reaches the opponent by 1 - base_weight
        share = 1 - parameters["base_weight"]
        threshold = share / (1 + share)
        claim.close(card.stability_beta, threshold, 1e-5, what="stability", because="solver")
        assert math.isnan(card.descent_beta)
    else:
        claim.close(card.stability_beta, at_zero / 2, atol=0, rtol=1e-12, what="stability")
        claim.close(card.descent_beta, upper, atol=0, rtol=1e-9, what="descent")


SHIFT_INVARIANT = {"spin", "dpo", "spin_exponential", "ipo", "inpo", "alpha_spin"}
EXACT = SHIFT_INVARIANT | {"centred_spif", "renyi"}
CLASSIC = {"iq_learn", "policy_only", "nwj", "exponential", "airl", "space", "brier", "ipm", "gail"}
MLE = CLASSIC - {"ipm", "gail"} | EXACT - {"inpo", "alpha_spin"} | {"spif", "spin_hinge"}
GRADIENT = {
    "spif": (-1, 1),
    "iq_learn": (-1, 1),
    "policy_only": (-1, 1),
    "nwj": (-1, math.exp(-1)),
    "exponential": (-1, 1),
    "airl": (-0.5, 0.5),
    "space": (-0.5, 0.5),
    "brier": (-0.25, 0.25),
    "sppo": (-1, 1),
    "spin": (-0.5, 0.5),
    "dpo": (-0.5, 0.5),
    "spin_hinge": (-1, 1),
    "spin_exponential": (-1, 1),
    "ipo": (-2, 2),
    "inpo": (-1, 1),
    "tspin": (-0.5, 0.45),
    "alpha_spin": (-0.5, 0.5),
    "centred_spif": (-1, 1),
    "renyi": (-1, 1),
}
"""Derivatives of the loss of a pair at log-ratio 0: -a'(0) and -b'(0), or l'(0) and -l'(0)."""


def test_what_cards_say_of_one_step_and_destination() -> None:
    cards = {name: theory_card(objectives.get(name)) for name in objectives.names()}
    assert {n for n, card in cards.items() if card.one_step_exact} == EXACT
    assert {n for n, card in cards.items() if card.fixed_point_is_mle} == MLE
    for name, card in cards.items():
        expected = GRADIENT.get(name, (NAN, NAN))
        np.testing.assert_allclose(card.gradient_at_start, expected, atol=1e-14)
        assert ("one_step_exact" in card.reasons) == (name not in EXACT)
        assert ("fixed_point_is_mle" in card.reasons) == (name not in MLE)
    conic = {n: set(card.conic) for n, card in cards.items()}
    saddle = {n for n, kinds in conic.items() if "saddle" in kinds}
    assert saddle == CLASSIC | {"spif", "centred_spif"}
    assert {n for n, kinds in conic.items() if "equilibrium" not in kinds} == {
        "sppo", "spin_hinge", "tspin", "alpha_spin"
    }  # fmt: skip


def test_absent_values_have_a_reason() -> None:
    """NaN, "no" and "none" never stand alone, and what is present needs no excuse."""
    for name in objectives.names():
        card = theory_card(objectives.get(name))
        for field, shown in card.rows():
            assert shown.strip(), (name, field)
            if "nan" in shown.split(", "):
                pytest.fail(f"{name}: {field} is NaN without a reason")
            if shown.startswith("none"):
                assert len(shown) > len("none: ") + 15, (name, field, shown)
    hinge = dict(theory_card(objectives.get("spin_hinge")).rows())
    for field in ("L", "mu", "slope_at_zero", "reward_bounds", "stability_beta", "descent_beta"):
        assert hinge[field].startswith("none: the best response is a staircase, "), field
    assert dict(theory_card(objectives.get("spin")).rows())["conic"].startswith(
        "equilibrium; saddle: its payoff is a mean over pairs"
    )
    assert "formula from its prose" in str(theory_card(objectives.get("tspin")))


@pytest.mark.parametrize("obj", applies(checks.check_card), ids=label)
@pytest.mark.claim("T1.increasing", regime="tabular")
@FEW
@given(game=games(max_n=3))
def test_slopes_stay_within_the_card(claim, obj: Objective, game: Instance) -> None:
    checks.check_card(obj, game, claim)


def test_every_card_is_quick() -> None:
    theory_card(objectives.get("spif"))  # torch is loaded by the first one
    for name in objectives.names():
        start = time.process_time()
        theory_card(objectives.get(name))
        assert time.process_time() - start < 1.0, name


@pytest.mark.claim("T6.local_rate", "T6.stable", "T6.diverges", regime="tabular")
@pytest.mark.parametrize("name", ["spin", "spif", "exponential", "gail", "ipo", "centred_spif"])
def test_card_threshold_decides(claim, name: str) -> None:
    """Just above the card's threshold log-ratios shrink, just below they grow."""
    obj = objectives.get(name)
    beta = theory_card(obj).stability_beta
    expert = np.array([0.2, 0.3, 0.5])
    start = expert * np.exp([1e-6, -1e-6, 2e-6])
    start = start / start.sum()
    for factor, grows in ((1.02, False), (0.98, True)):
        path = self_play(expert, start, obj, beta=beta * factor, rounds=20)
        first, last = path.details["max_logratio"][[0, -1]]
        # |1 - R'(0)/beta| = 2/factor - 1 a round
        predicted = (2 / factor - 1) ** 20
        what = "growth over 20 rounds, up to log-ratios of 3e-6"
        claim.close(last / first, predicted, atol=0, rtol=3e-6, what=what, because="expansion")
        if grows:
            what = "growth of log-ratios over 20 rounds, 2 % below the threshold"
            claim.exhibits(last / first, 1.0, what=what, because="theory")
        else:
            claim.below(last, first, what="log-ratios shrink above the threshold")


# --- strangers -----------------------------------------------------------------------------------


class Cosh(Pointwise):
    """A penalty that grows exponentially: link ``asinh(tanh(u/2)/c)``, bounded."""

    name = "cosh"
    c = 0.5

    def a(self, r):
        return r - 0.5 * self.c * (xp.expm1(r) + xp.expm1(-r))

    def b(self, r):
        return -r - 0.5 * self.c * (xp.expm1(r) + xp.expm1(-r))


class Quartic(Pairwise):
    """A pair loss without a written link."""

    name = "quartic"

    def pair_loss(self, d):
        return (d - 1) ** 4


class Spread(Group):
    """A group risk that is not shift-invariant and has no link."""

    name = "spread"

    def group_risk(self, r_y, r_own, w_y, w_own):
        return xp.weighted_mean(r_own, w_own) - xp.weighted_mean(r_y, w_y) + r_y[..., 0] ** 2


def test_card_of_payoffs_alone() -> None:
    card = theory_card(Cosh())
    at = np.linspace(-20, 20, 200_001)
    slope = (0.5 / np.cosh(at / 2) ** 2) / np.sqrt(0.25 + np.tanh(at / 2) ** 2)
    assert pytest.approx(slope.max(), rel=1e-8) == card.L
    assert card.mu == pytest.approx(0, abs=1e-12)
    assert card.slope_at_zero == pytest.approx(1.0, rel=1e-12)
    assert card.reward_bounds == pytest.approx((-math.asinh(2), math.asinh(2)), rel=1e-12)
    assert card.stability_beta == pytest.approx(0.5, rel=1e-12)
    assert card.potential == "by quadrature of the link"
    assert card.conic == ()
    assert not card.one_step_exact
    assert card.fixed_point_is_mle
    assert card.gradient_at_start == pytest.approx((-1, 1))
    rows = dict(card.rows())
    assert "saddle: the definition gives no conic_game" in rows["conic"]


def test_a_slope_that_levels_off_slowly_is_bounded() -> None:
    class Slow(Pointwise):
        """R' = 1/(s(-r) + 0.2/(1 - 0.2 r)), which tends to 1 as 1/r for r -> -inf."""

        def a(self, r):
            return r - 0.1 * xp.square(r)

        def b(self, r):
            return -xp.softplus(r)

    r = np.linspace(-50, 4.999, 1_000_001)
    slope = 1 / (1 / (1 + np.exp(r)) + 0.2 / (1 - 0.2 * r))
    assert pytest.approx(slope.max(), rel=1e-8) == theory_card(Slow()).L


def test_card_of_relative_strangers() -> None:
    quartic = theory_card(Quartic())
    assert math.isnan(quartic.L)
    assert quartic.gradient_at_start == pytest.approx((-4, 4))
    assert quartic.fixed_point_is_mle
    assert quartic.one_step_exact  # its best response exists, though no link does
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    one, two = (self_play(p, q, Quartic(), 2.0, 2, one_step=o).policy for o in (True, False))
    np.testing.assert_allclose(one, two, atol=1e-9)
    spread = theory_card(Spread())
    assert spread.gradient_at_start == pytest.approx((-1, 1))
    assert not spread.one_step_exact

    class Inverted(Pairwise):
        def pair_loss(self, d):
            return d

        def link_formula(self, u, delta):
            return u

    inverted = theory_card(Inverted())
    assert not inverted.fixed_point_is_mle
    assert "does not reward expert" in inverted.reasons["fixed_point_is_mle"]
    assert inverted.one_step_exact

    class Shifted(Pointwise):  # GAIL's payoffs: no finite gradient at r = 0
        def a(self, r):
            return xp.namespace(r).log(-xp.expm1(-r))

        def b(self, r):
            return -r

    shifted = theory_card(Shifted())
    assert "no finite gradient" in shifted.reasons["fixed_point_is_mle"]
    assert "not defined at every" in shifted.reasons["one_step_exact"]
    assert (shifted.L, shifted.mu) == pytest.approx((1, 0), abs=1e-6)


def test_markdown_table() -> None:
    cards = [theory_card(objectives.get(n)) for n in ("spif", "spin_hinge", "gail")]
    lines = markdown_table(cards).splitlines()
    assert len(lines) == 5
    assert len({line.count("|") for line in lines}) == 1
    spif = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert spif[:7] == ["spif(c=1, alpha=0.5)", "pointwise", "0.5", "0", "0.5", "0.25", "-1, 1"]
    assert spif[7].startswith("KL(p‖alpha p")
    assert spif[8:] == ["no", "yes"]
    hinge = [cell.strip() for cell in lines[3].strip("|").split("|")]
    assert hinge == ["spin_hinge", "pairwise", *["–"] * 6, "no", "yes"]


def test_card_is_a_frozen_record() -> None:
    card = theory_card(objectives.get("spin"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        card.L = 3.0
    with pytest.raises(InvalidInput, match="needed is an objective"):
        theory_card(type(objectives.get("spin")))


def payoffs(a: str, b: str, link: str = "") -> Objective:
    """A stranger's payoffs, and a link where one is written."""
    names = {"xp": xp}
    body = {"a": eval(f"lambda self, r: {a}", names), "b": eval(f"lambda self, r: {b}", names)}
    if link:
        body["link_formula"] = eval(f"lambda self, u, delta: {link}", names)
    return type("Payoffs", (Pointwise,), body)()


RANGES = {  # mu, L, R'(0), bounds: by hand
    "sinh(u/2): a' rounds to 0": (
        "r - xp.sqrt(1 + r*r)", "-r - xp.sqrt(1 + r*r)", 0.5, INF, 0.5, -INF, INF,
    ),
    "(3r - 1)/2 = u^(1/3) at log 2": (
        "r - (r - 1)**4", "-2*r", 0.0, INF, None, -INF, 1 + 0.25 ** (1 / 3),
    ),
    "u^(10/11) at 0": ("r - xp.abs(r)**2.1", "-r - xp.abs(r)**2.1", 0.0, INF, INF, None, None),
    "u^2 at 0": ("r - xp.abs(r)**1.5", "-r - xp.abs(r)**1.5", 0.0, None, 0.0, -4 / 9, 4 / 9),
    "e^2u - 1 from a square root": ("2*xp.sqrt(1 + r)", "-r", 0.0, INF, 2.0, -1.0, INF),
    "e^u from 0": ("xp.log(r)", "-r", 0.0, INF, 1.0, 0.0, INF),
    "asinh((e^u-1)/(e^u+1))": (
        "r - xp.exp(r)/2 - xp.exp(-r)/2", "-r - xp.exp(r)/2 - xp.exp(-r)/2",
        0.0, 0.5, 0.5, -math.asinh(1), math.asinh(1),
    ),
    "both ends at a root": ("2*xp.sqrt(1 + r)", "2*xp.sqrt(1 - r)", 0.0, 1.0, 1.0, -1.0, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("case", RANGES.values(), ids=RANGES)
def test_an_end_without_bound_is_infinite(case) -> None:
    """Whatever rounding or the grid make of it: 2^25, 40 or 1e-20 are no suprema."""
    a, b, mu, upper, at_zero, low, high = case
    card = theory_card(payoffs(a, b))
    found = card.mu, card.L, card.slope_at_zero, *card.reward_bounds
    for value, wanted in zip(found, (mu, upper, at_zero, low, high), strict=True):
        if wanted is not None:
            assert value == pytest.approx(wanted, rel=1e-9, abs=0.0), found
    assert card.descent_beta == card.L
    assert "grid" in card.reasons["L"]
    assert "grid" in dict(card.rows())["mu"]


def test_a_written_link_is_as_steep_as_it_is() -> None:
    """A steep smooth link is none that jumps, a root is infinitely steep, a cusp is finite."""
    linear = "r - r*r", "-r - r*r"
    for link, upper, at_zero in (
        ("xp.tanh(1e6 * u)", 1e6, 1e6),
        ("xp.sign(u)", INF, INF),
        ("u + xp.sign(u - 0.3) * xp.sqrt(xp.abs(u - 0.3))", INF, 1 + 0.5 / 0.3**0.5),
        ("u + xp.sign(u) * xp.abs(u)**0.9", INF, INF),
        ("xp.asinh(u)", 1.0, 1.0),
    ):
        card = theory_card(payoffs(*linear, link))
        assert pytest.approx(upper, rel=1e-9) == card.L, link
        assert card.slope_at_zero == pytest.approx(at_zero, rel=1e-9), link
    assert "grid" not in theory_card("ipm").reasons.get("L", "")  # written, not looked for
    flat = payoffs("r - xp.abs(r)**1.5", "-r - xp.abs(r)**1.5")
    with pytest.raises(Unavailable, match="flat at 0"):
        flat.beta_at(1.0)


def test_a_card_at_a_beta() -> None:
    """Effective step, eta and stability; what has no threshold says so."""
    step = theory_card("spif(c=0.5)").at(0.4)
    assert (step.effective_step, step.largest_move, step.locally_stable) == (
        2.5,
        (-5.0, 5.0),
        False,
    )
    assert theory_card("spif(c=0.5)").at(0.51).locally_stable
    assert not theory_card("spif(c=0.5)").at(0.5).locally_stable  # at the threshold itself
    assert dict(theory_card("ipm").at(1.0).rows())["largest_move"] == "-1, 1"
    assert theory_card("sppo").at(1.0).locally_stable is None
    assert dict(theory_card("sppo").at(1.0).rows())["locally_stable"] == "unknown"
    with pytest.raises(InvalidInput, match="beta=0"):
        theory_card("spin").at(0.0)
