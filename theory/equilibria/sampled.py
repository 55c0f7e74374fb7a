"""The duality gap from samples: what a policy could still gain, with an interval (T10).

A reward ``r`` on own and reference responses, and ``log pi/pi_ref`` on own ones, are enough for

    gap = E_pi[b(r)] + tau KL(pi||ref) + tau log E_ref e^{-b(r)/tau},

which is ``tau KL(pi || ref e^{-b(r)/tau}/Z)``; the expert's law is not read. ``log E`` is estimated
by the logarithm of a mean, which is too small by ``cv^2/(2m)`` to first order; that is taken off.
Where few of the weights carry the mean nothing is said: a sample cannot show the weights that it
has not met.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from theory import objectives
from theory.certificate import reward_gain
from theory.equilibria import sample_inputs
from theory.equilibria.log_mean import LogMean
from theory.equilibria.problem import Kind
from theory.errors import refuse
from theory.objectives import Objective
from theory.result import FloatArray

LEAST_SIZE = 100.0
"""Effective size of the weights from which on the bias is below a twentieth of its error."""
DISAGREE = 4.5
"""Standard errors by which two estimates of one number must not differ."""


class Estimate(NamedTuple):
    """A number from samples, (...), in nats, and its standard error; NaN where it is not known."""

    value: FloatArray
    standard_error: FloatArray

    def interval(self, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Two-sided normal interval of that level."""
        refuse(sample_inputs.level_problems(level))
        half = NormalDist().inv_cdf(0.5 + 0.5 * level) * self.standard_error
        return self.value - half, self.value + half


@dataclass(frozen=True)
class SampledGap:
    """What samples say of a policy's gap; every number (...), a prompt each.

    Attributes:
        gap: the duality gap of (policy, reward), without the plug-in's bias; NaN where refused.
        value: payoff ``E_p[a(r)] + E_pi[b(r)] + tau KL(pi||ref)``; NaN without expert responses,
            and in the rounds' problem, whose potential samples do not show. ``value - policy_gap``
            is the dual value, a lower bound of the game's.
        policy_gap: what the policy could gain against this reward: all of the gap if the reward
            player's part is not known, which is then left out.
        reward_gap: what the reward player could gain, at most; NaN where not known.
        bias: what was taken off the plug-in, ``-tau cv^2/(2m)``; jackknife_bias: the same by
            leaving out each response once, for comparison.
        effective_size: ``(sum w)^2/sum w^2`` of the exponential weights.
        kl_to_expert: ``KL(p||pi)``, NaN without log-ratios on expert responses.
        distance: upper limit of ``KL(pi||pi*)``, one-sided at ``level``; NaN where not known.
        trusted: whether an interval is given. status: why not, or from how many responses.
        level: of :attr:`interval` and of ``distance``.
    """

    gap: Estimate
    value: Estimate
    policy_gap: Estimate
    reward_gap: Estimate
    bias: FloatArray
    jackknife_bias: FloatArray
    effective_size: FloatArray
    kl_to_expert: Estimate
    distance: FloatArray
    trusted: np.ndarray[Any, np.dtype[np.bool_]]
    status: str
    level: float

    @property
    def interval(self) -> tuple[FloatArray, FloatArray]:
        """Two-sided interval of the gap at ``level``; NaN where the weights do not allow one."""
        return self.gap.interval(self.level)


