"""Equilibrium of the rounds where the link depends on both laws: pair losses and group risks.

The fixed point is ``r`` = best response to ``(p, pi)``, ``pi = ref e^{r/tau}/Z``. With ``z`` the
log-policy, ``r = tau (z - log ref)`` + const, so it is a root of the risk's gradient at its own
implicit reward,

    G(z)_i = d F(r, r; p, pi)/d r_i   at   r = tau (z - log ref),  pi = e^z/Z,

found by damped Newton's method with exact derivatives (torch). It starts where a link of slope
``R'(0)`` would end: ``z = (tau log ref + R'(0) log p)/(tau + R'(0))``. Where Newton's method stops
short, exact anchored rounds (T2) bring the policy nearer and it starts again.

There is no potential, hence no value. The certificate is ``tau KL(pi || ref e^{r/tau}/Z)`` with the
reward found anew for the policy, and that reward's own gradient, both computed from the risk.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from theory import laws, xp
from theory.certificate import BALANCE, response_imbalance
from theory.errors import NotConverged, Unavailable, refuse
from theory.objectives import Objective, risk_response
from theory.result import FloatArray, Outcome, Solution

BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
MAX_NEWTON = 50
RESTARTS = 8
ROUNDS = 25


def solve(
    expert: FloatArray,
    ref: FloatArray,
    obj: Objective,
    tau: float,
    tolerance: float = 1e-9,
    raise_on_failure: bool = True,
) -> Solution:
    """Certified fixed point of the rounds for valid laws (..., n).

    Args:
        expert: law p, within the support of ref. ref: reference law; beyond the expert's support
            only for losses whose rewards stay finite there.
        obj: a shift-invariant objective with a pair loss or a group risk (``law_dependent``).
        tau: weight of the anchor, >= 0; at 0 the policy is the expert.
        tolerance: on the gap, nats.
        raise_on_failure: raise if the gap, or the gradient of the reward, stays above.

    Returns:
        Solution; ``primal`` and ``dual`` are NaN, ``gap`` is ``tau KL(pi || ref e^{r/tau}/Z)`` and
        ``details["reward_gradient"]`` the relative gradient of the risk at ``reward``.

    Raises:
        InvalidInput: laws without a common support. Unavailable: the risk sees a common shift.
        NotConverged: see ``raise_on_failure``.
    """
    if not obj.up_to_constant:
        raise Unavailable(
            f"{obj.name} has no equilibrium here: its risk changes when all rewards shift by a "
            "constant, and no link is written"
        )
    if tau > 0:
        refuse(laws.support_problems(expert, "expert", ref, "ref"))
        if not np.isfinite(obj.reward(expert, ref)).all():  # no reward where the expert has no mass
            refuse(laws.support_problems(ref, "ref", expert, "expert"))
    n = expert.shape[-1]
    p, base = expert.reshape(-1, n), ref.reshape(-1, n)
    policy, iterations = p.copy(), 0
    if tau > 0:
        slope = obj.slope_at_zero
        near = np.where((p == 0) & (base > 0), 1e-3 * base, p)
        start = (tau * laws.log_law(base) + slope * laws.log_law(near)) / (tau + slope)
        policy, iterations = _newton(obj, p, base, tau, start)
        for _ in range(RESTARTS):
            lost = _gap(obj, p, base, tau, policy)[0] > tolerance
            if not lost.any():
                break
            rounds = p[lost], base[lost], tau, max(slope, tau)
            start[lost] = laws.log_law(_rounds(obj, *rounds, np.exp(xp.log_normalise(start[lost]))))
            policy[lost], more = _newton(obj, p[lost], base[lost], tau, start[lost])
            iterations += more + ROUNDS
    return _certified(obj, policy, iterations, expert, ref, tau, tolerance, raise_on_failure)


def _newton(
    obj: Objective, p: FloatArray, base: FloatArray, tau: float, start: FloatArray
) -> tuple[FloatArray, int]:
    """Newton's method on G(z), each row divided by its mass; prompts (B, n) at once."""
    n = p.shape[-1]
    live = base > 0
    log_ref = np.where(live, laws.log_law(base), 0.0)
    z = np.where(live, start, -np.inf)
    z = np.where(live, xp.log_normalise(z), 0.0)
    pin = np.where(live, base, 0.0)
    residual, count = _balance(obj, p, log_ref, live, tau, z), 0
    rises = np.zeros(len(p), dtype=bool)
    for count in range(1, MAX_NEWTON + 1):  # noqa: B007  returned
        jacobian = _jacobian(obj, p, log_ref, live, tau, z)
        size = np.abs(np.trace(jacobian, axis1=-2, axis2=-1))[:, None, None] / n
        matrix = np.where(live[:, :, None], jacobian + size * pin[:, None, :], np.eye(n))
        try:
            step = np.linalg.solve(matrix, -residual[..., None])[..., 0]
        except np.linalg.LinAlgError:
            break
        share = np.ones((len(p), 1))
        before = np.abs(residual).max(-1)
        for _ in range(40):
            after = _balance(obj, p, log_ref, live, tau, z + share * step)
            rises = ~(np.abs(after).max(-1) <= before + 1e-15)
            if not rises.any():
                break
            share = np.where(rises[:, None], 0.5 * share, share)
        share = np.where(rises[:, None], 0.0, share)
        after = np.where(rises[:, None], residual, after)
        z, residual = z + share * step, after
        z = np.where(live, xp.log_normalise(np.where(live, z, -np.inf)), 0.0)
        if np.all(np.abs(share * step) <= 1e-14 * (1.0 + np.abs(z))) or before.max() <= 1e-15:
            break
    return np.where(live, np.exp(z), 0.0), count


