"""Three strangers' objectives, each one definition in one file, get what a built-in of the form
gets: card, checks, exact rounds, one-step rounds, equilibrium; and a wrong version is caught."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq
from typer.testing import CliRunner

from theory import (
    InvalidInput,
    Unavailable,
    check_objective,
    equilibrium,
    laws,
    objectives,
    saddle_point,
    self_play,
    theory_card,
    xp,
)
from theory.__main__ import app
from theory.objectives import Objective
from theory.rounds.one_step import local_rate_one_step, one_step_round

HERE = Path(__file__).parent
SPECS = {n: f"{HERE / n}.py:{n}" for n in ("huber", "softmargin", "rooted")}
SLOPE = {"huber": 0.5, "softmargin": 0.5 / 1.2, "rooted": 0.5 / (2 * 0.55)}
"""R'(0): -l'/(2 l''); -A/V of the risk, A = -1/2 and V = 2 spread; 1/(b''/b' - a''/a')."""


@pytest.fixture(params=SPECS)
def stranger(request) -> Objective:
    return objectives.get(SPECS[request.param])


def drawn(seed: int, n: int = 5, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    p, q = laws.random_law(np.random.default_rng(seed), (2, 3, n), spread)
    return p, q


def test_card_and_checks(stranger: Objective) -> None:
    card = theory_card(stranger)
    slope = SLOPE[stranger.name]
    assert card.slope_at_zero == pytest.approx(slope, rel=1e-9)
    assert card.stability_beta == pytest.approx(slope / 2, rel=1e-9)
    assert stranger.beta_at(2.0) == pytest.approx(slope / 2, rel=1e-9)
    assert card.one_step_exact == (stranger.form != "pointwise")
    assert card.fixed_point_is_mle
    known = stranger.form == "pointwise"
    assert math.isfinite(card.L) == known
    if not known:
        assert "depends on both laws" in card.reasons["L"]
    checked = check_objective(stranger)
    assert checked.ok, checked
    checked.require()
    done = CliRunner().invoke(app, ["card", SPECS[stranger.name]])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"checked: {stranger.label}: ")


@pytest.mark.claim("T1.from_payoffs", "T1.group_and_pair", "T1.increasing", regime="tabular")
def test_link_of_laws_passes_through_the_rewards(claim, stranger: Objective) -> None:
    p, q = drawn(0)
    reward = stranger.reward(p, q)
    link = stranger.link_of(p, q)(np.log(p / q))
    claim.close(link, reward, atol=1e-9, what="link of the laws at the outcomes' log-ratios")
    grid = np.linspace(-3, 3, 25) * np.ones((3, 1))
    rise = np.diff(stranger.link_of(p, q)(grid))
    claim.exhibits(rise, 0.0, what="rise of the link over a quarter nat", because="theory")


@pytest.mark.claim("T1.group_and_pair", regime="tabular")
def test_pair_link_is_that_of_its_stationarity(claim) -> None:
    """e^u = sum_j p_j (-l'(r_j - r)) / sum_j q_j (-l'(r - r_j)), solved for one u by itself."""
    huber = objectives.get(SPECS["huber"])
    p, q = (law[0] for law in drawn(1))
    r = huber.reward(p, q)

    def slope(d):  # of Huber's loss at margin 1 and width 2, with the minus sign
        return np.clip(1.0 - d, -2.0, 2.0)

    def excess(x: float, u: float) -> float:
        return np.log((p * slope(r - x)).sum() / (q * slope(x - r)).sum()) - u

    for u in (-1.5, 0.2, 1.0):
        root = brentq(excess, r.min() - 0.3, r.max() + 0.3, args=(u,), xtol=1e-13)
        claim.close(huber.link_of(p, q)(np.array([u])), [root], atol=1e-10, what="link of laws")


@pytest.mark.claim("T1.increasing", regime="tabular")
def test_slope_at_zero_is_that_of_small_log_ratios(claim, stranger: Objective) -> None:
    p = drawn(2)[0]
    tilt = np.array([1.0, -2.0, 0.5, 3.0, -1.0])
    errors = []
    for size in (1e-2, 1e-3):
        q = p * np.exp(-size * tilt)
        q /= q.sum(-1, keepdims=True)
        u = np.log(p / q)
        u, r = (x - laws.expect(p, x)[..., None] for x in (u, stranger.reward(p, q)))
        errors.append(np.abs(r / u - stranger.slope_at_zero).max())
    claim.below(errors[1], 9e-6, what="|r/u - R'(0)| below the largest u^2", because="expansion")
    falls = "the error falls as u^2: hundredfold for u ten times smaller"
    claim.close(errors[1] / errors[0], 0.01, atol=1e-4, what=falls, because="expansion")


@pytest.mark.claim("T6.strangers", regime="tabular")
def test_exact_rounds_at_an_effective_step(claim, stranger: Objective) -> None:
    """Near the expert a round contracts by 1 - step, and diverges beyond step 2."""
    p = drawn(3)[0]
    start = p * np.exp(1e-5 * np.array([1.0, -2.0, 0.5, 3.0, -1.0]))
    start /= start.sum(-1, keepdims=True)
    for step in (0.5, 1.5, 2.2):
        path = self_play(p, start, stranger, beta=stranger.beta_at(step), rounds=4, progress=False)
        size = path.details["max_logratio"]
        rate = (size[-1] / size[0]) ** (1 / 4)
        what = "contraction a round, up to log-ratios of 3e-5"
        claim.close(rate, np.full(3, abs(1 - step)), atol=1e-5, what=what, because="expansion")


def partition_gap(obj: Objective, beta: float) -> np.ndarray:
    """Total variation between the policies of one step and of two."""
    p, q = drawn(4)
    one = one_step_round(p, q, obj, beta)
    two = self_play(p, q, obj, beta=beta, rounds=1, progress=False)
    return laws.total_variation(one.policy, two.policy)


@pytest.mark.claim("T3.one_loss_is_a_round", regime="tabular")
@pytest.mark.parametrize("name", ["huber", "softmargin"])
def test_one_step_is_two_steps(claim, name: str) -> None:
    obj = objectives.get(SPECS[name])
    beta = 2 * obj.slope_at_zero
    claim.below(partition_gap(obj, beta), 0.0, what="TV of one step and two", atol=1e-12)
    assert local_rate_one_step(obj, beta) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.claim("T3.pointwise_differ", regime="tabular")
def test_one_step_of_payoffs_is_another(claim) -> None:
    rooted = objectives.get(SPECS["rooted"])
    gap = partition_gap(rooted, 2 * rooted.slope_at_zero)
    claim.exhibits(gap.max(), 1e-6, what="total variation between one step and two")


@pytest.mark.claim("T10.fixed_point", "T10.rounds_end", regime="tabular")
@pytest.mark.parametrize("tau", [0.05, 0.5, 5.0])
def test_rounds_end_at_the_equilibrium(claim, stranger: Objective, tau: float) -> None:
    p, ref = drawn(5, n=4)
    end = equilibrium(p, ref, stranger, tau=tau)
    assert end.converged
    claim.below(end.gap, 1e-9, what="certified gap", because="solver")
    reward = stranger.reward(p, end.policy)
    weight = ref * np.exp((reward - reward.max(-1, keepdims=True)) / tau)
    target = weight / weight.sum(-1, keepdims=True)
    claim.close(end.policy, target, atol=1e-9, what="pi = ref e^{r/tau}/Z at its best response")
    path = self_play(p, end.policy, stranger, beta=1.0, rounds=1, ref=ref, tau=tau, progress=False)
    claim.close(path.policy, end.policy, atol=1e-9, what="a round stays there")
    path = self_play(p, ref, stranger, beta=1.0, rounds=60, ref=ref, tau=tau, progress=False)
    claim.close(path.policy, end.policy, atol=1e-8, what="rounds from the reference end there")


@pytest.mark.claim("T10.fixed_point", regime="tabular")
@pytest.mark.parametrize("name", ["huber", "softmargin"])
def test_equilibrium_beyond_the_experts_support(claim, name: str) -> None:
    """Where the expert has no mass the reward stays finite, and the policy keeps some."""
    obj = objectives.get(SPECS[name])
    p, ref = np.array([0.6, 0.4, 0.0]), np.array([0.2, 0.5, 0.3])
    end = equilibrium(p, ref, obj, tau=0.5)
    weight = ref * np.exp(obj.reward(p, end.policy) / 0.5)
    claim.close(end.policy, weight / weight.sum(), atol=1e-9, what="pi = ref e^{r/tau}/Z")
    claim.exhibits(end.policy[2], 1e-3, what="mass beyond the expert")
    with pytest.raises(InvalidInput, match="expert has mass at"):
        equilibrium(ref, p, obj, tau=0.5)


def _call(formula):
    return lambda self, *given: formula(*given)


def test_numeric_twins_end_where_the_closed_forms_do() -> None:
    """The same losses without a link, gain or group link: reward, slope, equilibrium."""
    p, ref = drawn(6)
    for name, form, formula in (
        ("ipo", objectives.Pairwise, "pair_loss"),
        ("spin", objectives.Pairwise, "pair_loss"),
        ("centred_spif", objectives.Group, "group_risk"),
        ("renyi", objectives.Group, "group_risk"),
    ):
        known = objectives.get(name)
        twin = type("Twin", (form,), {formula: _call(getattr(known, formula))})()
        assert twin.law_dependent
        np.testing.assert_allclose(twin.reward(p, ref), known.reward(p, ref), atol=1e-12)
        assert twin.slope_at_zero == pytest.approx(known.slope_at_zero, rel=1e-12)
        ours, theirs = (equilibrium(p, ref, o, tau=0.3).policy for o in (twin, known))
        np.testing.assert_allclose(ours, theirs, atol=1e-10)


@pytest.mark.claim("T10.saddle_point", regime="tabular")
def test_saddle_point_of_the_payoffs(claim) -> None:
    p, ref = drawn(7)
    rooted = objectives.get(SPECS["rooted"])
    found = saddle_point(p, ref, rooted, tau=0.3)
    claim.below(found.gap, 1e-9, what="certified gap", because="solver")
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = found.reward + 0.3 * rng.standard_normal(p.shape)
        value = rooted.value(p, found.policy, found.reward)
        claim.below(rooted.value(p, found.policy, other), value, what="no reward pays more")


LOGISTIC = "xp.log_sigmoid(r)"
TORCH = "__import__('torch').nn.functional.logsigmoid(r)"
MEAN = "xp.weighted_mean(r_y, w_y), xp"
WRONG = {
    "rewards own responses": ("huber", "self.margin - d", "self.margin + d", "rewards own"),
    "not convex": ("huber", "near * (z - 0.5 * near)", "xp.tanh(0.5 * z * z)", "not convex"),
    "misspelt": ("huber", "def pair_loss", "def pair_los", "did you mean 'pair_loss'"),
    "numpy only": ("huber", "xp.abs(self", "__import__('numpy').abs(self", "theory.xp"),
    "ignores weights": ("softmargin", MEAN, "xp.mean(r_y, axis=-1), xp", "use the weights"),
    "group rewards own": ("softmargin", "own - expert", "expert - own", "rewards own"),
    "no minimum": ("softmargin", "self.spread *", "-self.spread *", "best response"),
    "convex payoff": ("rooted", "(r) - self.c", "(r) + 4 * self.c", "a is not concave"),
    "wrong signs": ("rooted", f"{LOGISTIC} -", "xp.log_sigmoid(-r) -", "decreases"),
    "torch only": ("rooted", LOGISTIC, TORCH, "theory.xp"),
    "NaN": ("rooted", "xp.sqrt(1.0 + xp.square(r))", "xp.sqrt(1.0 + r)", "NaN"),
}


@pytest.mark.parametrize(("name", "right", "wrong", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_version_is_the_first_line(tmp_path, name, right, wrong, message) -> None:
    code = (HERE / f"{name}.py").read_text()
    assert right in code
    path = tmp_path / f"{name}.py"
    path.write_text(code.replace(right, wrong, 1))
    done = CliRunner().invoke(app, ["card", str(path)])
    assert done.exit_code == 2, done.output
    first = (done.stdout or done.stderr).splitlines()[0]
    assert message in first, done.output
    assert "Traceback" not in done.output
    with pytest.raises(InvalidInput, match=re.escape(message)):
        check_objective(f"{path}:{name}").require()


def test_nothing_wrong_is_certified() -> None:
    """Whatever the unit of the loss: only a right link and potential have an equilibrium."""
    p, ref = drawn(8)

    def twin(unit: float, gain: float, weight: float):
        return type(
            "Twin",
            (objectives.Pairwise,),
            {
                "pair_loss": lambda self, d: unit * xp.softplus(-d),
                "link_formula": lambda self, u, delta: gain * u,
                "potential_formula": lambda self, policy, expert: (
                    weight * laws.kl_stable(policy, expert)
                ),
            },
        )()

    for unit in (1e-9, 1.0, 1e12):
        assert equilibrium(p, ref, twin(unit, 1.0, 1.0), tau=0.3).converged
        with pytest.raises(Unavailable, match="no best response"):
            equilibrium(p, ref, twin(unit, 1.1, 1.1), tau=0.3)
        with pytest.raises(Unavailable, match="potential_formula is"):
            equilibrium(p, ref, twin(unit, 1.0, 1.01), tau=0.3)


def test_more_that_is_caught(tmp_path) -> None:
    """Links that contradict the payoffs or the risk, linear payoffs, a verb that is overridden."""
    head = "from theory import xp\nfrom theory.objectives import Pairwise, Pointwise, register\n"
    payoffs = "    def a(self, r): return r - r*r/4\n    def b(self, r): return -r - r*r/4\n"
    linear = "    def a(self, r): return r\n    def b(self, r): return -r\n"
    pair = "    def pair_loss(self, d): return {}\n"
    link = "    def link_formula(self, u, delta): return {}\n"
    for body, message in (
        (f"Pointwise):\n{payoffs}{link.format('3.0 * u')}", "the link contradicts a and b"),
        (f"Pointwise):\n{payoffs}{link.format('1.9 * xp.tanh(u/2)')}", "the link contradicts"),
        (f"Pointwise):\n{linear}", "linear"),
        (f"Pairwise):\n{pair.format('xp.softplus(d)')}", "rewards own"),
        (f"Pairwise):\n{pair.format('xp.softplus(-d)')}{link.format('2.0 * u')}", "minimise"),
        (
            f"Pairwise):\n{pair.format('1e-9 * xp.softplus(-d)')}{link.format('2.0 * u')}",
            "minimise",
        ),
        (
            f"Pairwise):\n{pair.format('xp.softplus(-d)')}"
            f"{link.format('u * xp.where(xp.abs(u) > 3, 2.0, 1.0)')}",
            "minimise",
        ),
        (f"Pairwise):\n{pair.format('xp.softplus(-d) + 0.0 * xp.log(xp.abs(d))')}", "NaN"),
        (f"Pairwise):\n{pair.format('xp.softplus(-d) + 0.1 * xp.sqrt(d * d)')}", "NaN at 0"),
        (
            f"Pointwise):\n{payoffs}{link.format('2 * xp.tanh(u/2)')}"
            "    def density_link(self, p, q, delta): return p - q\n",
            "density_link is not",
        ),
        (f"Pairwise):\n{pair.format('-d')}", "linear"),
        (f"Pairwise):\n{pair.format('xp.softplus(-d) - d')}", "falls without bound"),
        ("Pairwise):\n    def loss(self, d): return d\n", "loss is derived from the formulas"),
        (f"Pointwise):\n{payoffs}    postive = ('c',)\n", "did you mean 'positive'"),
    ):
        path = tmp_path / "mine.py"
        path.write_text(f"{head}\n\n@register('mine')\nclass Mine({body}")
        done = CliRunner().invoke(app, ["card", str(path)])
        assert done.exit_code == 2, (body, done.output)
        assert message in (done.stdout or done.stderr).splitlines()[0], (body, done.output)
    path.write_text(f"{head}\n\n@register('mine')\nclass Mine(Pointwise):\n{payoffs}")
    assert check_objective(f"{path}:mine").ok
