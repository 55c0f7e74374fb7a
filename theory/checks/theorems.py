"""Generic checks: what the theorems say of every objective, whoever wrote it.

Each check is a function ``check(obj, game, claim)``: it compares on a random game and reports to
``claim``, whose methods raise AssertionError with a sentence. The tests over the registry run them
with their own recorder on drawn games; ``check_objective(obj, thorough=True)`` runs them all. A
check that does not apply to an objective is left out by ``CHECKS``, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize

from theory import laws
from theory.card import theory_card
from theory.checks.game import (
    Check,
    Comparisons,
    Instance,
    as_torch,
    centred,
    extras_for,
    hold,
    numeric_best_response,
    reward_extras,
    risk_of_rewards,
)
from theory.equilibria.solve import saddle_point
from theory.objectives import Objective, derivatives
from theory.result import FloatArray
from theory.rounds.two_step import self_play

RATIOS = np.array([0.0, 1e-8, -1e-8, 3.0, -3.0, 700.0, -700.0])


# --- T1: best response and link ------------------------------------------------------------------


def check_best_response(obj: Objective, game: Instance, claim: Comparisons) -> None:
    """T1: the reward is what an optimiser finds that knows the payoffs (or the risk) alone."""
    p, q = game.expert, game.start
    if obj.form == "pointwise":
        reward = obj.reward(p, q, **reward_extras(obj, p))
        found = numeric_best_response(obj, p, q)
        claim.close(reward, found, atol=1e-9, rtol=1e-8, what="argmax_r p a(r) + q b(r)")
        return
    reward = obj.reward(p, q)
    claim.close(laws.expect(q, reward), 0.0, atol=1e-10, rtol=0, what="E_policy[r] = 0")
    for row in range(len(p)):
        risk = risk_of_rewards(obj, p[row], q[row])
        gradient = derivatives.derivative(risk, reward[row])
        claim.close(gradient / (p + q)[row], 0.0, atol=1e-9, what="gradient of the risk in r")
        best = float(risk(as_torch(reward[row])))
        other = reward[row] + game.rng.standard_normal(p.shape[-1])
        claim.below(best, float(risk(as_torch(other))), what="no other reward is better")


def check_optimised_risk(obj: Objective, game: Instance, claim: Comparisons) -> None:
    """T1 for pairwise and group risks: BFGS from zero ends at the reward (laws near uniform)."""
    p, q = 0.5 * (game.expert + 1 / game.expert.shape[-1]), 0.5 * (game.start + game.ref)
    p, q = p[0, :5] / p[0, :5].sum(), q[0, :5] + 0.1
    q = q / q.sum()
    risk = risk_of_rewards(obj, p, q)

    def at(r: FloatArray) -> tuple[float, FloatArray]:
        return float(risk(as_torch(r))), derivatives.derivative(risk, r)

    found = minimize(at, np.zeros(len(p)), jac=True, method="BFGS", options={"gtol": 1e-10}).x
    at_best = centred(found, q)
    claim.close(obj.reward(p, q), at_best, atol=1e-5, what="argmin by BFGS", because="solver")


def check_link_shape(obj: Objective, game: Instance, claim: Comparisons) -> None:
    """T1: the link increases from its lower to its upper bound, and reaches them at -+inf."""
    for delta in (0.0, float(game.rng.uniform(0, 2)), 2.0):
        u = np.sort(game.rng.uniform(-700, 700, 200))
        near = np.sort(game.rng.uniform(-12, 12, 200))
        low, high = float(obj.link(-np.inf, delta)), float(obj.link(np.inf, delta))
        hold(not np.isnan([low, high]).any(), f"{obj.name}: link(-+inf) is NaN")
        for x in (u, near):
            r = np.asarray(obj.link(x, delta))
            hold(not np.isnan(r).any(), f"{obj.name}: the link is NaN within +-700 nats")
            claim.below(r[:-1], r[1:], atol=1e-12, what="the link increases")
            claim.below(low, float(r.min()), atol=1e-12, what="lower bound")
            claim.below(float(r.max()), high, atol=1e-12, what="upper bound")
        for bound, end in ((low, -700.0), (high, 700.0)):
            at_end = float(obj.link(end, delta))
            if np.isfinite(bound):
                claim.close(at_end, bound, atol=1e-9, what="bound reached in the limit")
            else:
                claim.exhibits(abs(at_end), 100.0, what="unbounded: still grows at 700 nats")
    bounds = np.array(obj.reward_bounds)
    claim.close(np.array([obj.link(-np.inf, 0.0), obj.link(np.inf, 0.0)]), bounds, 0, what="bounds")


def check_slope(obj: Objective, game: Instance, claim: Comparisons) -> None:
    """The slope by automatic differentiation is that of finite differences of the link."""
    u = game.rng.uniform(-8, 8, 40)
    delta = float(game.rng.uniform(0, 2))
    h = 1e-5
    ahead, behind = (np.asarray(obj.link(x, delta)) for x in (u + h, u - h))
    size = 1.0 + np.abs(ahead)
    claim.close(
        (obj.slope(u, np.asarray(delta)) - (ahead - behind) / (2 * h)) / size,
        0.0,
        atol=1e-8,
        what="R' against central differences",
    )


def check_derived_link(obj: Objective, game: Instance, claim: Comparisons) -> None:
    """T1: the link is the inverse of ``u = log(-b'(r)/a'(r))``, numerically and at any point."""
    u = np.concatenate([game.rng.uniform(-15, 15, 20), RATIOS[:5]])
    r = np.asarray(obj.link(u))
    derived = np.asarray(derivatives.invert_link(obj.a, obj.b, u, obj.reward_domain))
    claim.close(derived, r, atol=1e-9, rtol=1e-8, what="inverse of log(-b'/a')")


def check_one_sided(obj: Objective, game: Instance, claim: Comparisons) -> None:
    """Supports: p = 0 < q gets the lower bound, q = 0 < p the upper one, padding 0 and no say."""
    p, q = game.expert.copy(), game.start.copy()
    n = p.shape[-1]
    zero, one = np.zeros((len(p), 1)), np.full((len(p), 1), 0.25)
    wide_p = np.concatenate([0.75 * p, zero, one, zero], axis=-1)
    wide_q = np.concatenate([0.75 * q, one, zero, zero], axis=-1)
    r = obj.reward(wide_p, wide_q, **reward_extras(obj, wide_p))
    hold(not np.isnan(r).any(), f"{obj.name}: NaN reward on one-sided supports")
    claim.close(r[..., -1], 0.0, atol=0, what="padding gets 0")
    delta = laws.triangular(wide_p, wide_q)
    low, high = (np.asarray(obj.link(np.full(len(p), x), delta)) for x in (-np.inf, np.inf))
    shift = np.zeros(len(p))
    if obj.up_to_constant:
        mean = laws.expect(wide_q, np.where(np.isfinite(r), r, 0.0))
        claim.close(
            mean, 0.0, atol=1e-12, what="E_policy = 0 over finite rewards"
        )  # compare up to the constant, through an outcome with a finite reward
        inside = np.asarray(obj.link(np.log(wide_p[:, 0] / wide_q[:, 0]), delta))
        shift = r[:, 0] - inside
    claim.close(r[..., n], low + shift, atol=1e-10, rtol=1e-9, what="p = 0: lower bound")
    claim.close(r[..., n + 1], high + shift, atol=1e-10, rtol=1e-9, what="q = 0: upper bound")
    padded_p, padded_q = (np.concatenate([x, zero], axis=-1) for x in (p, q))
    alone = obj.reward(p, q, **reward_extras(obj, p))
    padded = obj.reward(padded_p, padded_q, **reward_extras(obj, padded_p))[..., :n]
    claim.close(padded, alone, atol=1e-12, rtol=1e-12, what="padding changes nothing")


# --- losses --------------------------------------------------------------------------------------


def check_extremes(obj: Objective, game: Instance, claim: Comparisons) -> None:
    """Log-ratios of +-700 nats: no NaN in value or gradient of loss, risk and link, any dtype."""
    import torch

    x, y = (g.ravel() for g in np.meshgrid(RATIOS, RATIOS))
    for dtype in (torch.float64, torch.float32):
        for verb in ("link", "loss", "risk"):
            if obj.missing(verb):
                continue
            on_expert = torch.tensor(x, dtype=dtype, requires_grad=True)
            on_own = torch.tensor(y, dtype=dtype, requires_grad=True)
            extras = extras_for(obj, on_expert.detach(), on_own.detach())
            if verb == "link":
                value = obj.link(on_expert, 0.5)
            elif verb == "loss":
                value = obj.loss(on_expert, on_own, 1.0, **extras)
            else:
                value = obj.risk(
                    on_expert[:, None], on_own[:, None], 1.0,
                    **{k: v[:, None] if hasattr(v, "shape") else v for k, v in extras.items()},
                )  # fmt: skip
            hold(value.dtype == dtype, f"{obj.name}: {verb} turns {dtype} into {value.dtype}")
            claim.close(torch.isnan(value), 0.0, atol=0, what=f"NaN in the {verb}")
            if not value.requires_grad:
                continue
            wanted = [on_expert] if verb == "link" else [on_expert, on_own]
            for gradient in torch.autograd.grad(value.sum(), wanted):
                claim.close(torch.isnan(gradient), 0.0, atol=0, what=f"NaN in the {verb}'s slope")


def check_numpy_and_torch(obj: Objective, game: Instance, claim: Comparisons) -> None:
    """One definition serves numpy and torch: same values in double and in single precision."""
    import torch

    x, y = game.rng.uniform(-6, 6, (2, 3, 4))
    for verb in ("link", "loss", "risk"):
        if obj.missing(verb):
            continue

        def at(a: Any, b: Any, verb: str = verb) -> Any:
            if verb == "link":
                return obj.link(a, 0.5)
            return getattr(obj, verb)(a, b, 0.7, **extras_for(obj, a, b))

        ours = np.asarray(at(x, y))
        double = at(as_torch(x), as_torch(y)).numpy()
        claim.close(ours, double, atol=1e-12, rtol=1e-12, what=f"{verb}: numpy and torch")
        single = [torch.as_tensor(z, dtype=torch.float32) for z in (x, y)]
        scale = 1.0 + float(np.abs(ours).max())
        what = f"{verb}: rounding of float32"
        claim.close(at(*single) / scale, ours / scale, atol=2e-5, what=what, because="chosen")


def check_risk_is_expectation(obj: Objective, game: Instance, claim: Comparisons) -> None:
    """The risk under weights is the mean of the loss over all pairs of responses."""
    p, q = game.expert, game.start
    x, y = game.rng.uniform(-2, 2, (2, *p.shape))
    extras = extras_for(obj, x, y)
    risk = obj.risk(x, y, 0.8, p, q, **extras)
    hold(np.shape(risk) == p.shape[:-1], f"{obj.name}: a risk has one number a prompt")
    spread = {
        k: v[..., :, None] if k.startswith("expert") else v[..., None, :]
        for k, v in extras.items()
        if np.ndim(v)
    }
    spread |= {k: v for k, v in extras.items() if not np.ndim(v)}
    pairs = obj.loss(x[..., :, None], y[..., None, :], 0.8, **spread)
    explicit = np.einsum("...i,...j,...ij->...", p, q, pairs)
    claim.close(risk, explicit, atol=1e-12, rtol=1e-11, what="risk = sum p q loss")


# --- what follows: potential, card, rounds, game -------------------------------------------------


def check_potential(obj: Objective, game: Instance, claim: Comparisons) -> None:
    """T5: closed form and quadrature agree; zero at p, positive elsewhere."""
    p, q = game.expert, game.start
    potential = obj.potential(q, p)
    u = laws.log_ratio(p, q)
    density = derivatives.potential_density(obj.link, u)
    claim.close((p * density).sum(-1), potential, atol=1e-9, rtol=1e-8, what="quadrature of R")
    claim.close(obj.potential(p, p), np.zeros(len(p)), atol=1e-14, what="D_Phi(p||p) = 0")
    claim.below(np.zeros(len(p)), potential, atol=1e-14, what="D_Phi >= 0")


def check_card(obj: Objective, game: Instance, claim: Comparisons) -> None:
    """T6: the card's L and mu enclose the slope everywhere and are nearly attained."""
    card = theory_card(obj)
    held = () if obj.missing("saddle") else derivatives.held_from(obj.a, obj.b, obj.reward_domain)
    ends = [u for u in held if np.isfinite(u)]
    u = np.concatenate([np.linspace(-40, 40, 4001), RATIOS, ends])
    slopes = obj.slope(u, np.asarray(0.0))
    claim.below(slopes, np.full(slopes.shape, card.L), atol=1e-9, what="R' <= L")
    claim.below(np.full(slopes.shape, card.mu), slopes, atol=1e-9, what="mu <= R'")
    if np.isfinite(card.L):
        what = "L is attained, up to (0.01 nats)^2 on a grid of 0.02 nats"
        claim.close(slopes.max(), card.L, 1e-9, rtol=1e-4, what=what, because="expansion")
        claim.close(float(obj.slope(0.0, np.asarray(0.0))), card.slope_at_zero, 1e-12, what="R'(0)")
    hold(bool(str(card)), f"{obj.name}: an empty card")