def sampled_gap(
    obj: Objective | str,
    tau: float,
    own_reward: Any,
    own_anchor: Any = None,
    ref_reward: Any = None,
    expert_reward: Any = None,
    *,
    own_ratio: Any = None,
    expert_ratio: Any = None,
    highest: float | None = None,
    kind: Kind = "saddle",
    level: float = 0.95,
    least_size: float = LEAST_SIZE,
) -> SampledGap:
    """Estimate the duality gap of a policy and a reward from independent samples (T10).

    Args:
        obj: the objective, or a specification such as ``"spif(c=0.5)"``.
        tau: weight of the anchor, >= 0.
        own_reward: ``r`` of responses of the policy, (..., n), nats; leading axes are prompts.
        own_anchor: ``log pi/pi_ref`` of the same responses, (..., n), nats; needed if tau > 0.
        ref_reward: ``r`` of reference responses (..., m). Without them ``log E_ref`` is found on
            own responses, with less noise, but blind to what the policy never gives; with them the
            two are compared, and where they differ no interval is given.
        expert_reward: ``r`` of expert responses (..., k), for the value.
        own_ratio, expert_ratio: ``log p/pi`` of own and expert responses, where it is known, for
            ``kl_to_expert`` and (with ``expert_reward``) the reward player's part of the gap.
        highest: largest reward of any response, which samples never show; needed at tau = 0.
        kind: "saddle", the policy is paid ``-b(r)``; "equilibrium", it is paid ``r``: the gap of
            ``D_Phi + tau KL``, if ``r`` is the best response ``R(log p/pi)``.
        level: of the intervals, within (0, 1).
        least_size: smallest effective size of the weights that gives an interval.

    Returns:
        :class:`SampledGap`. ``distance`` bounds ``KL(pi||pi*)``: the whole gap over tau for the
        saddle point, over ``tau + inf R'`` for the equilibrium of the rounds.

    Raises:
        InvalidInput: unusable arguments, all at once; rewards outside of the game's.
        Unavailable: the objective has no payoffs (saddle) or no link (equilibrium), with the
            reason.

    >>> rng = np.random.default_rng(0)
    >>> p, q, ref = np.array([[0.5, 0.3, 0.2], [0.4, 0.3, 0.3], [0.3, 0.3, 0.4]])
    >>> r = objectives.get("spif").reward(p, q)
    >>> own, base = (rng.choice(3, 4000, p=law) for law in (q, ref))
    >>> found = sampled_gap("spif", 0.5, r[own], np.log(q / ref)[own], r[base])
    >>> exact = q @ (objectives.get("spif").b(r) + 0.5 * np.log(q / ref))
    >>> exact += 0.5 * np.log(ref @ np.exp(-objectives.get("spif").b(r) / 0.5))
    >>> low, high = found.interval
    >>> bool(low < exact < high), bool(found.trusted)
    (True, True)
    """
    obj = objectives.of(obj)
    given = sample_inputs.checked(
        tau,
        highest,
        kind,
        level,
        least_size,
        own_reward=own_reward,
        own_anchor=own_anchor,
        own_ratio=own_ratio,
        ref_reward=ref_reward,
        expert_reward=expert_reward,
        expert_ratio=expert_ratio,
    )
    obj.require("saddle" if kind == "saddle" else "potential")
    if kind == "saddle":
        refuse(sample_inputs.domain_problems(obj, given, highest))
    tau = float(tau)
    own_pay, ref_pay, best = (
        _pay(obj, kind, x, name)
        for x, name in (
            (given["own_reward"], "own_reward"),
            (given.get("ref_reward"), "ref_reward"),
            (None if highest is None else np.array([float(highest)]), "highest"),
        )
    )
    assert own_pay is not None
    own = -own_pay + tau * given.get("own_anchor", np.zeros(1))  # its mean: what the policy pays
    if tau == 0:
        assert best is not None
        refuse(sample_inputs.best_problems(best[0], highest, own_pay, ref_pay))
        log_part = _LogPart.of_the_highest(best, own.shape)
    else:
        log_part = _log_part(own, ref_pay, tau, least_size)
    on_own, on_expert = _reward_gain(obj, kind, given)
    policy_gap = _sum(_mean(own + log_part.on_own), log_part.estimate)
    gap = policy_gap
    reward_gap = unknown = _unknown(own)
    if on_own is not None and on_expert is not None:
        reward_gap = _sum(_mean(on_own), _mean(on_expert))
        gap = _sum(_mean(own + log_part.on_own + on_own), log_part.estimate, _mean(on_expert))
    trusted = log_part.problem == ""
    gap, policy_gap = (
        Estimate(*(np.where(trusted, x, np.nan) for x in e)) for e in (gap, policy_gap)
    )
    value = unknown
    if kind == "saddle" and "expert_reward" in given:
        with np.errstate(all="ignore"):
            paid = np.asarray(obj.a(given["expert_reward"]))
        refuse(_not_finite(paid, "expert_reward"))
        value = _sum(_mean(paid), _mean(own))
    pull = tau if kind == "saddle" else tau + _least_slope(obj)
    distance = unknown.value
    if pull > 0 and (kind == "equilibrium" or on_own is not None):
        upper = gap.value + NormalDist().inv_cdf(level) * gap.standard_error
        distance = np.maximum(upper, 0.0) / pull
    return SampledGap(
        gap=gap,
        value=value,
        policy_gap=policy_gap,
        reward_gap=reward_gap,
        bias=log_part.bias,
        jackknife_bias=log_part.jackknife_bias,
        effective_size=log_part.size,
        kl_to_expert=_mean(given["expert_ratio"]) if "expert_ratio" in given else unknown,
        distance=np.asarray(distance),
        trusted=np.asarray(trusted),
        status=_status(log_part),
        level=float(level),
    )


def _mean(samples: FloatArray) -> Estimate:
    count = samples.shape[-1]
    return Estimate(samples.mean(-1), samples.std(-1, ddof=1) / np.sqrt(count))


def _sum(*parts: Estimate) -> Estimate:
    """Sum of independent estimates."""
    error = np.sqrt(sum(part.standard_error**2 for part in parts))
    return Estimate(np.asarray(sum(part.value for part in parts)), np.asarray(error))


def _unknown(own: FloatArray) -> Estimate:
    nothing = np.full(own.shape[:-1], np.nan)
    return Estimate(nothing, nothing)