def _rounds(
    obj: Objective, p: FloatArray, base: FloatArray, tau: float, beta: float, policy: FloatArray
) -> FloatArray:
    """Some exact rounds from a policy: ``pi <- (pi^beta ref^tau e^r)^{1/(beta+tau)}/Z``."""
    for _ in range(ROUNDS):
        weight = beta * laws.log_law(policy) + tau * laws.log_law(base) + obj.reward(p, policy)
        policy = np.exp(xp.log_normalise(weight / (beta + tau)))
    return policy


def _gap(
    obj: Objective, p: FloatArray, base: FloatArray, tau: float, policy: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """``tau KL(pi || ref e^{r/tau}/Z)`` and the best response ``r`` to the policy."""
    reward = obj.reward(p, policy)
    log_target = xp.log_normalise(laws.log_law(base) + reward / tau)
    with np.errstate(invalid="ignore"):  # an outcome that neither can play
        ratio = np.where(policy > 0, laws.log_law(policy) - log_target, 0.0)
    return tau * laws.kl_of_logratio(policy, ratio, np.exp(log_target)), reward


def _balance(
    obj: Objective, p: FloatArray, log_ref: FloatArray, live: BoolArray, tau: float, z: FloatArray
) -> FloatArray:
    """G(z) over ``p + pi``, 0 where no mass is."""
    policy = np.where(live, np.exp(xp.log_normalise(np.where(live, z, -np.inf))), 0.0)
    reward = np.where(live, tau * (z - log_ref), 0.0)
    _, on_expert, on_own = risk_response.risk_gradient(obj.reward_risk, reward, p, policy)
    return np.where(live, (on_expert + on_own) / np.where(live, p + policy, 1.0), 0.0)


def _jacobian(
    obj: Objective, p: FloatArray, log_ref: FloatArray, live: BoolArray, tau: float, z: FloatArray
) -> FloatArray:
    """Derivative of :func:`_balance` in z (the divisor held), (B, n, n)."""
    import torch

    with torch.enable_grad(), np.errstate(all="ignore"):
        mask, expert = torch.tensor(live), torch.tensor(p)
        point = torch.tensor(z, requires_grad=True)
        lowest = torch.where(mask, point, torch.full_like(point, -np.inf))
        policy = torch.where(mask, torch.softmax(lowest, -1), torch.zeros_like(point))
        reward = tau * (point - torch.tensor(log_ref))
        # the policy player's law is the weight, not what the reward player differentiates
        held = reward.detach().requires_grad_(True)
        value = obj.reward_risk(held, held, expert, policy)
        (first,) = torch.autograd.grad(value.sum(), held, create_graph=True)
        rows = []
        for i in range(z.shape[-1]):
            of_reward, of_law = torch.autograd.grad(
                first[:, i].sum(), (held, point), retain_graph=True, allow_unused=True
            )
            row = tau * of_reward + (0.0 if of_law is None else of_law)
            rows.append(row.numpy())
        mass = np.where(live, p + policy.detach().numpy(), 1.0)
    return np.stack(rows, axis=-2) / mass[:, :, None]


def _certified(
    obj: Objective,
    policy: FloatArray,
    iterations: int,
    expert: FloatArray,
    ref: FloatArray,
    tau: float,
    tolerance: float,
    raise_on_failure: bool,
) -> Solution:
    """Gap and reward of a policy, wherever it came from."""
    policy = (policy / policy.sum(-1, keepdims=True)).reshape(expert.shape)
    if tau > 0:
        gap, reward = _gap(obj, expert, ref, tau, policy)
    else:
        gap, reward = np.zeros(expert.shape[:-1]), obj.reward(expert, policy)
    gradient = response_imbalance(obj, expert, policy, reward)
    worst, slack = float(gap.max(initial=0.0)), float(gradient.max(initial=0.0))
    met = worst <= tolerance and slack <= BALANCE
    outcome = Outcome.CONVERGED if met else Outcome.NOT_CONVERGED
    status = (
        f"{outcome.value}: equilibrium of the rounds (a link of both laws, no potential) by "
        f"Newton's method, certified gap {worst:.2g} of {tolerance:.2g}, gradient of the reward "
        f"{slack:.2g} of {BALANCE:.2g}"
    )
    nothing = np.full(gap.shape, np.nan)
    details = {"reward_gradient": gradient}
    found = Solution(
        policy, reward, nothing, nothing, gap, outcome, status, iterations, None, details
    )
    if raise_on_failure and not met:
        raise NotConverged(f"{obj.name}, tau={tau:g}: {status}", found)
    return found