def check_round(obj: Objective, game: Instance, claim: Comparisons) -> None:
    """T2 and T6: a round multiplies the policy by e^{r/beta}; at beta >= L the KL falls."""
    p, q = game.expert, game.start
    card = theory_card(obj)
    beta = 1.5 * card.L if np.isfinite(card.L) else 4.0
    path = self_play(p, q, obj, beta=beta, rounds=3, progress=False)
    policies = np.asarray(path.policies)
    weight = q * np.exp(centred(obj.reward(p, q), q) / beta)
    claim.close(policies[1], weight / weight.sum(-1, keepdims=True), atol=1e-12, what="T2")
    if np.isfinite(card.L):
        kl = path.details["kl"]
        claim.below(kl[1:], kl[:-1], atol=1e-13 * (1 + kl.max()), what="KL(p||pi_t) falls")


def check_conic_game(obj: Objective, game: Instance, claim: Comparisons) -> None:
    """The conic form is the game's value: the best response's payoff, at any policy."""
    import cvxpy as cp

    p, q = game.expert[0], game.start[0]
    value, constraints = obj.conic_game(p, cp.Constant(q))
    program = cp.Problem(cp.Minimize(value), constraints)
    program.solve(solver=cp.CLARABEL)
    payoff = float(obj.value(p, q, np.asarray(obj.link(laws.log_ratio(p, q)))))
    what = "conic form = max_r payoff"
    claim.close(program.value, payoff, atol=1e-6, rtol=1e-6, what=what, because="solver")