# --- what the reference pays ----------------------------------------------------------------------


class _LogPart(NamedTuple):
    """What ``tau log E_ref e^{pay/tau}`` adds to the gap."""

    estimate: Estimate
    """Without its bias; the error only of samples other than own ones."""
    on_own: FloatArray
    """Influence of the own samples (..., n), of mean 0."""
    bias: FloatArray
    jackknife_bias: FloatArray
    size: FloatArray
    problem: np.ndarray[Any, np.dtype[np.str_]]
    """Why there is no interval, (...); "" where there is."""
    samples: str

    @classmethod
    def of_the_highest(cls, best: FloatArray, shape: tuple[int, ...]) -> _LogPart:
        """Its limit at tau = 0: the largest pay of any response."""
        zero = np.zeros(shape[:-1])
        estimate = Estimate(zero + best[0], zero)
        none = np.full(shape[:-1], "")
        full = np.full(shape[:-1], float(shape[-1]))
        said = f"{shape[-1]} own responses, against the highest reward"
        return cls(estimate, np.zeros(1), zero, zero, full, none, said)


def _log_part(
    own: FloatArray, ref_pay: FloatArray | None, tau: float, least_size: float
) -> _LogPart:
    by_own = LogMean.of(-own / tau)  # E_ref e^{pay/tau} = E_pi e^{pay/tau} ref/pi
    used, said = by_own, f"{own.shape[-1]} own responses alone"
    apart = np.zeros(by_own.value.shape, dtype=bool)
    if ref_pay is not None:
        used = LogMean.of(ref_pay / tau)
        said = f"{own.shape[-1]} own and {ref_pay.shape[-1]} reference responses"
        allowed = DISAGREE * np.hypot(by_own.error, used.error) + 1e-12
        apart = (np.abs(by_own.value - used.value) > allowed) & (by_own.size >= least_size)
    problem = np.where(
        used.size < least_size,
        f"an effective size of the weights below {least_size:g}",
        np.where(apart, "own and reference responses that disagree on log E_ref e^{pay/tau}", ""),
    )
    alone = ref_pay is None
    return _LogPart(
        estimate=Estimate(tau * (used.value - used.bias), (0.0 if alone else tau) * used.error),
        on_own=tau * used.relative if alone else np.zeros(1),
        bias=tau * used.bias,
        jackknife_bias=tau * used.jackknife_bias,
        size=used.size,
        problem=problem,
        samples=said,
    )


def _status(part: _LogPart) -> str:
    refused = part.problem != ""
    if not refused.any():
        return f"from {part.samples}"
    first = tuple(int(i) for i in np.argwhere(refused)[0])
    where = f" at {int(refused.sum())} of {refused.size} prompts, the first" if refused.ndim else ""
    at = f"{where} {first}" if refused.ndim else ""
    return f"refused{at}: {part.problem[first]} (it is {part.size[first]:.3g}; {part.samples})"


# --- the reward player ----------------------------------------------------------------------------


def _reward_gain(
    obj: Objective, kind: Kind, given: dict[str, FloatArray]
) -> tuple[FloatArray, FloatArray] | tuple[None, None]:
    """Own and expert parts whose means add up to what the reward player could gain, at most.

    A gain is of degree 1 in both masses, so its sum is its mean under ``(p + pi)/2`` at masses
    ``p`` and ``pi`` over that, which are ``1 +- tanh(u/2)``: bounded.
    """
    needed = ("own_ratio", "expert_ratio", "expert_reward")
    if kind != "saddle" or any(name not in given for name in needed):
        return None, None

    def at(ratio: FloatArray, reward: FloatArray) -> FloatArray:
        ratio, reward = np.broadcast_arrays(ratio, reward)
        tilt = np.tanh(0.5 * ratio)
        return 0.5 * reward_gain(obj, 1.0 + tilt, 1.0 - tilt, reward)

    return (
        at(given["own_ratio"], given["own_reward"]),
        at(given["expert_ratio"], given["expert_reward"]),
    )


def _least_slope(obj: Objective) -> float:
    """``inf R'``: how convex the potential is beside the anchor."""
    mu = float(obj.slope_range()[0])
    return mu if mu > 0 else 0.0


def _pay(obj: Objective, kind: Kind, reward: FloatArray | None, name: str) -> FloatArray | None:
    """What the policy is paid for a reward: the reward, or ``-b(r)`` of the saddle point."""
    if reward is None or kind == "equilibrium":
        return reward
    with np.errstate(all="ignore"):
        pay = -np.asarray(obj.b(reward))
    refuse(_not_finite(pay, name))
    return pay


def _not_finite(payoff: FloatArray, name: str) -> list[str]:
    return [] if np.isfinite(payoff).all() else [f"{name}: outside the range of the payoffs"]
