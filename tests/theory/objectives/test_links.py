"""T1: the best response of every objective is its reward link; the links as the table has them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.theory.strategies import Instance, games, label
from theory import InvalidInput, laws, objectives, theory_card, xp
from theory.checks import theorems as checks
from theory.checks.game import Check, centred, reward_extras
from theory.objectives import Objective, Pointwise, derivatives

VARIANTS = [
    objectives.get("spif", c=0.7, alpha=0.2),
    objectives.get("spif", c=3.0, alpha=0.8),
    objectives.get("centred_spif", c=0.4),
    objectives.get("iq_learn", c=0.3),
    objectives.get("policy_only", c=2.0),
    objectives.get("ipm", bound=2.5),
    objectives.get("ipo", margin=0.3),
    objectives.get("space", mu=3.0),
    objectives.get("space", mu=0.2),
    objectives.get("renyi", order=0.3),
    objectives.get("alpha_spin", base_weight=0.25),
]
FEW = settings(max_examples=max(3, settings.default.max_examples // 4))
"""For checks whose every example is a numerical search."""
EVERY = [objectives.get(name) for name in objectives.names()] + VARIANTS


def applies(check: Check) -> list[Objective]:
    """Objectives to which a generic check applies."""
    return [obj for obj in EVERY if checks.CHECKS[check](obj) is None]


def over(check: Check):
    """Parametrise a test over the objectives to which the check applies."""
    return pytest.mark.parametrize("obj", applies(check), ids=label)


def holds(check: Check, *clauses: str, few: bool = False, **sizes: float):
    """The test of a generic check: each objective it applies to, on drawn games of these sizes."""

    @over(check)
    @pytest.mark.claim(*clauses, regime="tabular")
    @given(game=games(**sizes))
    def test(claim, obj: Objective, game: Instance) -> None:
        check(obj, game, claim)

    return FEW(test) if few else test


def test_what_the_checks_leave_out() -> None:
    """Each generic check covers the registry but for the named objectives."""
    pairwise = {"spin", "dpo", "spin_hinge", "spin_exponential", "ipo", "inpo", "tspin"}
    relative = pairwise | {"alpha_spin", "centred_spif", "renyi"}
    no_link = {"spin_hinge", "tspin"}
    left_out = {
        checks.check_best_response: no_link | {"ipm"},
        checks.check_optimised_risk: set(objectives.names()) - relative | no_link,
        checks.check_link_shape: no_link,
        checks.check_slope: no_link | {"ipm"},
        checks.check_derived_link: relative | {"ipm"},
        checks.check_one_sided: no_link,
        checks.check_extremes: set(),
        checks.check_numpy_and_torch: set(),
        checks.check_risk_is_expectation: {"gail", "ipm", "tspin", "centred_spif", "renyi"},
        checks.check_potential: no_link | {"sppo", "ipo", "inpo", "alpha_spin"},
        checks.check_card: no_link | {"ipm"},
        checks.check_round: no_link | {"sppo", "alpha_spin"},
        checks.check_conic_game: relative - {"centred_spif"} | {"sppo"},
        checks.check_conic_potential: no_link | {"sppo", "ipo", "inpo", "alpha_spin"},
        checks.check_saddle_point: relative - {"centred_spif"} | {"sppo"},
    }
    assert set(left_out) == set(checks.CHECKS)
    for check, names in left_out.items():
        assert {o.name for o in applies(check)} == set(objectives.names()) - names, check.__name__


# --- T1 ------------------------------------------------------------------------------------------


test_reward_is_the_best_response = holds(checks.check_best_response, "T1.best_response", max_n=6)
test_reward_minimises_the_risk = holds(
    checks.check_optimised_risk, "T1.group_and_pair", few=True, max_n=5, max_spread=1.0
)
test_link_increases_between_its_bounds = holds(checks.check_link_shape, "T1.increasing", max_n=3)
test_slope_is_the_derivative_of_the_link = holds(checks.check_slope, "T1.increasing", max_n=3)
test_link_solved_from_the_payoffs = holds(
    checks.check_derived_link, "T1.from_payoffs", few=True, max_n=3
)
test_one_sided_supports_and_padding = holds(checks.check_one_sided, "T1.best_response", max_n=5)
test_potential_is_the_integral_of_the_link = holds(
    checks.check_potential, "T5.mirror_descent", max_n=6
)
test_conic_game_is_the_game_value = holds(
    checks.check_conic_game, "T10.value", few=True, max_n=5, max_spread=1.5
)
test_conic_potential_is_the_potential = holds(
    checks.check_conic_potential, "T10.value", few=True, max_n=5, max_spread=1.5
)


@pytest.mark.claim("T1.best_response", "T10.value", regime="tabular")
@given(game=games(), bound=st.floats(0.1, 5))
def test_hard_bound_is_attained(claim, game: Instance, bound: float) -> None:
    """Linear payoffs: the best response sits on the bound, on the side that the laws say."""
    obj = objectives.get("ipm", bound=bound)
    p, q = game.expert, game.start
    reward = obj.reward(p, q)
    claim.close(reward, np.where(p > q, bound, -bound), atol=0, what="bound * sign(p - q)")
    value = obj.value(p, q, reward)
    claim.close(value, 2 * bound * laws.total_variation(p, q), atol=1e-14, rtol=1e-13, what="2B TV")
    for _ in range(5):
        other = game.rng.uniform(-bound, bound, p.shape)
        claim.below(obj.value(p, q, other), value, what="no reward within the bound pays more")


# --- the table -----------------------------------------------------------------------------------

TABLE = {
    "spif": lambda p, q, o: (p - q) / (2 * o.c * (o.alpha * p + (1 - o.alpha) * q)),
    "iq_learn": lambda p, q, o: (1 - q / p) / (2 * o.c),
    "policy_only": lambda p, q, o: (p / q - 1) / (2 * o.c),
    "nwj": lambda p, q, o: 1 + np.log(p / q),
    "exponential": lambda p, q, o: np.log(np.sqrt(p / q)),
    "gail": lambda p, q, o: np.log((p + q) / q),
    "airl": lambda p, q, o: np.log(p / q),
    "space": lambda p, q, o: np.log(p / q),
    "brier": lambda p, q, o: np.log(p / q),
    "ipm": lambda p, q, o: np.where(p > q, o.bound, -o.bound),
    "sppo": lambda p, q, o: p / (p + q) - 0.5,
    "spin": lambda p, q, o: np.log(p / q),
    "dpo": lambda p, q, o: np.log(p / q),
    "spin_exponential": lambda p, q, o: np.log(p / q) / 2,
    "ipo": lambda p, q, o: o.margin / (2 - overlap(p, q)) * (p - q) / (p + q),
    "inpo": lambda p, q, o: o.margin / (2 - overlap(p, q)) * (p - q) / (p + q),
    "alpha_spin": lambda p, q, o: np.log(p / q),
    "centred_spif": lambda p, q, o: (p - q) / (o.c * (p + q)),
    "renyi": lambda p, q, o: np.log(p / q),
}
"""Rewards as fractions of the laws, written without any link."""


def overlap(p, q):
    """``2 sum p q/(p+q) = 1 - Delta/2``."""
    return 2 * (p * q / (p + q)).sum(-1, keepdims=True)


VALUE = {
    "spif": lambda p, q, o: ((p - q) ** 2 / (o.alpha * p + (1 - o.alpha) * q)) / (4 * o.c),
    "centred_spif": lambda p, q, o: ((p - q) ** 2 / (p + q)) / (2 * o.c),
    "iq_learn": lambda p, q, o: (p - q) ** 2 / p / (4 * o.c),
    "policy_only": lambda p, q, o: (p - q) ** 2 / q / (4 * o.c),
    "nwj": lambda p, q, o: p * np.log(p / q),
    "exponential": lambda p, q, o: -2 * np.sqrt(p * q),
    "gail": lambda p, q, o: p * np.log(p / (p + q)) + q * np.log(q / (p + q)),
    "airl": lambda p, q, o: p * np.log(p / (p + q)) + q * np.log(q / (p + q)),
    "space": lambda p, q, o: (
        p * np.log(p / (p + o.mu * q)) + o.mu * q * np.log(o.mu * q / (p + o.mu * q))
    ),
    "brier": lambda p, q, o: -p * q / (p + q),
    "ipm": lambda p, q, o: o.bound * np.abs(p - q),
}
"""Game values ``max_r E_p[a(r)] + E_q[b(r)]``, an outcome's share."""


