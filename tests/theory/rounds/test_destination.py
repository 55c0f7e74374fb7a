"""T15: inside any class self-play ends where maximum likelihood does, and when it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import root

from tests.theory.strategies import label
from theory import Unavailable, laws, objectives, self_play, theory_card
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.log_linear import LogLinear
from theory.rounds.one_step import local_rate_one_step

EVERY = [objectives.get(name) for name in objectives.names()]
MLE = [obj for obj in EVERY if theory_card(obj).fixed_point_is_mle]
ELSEWHERE = {"gail", "ipm", "sppo", "inpo", "tspin", "alpha_spin"}


def test_every_objective_is_here_or_named_absent() -> None:
    assert {obj.name for obj in MLE} | ELSEWHERE == set(objectives.names())


def misspecified(seed: int, n: int = 30, d: int = 5) -> tuple[LogLinear, FloatArray]:
    """A log-linear class and an expert outside of it."""
    rng = np.random.default_rng(seed)
    return LogLinear(rng.standard_normal((n, d))), laws.random_law(rng, (n,), 1.5)


def first_gradient(
    model: LogLinear, expert: FloatArray, own: FloatArray, theta: FloatArray, obj: Objective
) -> FloatArray:
    """Gradient in theta of the one-step risk at pi_theta = pi_t, own responses of law ``own``."""
    point = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    ratio = model.log_law(point) - torch.tensor(np.asarray(model.log_law(theta)))
    risk = obj.risk(ratio, ratio, 0.7, torch.tensor(expert), torch.tensor(own))
    (gradient,) = torch.autograd.grad(risk, point)
    return np.asarray(gradient.numpy())


def sft_gradient(model: LogLinear, expert: FloatArray, theta: FloatArray) -> FloatArray:
    """-E_p grad log pi_theta."""
    return -(expert - model.law(theta)) @ model.features


@pytest.mark.parametrize("obj", MLE, ids=label)
@pytest.mark.claim("T15", rung="exact")
@given(seed=st.integers(0, 2**31), n=st.integers(3, 20))
def test_first_gradient_is_the_sft_gradient(claim, obj: Objective, seed: int, n: int) -> None:
    """(a): at theta_t the expected gradient is beta |l'(0)| times the gradient of SFT."""
    model, expert = misspecified(seed, n, 2)
    theta = np.random.default_rng(seed).standard_normal(2)
    gradient = first_gradient(model, expert, model.law(theta), theta, obj)
    scale = -0.7 * theory_card(obj).gradient_at_start[0]
    assert scale > 0
    claim.close(gradient, scale * sft_gradient(model, expert, theta), atol=1e-12, what="gradient")


# The hinge is not smooth: its rounds have no unique minimiser for Newton's method.
@pytest.mark.parametrize("obj", [o for o in MLE if o.name != "spin_hinge"], ids=label)
@pytest.mark.claim("T15", rung="exact")
def test_fixed_point_of_rounds_is_the_mle(claim, obj: Objective) -> None:
    """(b), (c): in a misspecified class the rounds settle at the maximum-likelihood law."""
    for seed in range(2):
        model, expert = misspecified(seed)
        target = model.law(model.maximum_likelihood(expert))
        beta = 1.3 * theory_card(obj).slope_at_zero * (1.5 if obj.form == "pointwise" else 1.0)
        path = model.self_play(expert, np.zeros(5), obj, beta, rounds=60)
        moved = float(laws.total_variation(path.policies[-1], path.policies[-2]))
        error = laws.total_variation(path.policy, target)
        claim.close(error, 0.0, atol=1e-6 + 200 * moved, what="TV to the MLE")
        claim.below(moved, 1e-8, what="last round's move (TV)")
        other = model.law(model.reverse_kl_projection(expert, path.details["theta"][-1]))
        claim.exhibits(
            laws.total_variation(path.policy, other), 0.02, "TV to the KL(pi||p) minimum"
        )


NECESSITY: dict[str, dict[str, Any]] = {
    "two-step rounds": {"kind": "two_step", "beta": 1.5},
    "temperature 0.7": {"temperature": 0.7},
    "temperature 1.3": {"temperature": 1.3},
    "anchor": {"tau": 0.3},
}


