"""One-step rounds: one loss on one model, in its implicit reward (reconstruction, T3, T4).

    r_theta = beta log(pi/pi_t) + tau log(pi/pi_ref),   minimised over normalised policies pi

For a loss that does not see a common shift of the reward this is the two-step round (T3). A
pointwise loss does see it: the normalisation is missed by ``log Z`` and has a multiplier, and for
Z < 1 the problem is not convex (T4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from theory import arguments, laws, objectives, xp
from theory.errors import InvalidInput, NotConverged, Unavailable, refuse
from theory.objectives import Objective, derivatives
from theory.result import FloatArray
from theory.rounds.one_step_global import solve_global
from theory.rounds.one_step_near import Found, solve_near
from theory.rounds.one_step_problem import BoolArray, OneStepProblem, concave, single_fold

Branch = Literal["near", "global"]


@dataclass(frozen=True)
class OneStep:
    """The law after a one-step round and what is known of it; shapes (..., n) or (...).

    Attributes:
        policy: the law, (..., n).
        reward: its implicit reward ``beta log(pi/pi_t) + tau log(pi/pi_ref)`` in nats (of a
            reference-free objective ``beta log pi``); may be unbounded; 0 where pi_t has no mass.
        status: a sentence that says "certified" or "not certified".
        multiplier: ``lambda`` in ``(beta+tau) f'(r) = lambda pi``: positive where Z < 1, and 0 for
            shift-invariant losses.
        dumped: index of the outcome on its far branch, -1 where none is.
        dumped_mass: the mass there, 0 where none is.
        gap: certified bound of risk minus least risk, at most 1e-9 max(1, |risk|); NaN where not
            certified.
        converged: whether the stationarity equations hold.
    """

    policy: FloatArray
    reward: FloatArray
    status: str
    multiplier: FloatArray
    dumped: FloatArray
    dumped_mass: FloatArray
    gap: FloatArray
    converged: BoolArray

    @property
    def certified(self) -> BoolArray:
        """Per prompt: whether the law is the global minimum by its certificate."""
        return np.asarray(self.converged & ~np.isnan(self.gap))


def one_step_round(
    expert: FloatArray,
    policy: FloatArray,
    obj: Objective | str,
    beta: float,
    ref: FloatArray | None = None,
    tau: float = 0.0,
    branch: Branch = "near",
    history: FloatArray | None = None,
    preference: FloatArray | None = None,
) -> OneStep:
    """Minimise the objective's risk over normalised policies (reconstruction, T3, T4).

    Args:
        expert: expert law ``p`` (..., n), leading axes are prompts.
        policy: law ``pi_t`` of own responses, which log-ratios divide by (the opponent's law where
            that is another one). Outcomes of mass 0 stay at 0.
        obj: the objective, or its specification as in ``objectives.get``.
        beta: weight of the KL step, > 0.
        ref: reference of the anchor, needed for tau > 0.
        tau: weight of the anchor, >= 0.
        branch: for pointwise losses, "near": the stationary law continued from the two-step round
            as its mass grows from Z to one. The first outcome at its fold takes the mass beyond it;
            where the branch ends before it is normalised it is followed over its end, as the status
            says, and descent from pi_t may dump on another outcome (``one_step_path`` keeps to one
            minimum along beta). "global": the least minimum, with its certificate.
        history: law ``pi_0`` of the history term (T-SPIN).
        preference: ``P(y > pi_t)`` of each outcome (SPPO).

    Raises:
        InvalidInput: unusable arguments, all at once. Unavailable: the objective has no such round.
        NotConverged: no stationary law was reached; ``solution`` holds what there is.
    """
    obj = objectives.of(obj)
    _check(obj, beta, ref, tau, branch, history, preference)
    more = {"ref": ref, "history": history}
    given = {"expert": expert, "policy": policy}
    given |= {name: law for name, law in more.items() if law is not None}
    by_name = dict(zip(given, laws.check_laws(**given), strict=True))
    p, q = by_name["expert"], by_name["policy"]
    log_q = laws.log_law(q)
    if ref is not None and tau > 0:
        refuse(laws.support_problems(q, "policy", by_name["ref"], "ref"))
        log_prior = beta * log_q + tau * laws.log_law(by_name["ref"])
    else:
        log_prior = beta * log_q
    if obj.reference_free:
        return _reference_free(obj, p, q, by_name.get("history"), beta)
    if obj.form != "pointwise":
        return _shift_invariant(obj, p, q, log_prior, beta + tau)
    on_expert, on_own = p, q
    if preference is not None:  # (p+q)(r - (P - 1/2))^2 is the hard-label loss at these weights
        wins = _fitting(laws.as_numbers(preference), p.shape)
        on_expert, on_own = (p + q) * wins, (p + q) * (1.0 - wins)
    return _pointwise(obj, on_expert, on_own, log_prior, beta + tau, branch)


def _pointwise(
    obj: Objective,
    on_expert: FloatArray,
    on_own: FloatArray,
    log_prior: FloatArray,
    s: float,
    branch: Branch,
) -> OneStep:
    shape = on_expert.shape
    rows = (-1, shape[-1])
    flat = on_expert.reshape(rows), on_own.reshape(rows), log_prior.reshape(rows)
    prob = _problem(obj, *flat, s)
    lightest = -np.min(np.where(prob.alive, prob.log_w, np.inf))
    largest = 2.0 ** np.ceil(np.log2(max(1.0, s * lightest)))
    shaped, convex = single_fold(obj, s, largest), concave(obj, s, largest)
    solve = solve_near if branch == "near" else solve_global
    with np.errstate(all="ignore"):  # what overflows does not settle, and is refused below
        found = solve(prob, shaped, convex)
    log_pi = np.where(prob.alive, found.log_pi, -np.inf)
    # without mass nothing holds a reward off the best, which the search for the law need not meet
    gone = (np.exp(log_pi) == 0) & (np.exp(prob.start) == 0) & np.isfinite(prob.start)
    log_pi = np.where(gone, prob.start, log_pi)
    far = found.far
    mass = np.where(far >= 0, np.exp(log_pi)[np.arange(len(far)), far], 0.0)
    lead = shape[:-1]
    reward = prob.reward(log_pi)
    result = OneStep(
        policy=np.exp(log_pi).reshape(shape),
        reward=np.where(prob.alive, reward, 0.0).reshape(shape),
        status=_status(found, branch, shaped),
        multiplier=found.multiplier.reshape(lead),
        dumped=far.reshape(lead),
        dumped_mass=mass.reshape(lead),
        gap=found.gap.reshape(lead),
        converged=found.settled.reshape(lead),
    )
    if not result.converged.all():
        raise NotConverged(f"{obj.name}: {result.status}", result)
    return result


def _problem(
    obj: Objective, p: FloatArray, q: FloatArray, log_prior: FloatArray, s: float
) -> OneStepProblem:
    """The normalised problem (B, n), without outcomes whose loss is unbounded below at mass 0."""
    if float(derivatives.derivative(obj.b, np.array([-1e150]))[0]) < 0:
        log_prior = np.where(p == 0, -np.inf, log_prior)  # b = -r ...: the risk is -inf at mass 0
        _refuse_disjoint(obj, log_prior)
    log_w = log_prior / s
    u = np.where(np.isfinite(log_w), laws.log_ratio(p, q), 0.0)
    with np.errstate(all="ignore"):
        best = np.asarray(obj.link_formula(u, None), dtype=np.float64)
        cap = s * (700.0 - np.where(np.isfinite(log_w), log_w, 0.0))
    return OneStepProblem(obj, s, p, q, log_w, np.minimum(best, cap))


def _shift_invariant(
    obj: Objective, p: FloatArray, q: FloatArray, log_prior: FloatArray, s: float
) -> OneStep:
    """T3: of all rewards that differ by a constant, one is the implicit reward of a law."""
    obj.require("risk")
    reward = obj.reward(p, q)
    if not obj.up_to_constant:
        raise Unavailable(
            f"{obj.name} has no one-step round: its risk changes when all rewards shift by a "
            "constant, so the two-step round does not minimise it, and it is not separable"
        )
    alive = np.isfinite(log_prior)
    with np.errstate(invalid="ignore"):
        weight = np.where(alive, (log_prior + reward) / s, -np.inf)
    _refuse_disjoint(obj, weight)
    log_pi = xp.log_normalise(weight)
    return _exact(
        log_pi,
        np.where(alive, s * log_pi - np.where(alive, log_prior, 0.0), 0.0),
        "certified: the risk does not change when all rewards shift by a constant, so the best "
        "response is an implicit reward, and one step is the two-step round",
    )


def _refuse_disjoint(obj: Objective, weight: FloatArray) -> None:
    if np.any(np.isneginf(weight).all(-1)):
        raise InvalidInput(
            f"{obj.name}: the best response is -inf on every own response, so no law follows; "
            "needed is an outcome with mass under both expert and policy"
        )


def _reference_free(
    obj: Objective, p: FloatArray, q: FloatArray, h: FloatArray | None, beta: float
) -> OneStep:
    """Loss of differences of ``r = beta log pi``: every r is one up to a constant."""
    reward = obj.reference_free_response(p, q, h)
    live = p + q > 0 if h is None else p + q + h > 0
    if np.any(np.isposinf(reward)):
        raise InvalidInput(
            f"{obj.name}: the best response is +inf on some response, so no law follows; needed "
            "is an own or history response wherever there is an expert one"
        )
    log_pi = xp.log_normalise(np.where(live, reward / beta, -np.inf))
    return _exact(
        log_pi,
        np.where(live, beta * log_pi, 0.0),
        "certified: the loss is convex in differences of beta log pi; solved by Newton's method",
    )


def _exact(log_pi: FloatArray, reward: FloatArray, status: str) -> OneStep:
    zero = np.zeros(log_pi.shape[:-1])
    none = np.full(zero.shape, -1)
    settled = np.ones(zero.shape, dtype=bool)
    return OneStep(np.exp(log_pi), reward, status, zero, none, zero, zero, settled)


def _status(found: Found, branch: Branch, shaped: bool) -> str:
    """One sentence on all prompts."""
    count = len(found.gap)
    if not found.settled.all():
        return f"not converged on {int((~found.settled).sum())} of {count} prompts; not certified"
    certified = ~np.isnan(found.gap)
    dumped = int((found.far >= 0).sum())
    over = int((found.fold >= 0).sum())
    said = f"; one outcome is on its far branch on {dumped} of {count} prompts" if dumped else ""
    if over:
        said += f"; the near branch ends at its fold on {over} of {count} and was followed over it"
    if certified.all():
        return f"certified: the least risk, to within {float(found.gap.max()):.1e} nats{said}"
    what = "near branch" if branch == "near" else "best minimum found"
    why = (
        "a local minimum at Z < 1, where the problem is not convex"
        if shaped
        else "the loss is not convex, then concave, in each mass"
    )
    return f"not certified on {int((~certified).sum())} of {count} prompts ({what}: {why}){said}"


def _check(
    obj: Objective, beta: Any, ref: Any, tau: Any, branch: Any, history: Any, preference: Any
) -> None:
    problems: list[str | None] = [
        *arguments.number("beta", beta),
        *arguments.anchor(tau, ref),
        *arguments.choice("branch", branch, get_args(Branch)),
    ]
    if obj.reference_free and laws.is_real(tau) and tau > 0:
        problems.append(f"tau={tau!r}: {obj.name} is reference-free and has no anchor")
    for name, value in (("history", history), ("preference", preference)):
        if (name in obj.needs) != (value is not None):
            problems.append(
                f"{name}: {obj.name} {'needs it' if name in obj.needs else 'does not take it'}"
            )
    if preference is not None:
        problems += _preference_problems(preference)
    refuse(problems)
    obj.require("risk")
    if obj.form != "pointwise" and not obj.reference_free:
        obj.require("reward")


def _preference_problems(preference: Any) -> list[str]:
    try:
        wins = laws.as_numbers(preference)
    except (TypeError, ValueError) as error:
        return [f"preference: not an array of numbers ({error})"]
    if not (wins.size and np.all((wins >= 0) & (wins <= 1))):
        return ["preference: outside [0, 1]; needed is P(y > pi_t) of each outcome"]
    return []


def _fitting(preference: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """One number an outcome, in the shape of the laws. InvalidInput: it has another one."""
    try:
        return np.broadcast_to(preference, shape)
    except ValueError:
        raise InvalidInput(
            f"preference: shape {preference.shape}; needed is that of the laws, {shape}"
        ) from None


# -- predictions ---------------------------------------------------------------------------------


def partition_gap(
    expert: FloatArray, policy: FloatArray, obj: Objective | str, beta: float
) -> FloatArray:
    """``log Z_t = log E_{pi_t} e^{R(u)/beta}``, shape (...) (reconstruction, T4).

    What the best response misses by to be the implicit reward of a normalised policy. Only
    pointwise rewards have a level of their own.

    Raises:
        Unavailable: the objective has no link, or its rewards are defined up to a constant.
        InvalidInput: laws, or not ``beta > 0``.
    """
    obj = objectives.of(obj)
    refuse(arguments.numbers("beta", beta, single=True))
    if obj.up_to_constant:
        raise Unavailable(
            f"{obj.name} has no partition gap: its rewards are defined up to a constant (T3)"
        )
    p, q = laws.check_laws(expert=expert, policy=policy)
    reward = obj.reward(p, q)
    with np.errstate(invalid="ignore"):
        return np.asarray(xp.logsumexp(np.where(q > 0, laws.log_law(q) + reward / beta, -np.inf)))


def local_rate_one_step(obj: Objective | str, beta: float) -> float:
    """Factor by which a one-step round contracts a small log-ratio (reconstruction, T4).

    ``1 - a'/(beta(|a''|+|b''|) + a' + b')`` at r = 0; for shift-invariant losses the two-step
    factor ``1 - R'(0)/beta`` (T3, T6 iv).

    Raises:
        Unavailable: the objective has no loss, its payoffs have a corner at 0, or its opponent is
            not pi_t. InvalidInput: not ``beta > 0``.
    """
    obj = objectives.of(obj)
    refuse(arguments.numbers("beta", beta, single=True))
    obj.require("risk")
    if obj.opponent_factor != 1.0:
        raise Unavailable(f"{obj.name} has no local one-step factor: its opponent is not pi_t")
    if obj.form != "pointwise":
        return float(1.0 - obj.slope_at_zero / beta)

    def of_payoffs(order: int, at: FloatArray) -> FloatArray:
        return np.array([derivatives.derivative(f, at, order) for f in (obj.a, obj.b)])

    near = np.array([0.0, -derivatives.BESIDE, derivatives.BESIDE])
    force, bend = (float(np.abs(of_payoffs(order, near[:1])).max()) for order in (1, 2))
    near *= force / bend if 0 < force < bend else 1.0  # about a nat, in rewards of a small unit
    slopes, bends = (of_payoffs(order, near) for order in (1, 2))
    for found in (slopes, bends):
        sides = np.abs(found[:, 1:])
        apart = np.abs(found[:, 2] - found[:, 1])
        if np.any((apart > 1e-3 * sides.max(-1)) & (apart > 1e-9 * np.abs(slopes).max())):
            said = "its payoffs have a corner at 0"
            raise Unavailable(f"{obj.name} has no local one-step factor: {said}")
    (a1, b1), (a2, b2) = slopes[:, 0], bends[:, 0]
    return float(1.0 - a1 / (beta * (abs(a2) + abs(b2)) + a1 + b1))