@pytest.mark.parametrize("obj", [o for o in EVERY if o.has_link], ids=label)
@pytest.mark.claim("T1.best_response", regime="tabular")
@given(game=games())
def test_links_of_the_table(claim, obj: Objective, game: Instance) -> None:
    p, q = game.expert, game.start
    expected = TABLE[obj.name](p, q, obj)
    if obj.up_to_constant:
        expected = centred(expected, q)
    reward = obj.reward(p, q, **reward_extras(obj, p))
    claim.close(reward, expected, atol=1e-12, rtol=1e-10, what="reward as a fraction of the laws")


@pytest.mark.parametrize("obj", [o for o in EVERY if o.has_saddle], ids=label)
@pytest.mark.claim("T10.value", regime="tabular")
@given(game=games())
def test_game_values(claim, obj: Objective, game: Instance) -> None:
    p, q = game.expert, game.start
    reward = obj.link(np.log(p / q))
    expected = VALUE[obj.name](p, q, obj).sum(-1)
    claim.close(obj.value(p, q, reward), expected, atol=1e-11, rtol=1e-10, what="game value")


@pytest.mark.claim("T5.value_is_potential", regime="tabular", drops="b_is_minus_r")
@given(game=games(max_n=6))
def test_spif_game_value_is_not_its_potential(claim, game: Instance) -> None:
    """T5: the value of a round is Delta/(2c); the potential that it descends is another one."""
    p, q = game.expert, 0.5 * (game.start + game.expert)
    spif, iq = objectives.get("spif"), objectives.get("iq_learn")
    gap = spif.potential(q, p) - 0.5 * laws.triangular(p, q)
    size = np.abs(np.log(p / q)).max()
    if size > 1e-2:
        claim.exhibits(np.abs(gap).max(), at_least=1e-12, what="|D_Phi - game value| of SPIF, nats")
    value = iq.value(p, q, iq.link(np.log(p / q)))
    claim.close(value, iq.potential(q, p), atol=1e-13, rtol=1e-9, what="b = -r: they are equal")