@pytest.mark.parametrize("case", NECESSITY)
@pytest.mark.parametrize("name", ["spin", "spif", "ipo"])
@pytest.mark.claim(
    "T15",
    rung="exact",
    kind="necessity",
    condition="one-step rounds, own responses drawn exactly from pi_t, no anchor",
)
def test_a_dropped_premise_moves_the_destination(claim, case: str, name: str) -> None:
    """Two-step rounds, another temperature or an anchor end away from the MLE."""
    model, expert = misspecified(0)
    target = model.law(model.maximum_likelihood(expert))
    settings = {"beta": 1.5} | NECESSITY[case]
    if "tau" in settings:
        settings["ref"] = model.law(np.ones(5))
    path = model.self_play(expert, np.zeros(5), objectives.get(name), rounds=100, **settings)
    moved = float(laws.total_variation(path.policies[-1], path.policies[-2]))
    distance = float(laws.total_variation(path.policy, target))
    claim.below(moved, 1e-3 * distance, what=f"{case}: the last round hardly moved (TV)")
    claim.exhibits(distance, at_least=5e-3, what=f"{case}: TV to the MLE")


@pytest.mark.parametrize("name", ["tspin", "alpha_spin"])
@pytest.mark.claim(
    "T15", rung="exact", kind="necessity", condition="log-ratios to pi_t, opponent pi_t"
)
def test_other_references_move_the_destination(claim, name: str) -> None:
    """Reference-free T-SPIN and the mixed opponent of alpha-SPIN: the first gradient at the MLE."""
    model, expert = misspecified(1)
    theta = model.maximum_likelihood(expert)
    obj = objectives.get(name)
    if name == "tspin":
        path = model.self_play(expert, np.zeros(5), obj, 1.5, rounds=60)
        distance = laws.total_variation(path.policy, model.law(theta))
    else:
        # the opponent leaves the class of log-ratios at zero: the round from the MLE moves
        base = np.asarray(model.log_law(np.ones(5)))
        log_q = np.asarray(obj.opponent(np.asarray(model.log_law(theta)), base, base))
        point = torch.tensor(theta, requires_grad=True)
        ratio = model.log_law(point) - torch.tensor(log_q)
        weights = torch.tensor(expert), torch.tensor(np.exp(log_q))
        (gradient,) = torch.autograd.grad(obj.risk(ratio, ratio, 1.5, *weights), point)
        distance = np.abs(gradient.numpy()).max()
    claim.exhibits(distance, at_least=5e-3, what=f"{name}: away from the MLE")


@pytest.mark.parametrize("name", ["spin", "spif"])
@pytest.mark.claim("T15", rung="exact")
def test_two_step_rounds_end_at_the_potential(claim, name: str) -> None:
    """Two-step rounds in the class settle at a stationary point of D_Phi(pi_theta||p)."""
    obj = objectives.get(name)
    model, expert = misspecified(0)
    path = model.self_play(expert, np.zeros(5), obj, 1.5, rounds=200, kind="two_step")
    law = path.policy
    reward = obj.reward(expert, law)
    gradient = -(law * (reward - law @ reward)) @ model.features
    claim.close(gradient, 0.0, atol=1e-6, what="gradient of the potential in theta")
    nearby = model.law(model.potential_minimiser(expert, obj, path.details["theta"][-1]))
    claim.close(law, nearby, atol=1e-4, what="policy against the potential's minimiser")


@pytest.mark.claim("T15", "C5", rung="exact")
def test_stability_under_misspecification(claim) -> None:
    """Pairwise logistic: stable iff beta > lambda_max((S_p + S_q)^-1 S_q) at the MLE."""
    for seed in range(3):
        model, expert = misspecified(seed)
        theta = model.maximum_likelihood(expert)
        law = model.law(theta)

        def covariance(weight: FloatArray, x: FloatArray = model.features) -> FloatArray:
            centred = x - weight @ x
            return np.asarray((weight[:, None] * centred).T @ centred)

        s_p, s_q = covariance(expert), covariance(law)
        threshold = np.linalg.eigvals(np.linalg.solve(s_p + s_q, s_q)).real.max()
        for factor in (0.9, 1.1):
            start = theta + 1e-4 * np.random.default_rng(seed).standard_normal(5)
            beta = factor * threshold
            path = model.self_play(expert, start, objectives.get("spin"), beta, rounds=40)
            off = np.linalg.norm(path.details["theta"] - theta, axis=-1)
            if factor < 1:
                claim.exhibits(
                    off[-1] / off[20], 3.0, what="growth over 20 rounds, beta 10 % below"
                )
            else:
                claim.below(off[-1] / off[20], 0.5, what="decay over 20 rounds, beta 10 % above")