def check_conic_potential(obj: Objective, game: Instance, claim: Comparisons) -> None:
    """The conic form is the potential, at any policy."""
    import cvxpy as cp

    p, q = game.expert[0], game.start[0]
    value, constraints = obj.conic_potential(p, cp.Constant(q))
    program = cp.Problem(cp.Minimize(value), constraints)
    program.solve(solver=cp.CLARABEL)
    expected = float(obj.potential(q, p))
    what = "conic form = potential"
    claim.close(program.value, expected, atol=1e-6, rtol=1e-6, what=what, because="solver")


def check_saddle_point(obj: Objective, game: Instance, claim: Comparisons) -> None:
    """T10: the fast solver's certificate, and the convex solver's policy."""
    p, ref = game.expert[:1], game.ref[:1]
    fast = saddle_point(p, ref, obj, tau=0.3)
    claim.below(np.abs(fast.gap), np.full(1, 1e-9), what="certified gap", because="solver")
    convex = saddle_point(p, ref, obj, tau=0.3, method="convex")
    what = "fast and convex policies"
    claim.close(fast.policy, convex.policy, atol=1e-6, what=what, because="solver")


CHECKS: dict[Check, Callable[[Objective], str | None]] = {
    check_best_response: lambda o: o.missing("reward") or _bounded_by_constraint(o),
    check_optimised_risk: lambda o: (
        "its best response is per outcome" if o.form == "pointwise" else o.missing("reward")
    ),
    check_link_shape: lambda o: o.missing("link"),
    check_slope: lambda o: o.missing("link") or _jumps(o),
    check_derived_link: lambda o: (
        "no a, b" if o.form != "pointwise" else o.missing("link") or _bounded_by_constraint(o)
    ),
    check_one_sided: lambda o: o.missing("link"),
    check_extremes: lambda o: None,
    check_numpy_and_torch: lambda o: None,
    check_risk_is_expectation: lambda o: o.missing("loss") or _history(o),
    check_potential: lambda o: o.missing("potential"),
    check_card: lambda o: o.missing("link") or _jumps(o),
    check_round: lambda o: o.missing("reward") or _preference(o) or _opponent(o),
    check_conic_game: lambda o: o.missing("saddle") or o.missing("conic_game"),
    check_conic_potential: lambda o: o.missing("potential") or o.missing("conic_potential"),
    check_saddle_point: lambda o: o.missing("saddle") or o.missing("conic_game"),
}
"""Every check, and why it does not apply to an objective (None if it does)."""


def _bounded_by_constraint(obj: Objective) -> str | None:
    bounded = np.isfinite(obj.reward_domain).all()
    return "linear payoffs: a constraint bounds the reward" if bounded else None


def _jumps(obj: Objective) -> str | None:
    return "the link jumps at 0" if np.isinf(obj.slope_at_zero) else None


def _history(obj: Objective) -> str | None:
    return "the history term adds a third law" if "history" in obj.needs else None


def _preference(obj: Objective) -> str | None:
    return "it has no expert law" if "preference" in obj.needs else None


def _opponent(obj: Objective) -> str | None:
    law = np.log(np.array([[0.2, 0.8]])), np.log(np.array([[0.6, 0.4]]))
    moved = np.asarray(obj.opponent(law[0], law[1], law[1]))
    return None if np.array_equal(moved, law[0]) else "the opponent is not the current policy"