# --- a stranger's definition: payoffs alone -------------------------------------------------------


def payoffs_of(obj: Objective) -> Objective:
    """A definition with the payoffs of a registered objective and nothing else."""

    class OnlyPayoffs(Pointwise):
        name = f"payoffs of {obj.name}"

        def a(self, r):
            return obj.a(r)

        def b(self, r):
            return obj.b(r)

    return OnlyPayoffs()


class Canonical(Pointwise):
    """``b = -r`` and ``a'(r) = e^{-u(r)}`` for the link tanh: a is undefined below -1."""

    name = "canonical"

    def a(self, r):
        return 2 * derivatives.xp.namespace(r).log1p(r) - r

    def b(self, r):
        return -r


class HalfLine(Pointwise):
    """GAIL's payoffs moved by 1.3: undefined below, and 0 is outside of the domain."""

    name = "half_line"

    def a(self, r):
        return derivatives.xp.namespace(r).log(-derivatives.xp.expm1(1.3 - r))

    def b(self, r):
        return -r


class LeftHalfLine(Pointwise):
    """Defined below -1.3 only, and scaled, which changes no best response."""

    name = "left_half_line"

    def a(self, r):
        return 0.3 * r

    def b(self, r):
        return 0.3 * derivatives.xp.namespace(r).log(-derivatives.xp.expm1(1.3 + r))


DERIVED = [o for o in applies(checks.check_derived_link) if o not in VARIANTS[2:-1]]
DERIVED = [o for o in DERIVED if o.name != "sppo"]


@pytest.mark.parametrize("obj", DERIVED, ids=label)
@pytest.mark.claim("T1.from_payoffs", regime="tabular")
def test_payoffs_alone_give_everything(claim, obj: Objective) -> None:
    """Link, bounds, slope, potential and card of a definition without any link."""
    stranger = payoffs_of(obj)
    reach = 300.0  # beyond, Brier's payoffs underflow
    u = np.concatenate([np.linspace(-12, 12, 49), [-reach, -60, 60, reach], [-np.inf, np.inf]])
    claim.close(stranger.link(u), obj.link(u), atol=1e-9, rtol=1e-8, what="link")
    inner = u[np.abs(u) <= 12]
    claim.close(stranger.slope(inner), obj.slope(inner), atol=1e-8, rtol=1e-6, what="slope")
    claim.close(stranger.reward_bounds, obj.reward_bounds, atol=1e-9, rtol=1e-9, what="bounds")
    card, known = theory_card(stranger), theory_card(obj)
    for name in ("L", "mu", "slope_at_zero", "stability_beta", "descent_beta"):
        claim.close(getattr(card, name), getattr(known, name), atol=1e-7, rtol=1e-6, what=name)
    assert card.fixed_point_is_mle == known.fixed_point_is_mle
    rng = np.random.default_rng(0)
    p, q = laws.random_law(rng, (2, 1, 3))
    claim.close(stranger.potential(q, p), obj.potential(q, p), atol=1e-9, what="potential")