def test_an_opponent_of_its_own_is_played_in_a_class_too() -> None:
    rng = np.random.default_rng(4)
    p, start = laws.random_law(rng, (5,), 1.0), laws.random_law(rng, (5,), 1.0)
    everything = LogLinear(np.eye(5)[:, :4])
    obj = objectives.get("alpha_spin", base_weight=0.3)
    found = everything.self_play(p, np.log(start[:4] / start[4]), obj, 1.7, rounds=3)
    exact = self_play(p, start, obj, 1.7, rounds=3, one_step=True)
    np.testing.assert_allclose(found.policies, exact.policies, atol=1e-8)
    with pytest.raises(Unavailable, match="its opponent is not pi_t"):
        local_rate_one_step(obj, 1.7)


# --- own samples at a temperature ----------------------------------------------------------------

SPIN = objectives.get("spin")


@pytest.mark.claim("T15", rung="exact")
@pytest.mark.parametrize("temperature", [0.7, 1.3])
@pytest.mark.parametrize("spread", [0.0, 1.5])
def test_the_destination_at_a_temperature(claim, temperature: float, spread: float) -> None:
    """MLE^T of the class with the base measure to the power 1/T; by exact SPIN rounds."""
    rng = np.random.default_rng(40)
    model = LogLinear(rng.standard_normal((8, 2)), spread * rng.standard_normal(8))
    expert = laws.random_law(rng, (8,), 1.0)
    found = model.self_play(expert, np.zeros(2), SPIN, 1.2, 60, temperature=temperature).policy
    drawn = found ** (1 / temperature)
    drawn /= drawn.sum()
    claim.close(drawn @ model.features, expert @ model.features, 1e-8, what="mean features drawn")
    claim.close(found, np.exp(model.destination(expert, temperature)), 1e-8, what="destination")
    best = model.law(model.maximum_likelihood(expert)) ** temperature
    off = laws.total_variation(found, best / best.sum())
    if spread == 0.0:
        claim.below(off, 1e-8, what="TV to MLE^T, no base measure")


@pytest.mark.claim(
    "T15", rung="exact", kind="refutes", condition="no base measure (MLE^T at a temperature)"
)
def test_with_a_base_measure_it_is_not_the_mle_to_that_power(claim) -> None:
    """Base measures of standard deviation 1.5 nats, T = .7: another law, up to a TV of .1."""
    off = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        model = LogLinear(rng.standard_normal((8, 2)), 1.5 * rng.standard_normal(8))
        expert = laws.random_law(rng, (8,), 1.5)
        best = model.law(model.maximum_likelihood(expert)) ** 0.7
        there = np.exp(model.destination(expert, 0.7))
        off.append(laws.total_variation(there, best / best.sum()))
    claim.exhibits(np.max(off), 0.07, what="largest TV between the destination and MLE^T")
    claim.exhibits(np.median(off), 0.04, what="median TV between the destination and MLE^T")


@pytest.mark.claim(
    "T15", rung="exact", kind="refutes", condition="whole responses, not tokens, at the temperature"
)
def test_tokens_at_a_temperature_end_elsewhere(claim) -> None:
    """Two tokens of a three-letter alphabet, each drawn at T = .6: not MLE^T, and by how much."""
    off = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        model, expert = LogLinear(rng.standard_normal((9, 2))), laws.random_law(rng, (9,), 1.0)

        def drawn(theta: FloatArray, model: LogLinear = model) -> FloatArray:
            law = model.law(theta).reshape(3, 3)
            first = law.sum(-1) ** (1 / 0.6)
            then = (law / law.sum(-1, keepdims=True)) ** (1 / 0.6)
            return (first / first.sum())[:, None] * then / then.sum(-1, keepdims=True)

        def missed(theta: FloatArray, model: LogLinear = model, p: FloatArray = expert) -> Any:
            return (drawn(theta).ravel() - p) @ model.features

        found = root(missed, 0.6 * model.maximum_likelihood(expert), tol=1e-12)
        assert found.success
        there, exact = model.law(found.x), np.exp(model.destination(expert, 0.6))
        off.append(laws.total_variation(there, exact))
    claim.exhibits(np.max(off), 0.01, what="largest TV between tokens and responses at T = .6")
    claim.exhibits(np.min(off), 1e-5, what="least TV between tokens and responses at T = .6")
    claim.below(np.max(off), 0.1, what="largest TV between tokens and responses at T = .6")