@pytest.mark.claim("T1.from_payoffs", "T5.value_is_potential", regime="tabular")
@FEW
@given(game=games())
def test_payoffs_undefined_on_one_side(claim, game: Instance) -> None:
    u = np.concatenate([game.rng.uniform(-30, 30, 30), [-np.inf, np.inf, -700, 700]])
    canonical = Canonical()
    claim.close(canonical.link(u), np.tanh(u / 2), atol=1e-12, what="canonical tanh")
    p, q = game.expert, game.start
    value = canonical.value(p, q, canonical.reward(p, q))
    twin = objectives.get("spif").potential(q, p)
    claim.close(value, twin, atol=1e-11, rtol=1e-9, what="canonical pair: game value = D_Phi")
    expected = 1.3 + np.logaddexp(0, u)
    claim.close(HalfLine().link(u), expected, atol=1e-9, rtol=1e-9, what="half line")
    left, inner = LeftHalfLine(), game.rng.uniform(-12, 12, 20)
    claim.close(left.link(inner), -1.3 - np.logaddexp(0, -inner), atol=1e-9, what="left half line")
    claim.close(left.slope(inner), 1 / (1 + np.exp(inner)), atol=1e-8, rtol=1e-6, what="its slope")


def test_derived_link_in_torch() -> None:
    """Dtype and gradient are kept; the gradient is that of the implicit function."""
    for dtype in (torch.float64, torch.float32):
        u = torch.tensor([-3.0, 0.0, 2.0, 40.0, float("inf")], dtype=dtype, requires_grad=True)
        r = Canonical().link(u)
        assert r.dtype == dtype
        (gradient,) = torch.autograd.grad(r.sum(), u)
        expected = 0.5 / torch.cosh(u.detach() / 2) ** 2
        assert torch.allclose(r.detach(), torch.tanh(u.detach() / 2), atol=1e-6)
        assert torch.allclose(gradient, expected, atol=1e-6)


def test_payoffs_of_the_wrong_sign_are_named() -> None:
    class Backwards(Pointwise):
        def a(self, r):
            return -r

        def b(self, r):
            return r

    with pytest.raises(InvalidInput, match=r"a increases and b decreases .* check their signs"):
        Backwards().link(0.3)


def test_potential_beyond_the_support() -> None:
    """D_Phi where the policy has no mass: the integral's limit, infinite if it diverges."""
    p, q = np.array([0.5, 0.5, 0.0]), np.array([1.0, 0.0, 0.0])
    for obj in (objectives.get("spif"), objectives.get("gail")):
        assert payoffs_of(obj).potential(q, p) == pytest.approx(obj.potential(q, p), abs=1e-10)
    for obj in (objectives.get("policy_only"), objectives.get("policy_only", c=7.0)):
        assert payoffs_of(obj).potential(q, p) == np.inf
        assert obj.potential(q, p) == np.inf
    q = np.array([0.5, 0.4, 0.1])
    assert payoffs_of(objectives.get("iq_learn")).potential(q, p) == np.inf
    spif = objectives.get("spif")
    assert payoffs_of(spif).potential(q, p) == pytest.approx(spif.potential(q, p), abs=1e-10)


def test_payoffs_that_overflow_far_out_have_their_link():
    """sqrt(1 + r^2) is constant from 1e154 on, where these payoffs seem to increase again."""
    price = lambda r: 1.5 * (xp.sqrt(1.0 + r * r) - 1.0)  # noqa: E731
    u = np.array([-np.inf, -50.0, -1.0, 0.0, 0.5, 3.0, np.inf])
    found = derivatives.invert_link(lambda r: r - price(r), lambda r: -r - price(r), u)
    s = np.tanh(u / 2.0) / 1.5  # p a' + q b' = 0 at r / sqrt(1 + r^2) = (p - q) / (1.5 (p + q))
    np.testing.assert_allclose(found, s / np.sqrt(1.0 - s * s), atol=1e-14)
