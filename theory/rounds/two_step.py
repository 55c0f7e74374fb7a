"""Exact self-play rounds: the reward player's best response, then a KL-proximal policy step.

    r_t      = argmax_r E_p[a(r)] + E_{pi_t}[b(r)]                           = R(log p/pi_t)   (T1)
    pi_{t+1} = argmax_pi E_pi[r_t] - beta KL(pi||pi_t) - tau KL(pi||pi_ref)
             ∝ (pi_t^beta pi_ref^tau e^{r_t})^{1/(beta+tau)}                                   (T2)

Everything is kept in log-probabilities, so that a diverging run stays exact until its log-ratios
themselves leave the floating-point range.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args

import numpy as np
from tqdm import tqdm

from theory import laws, xp
from theory.arguments import round_weights
from theory.errors import InvalidInput, Unavailable, refuse
from theory.objectives import Objective
from theory.result import FloatArray, Solution
from theory.rounds.certificate import equilibrium_bounds
from theory.rounds.one_step import one_step_round
from theory.tokens.mdp import TokenMDP
from theory.tokens.tree import policy_problems

Level = Literal["sequence", "conditional", "occupancy"]
OneStep = Literal["near", "global"]
SETTLED = 1e-12
LARGEST = 1e300


def self_play(
    expert: FloatArray,
    start: FloatArray,
    obj: Objective,
    beta: float | Iterable[float] = 1.0,
    rounds: int = 50,
    ref: FloatArray | None = None,
    tau: float = 0.0,
    one_step: bool | OneStep = False,
    game: TokenMDP | None = None,
    level: Level = "sequence",
    progress: bool = True,
) -> Solution:
    """Run exact rounds of self-play against an expert (reconstruction, T1-T4, T14).

    Args:
        expert: expert law ``p``, probabilities (..., n), leading axes are prompts; with ``game``
            a state-action log-policy (S, A).
        start: first policy ``pi_0``, same shape.
        obj: the objective.
        beta: weight of the policy player's KL step, > 0; a number or one a round.
        rounds: number of rounds, >= 0.
        ref: reference policy of the anchor, same shape; also the base of objectives whose opponent
            has one (the start if not given).
        tau: weight of the anchor ``KL(pi||ref)``, >= 0; needs ``ref`` if positive.
        one_step: False for two-step rounds; "near" (or True) and "global" minimise the loss of the
            implicit reward over normalised policies instead (T4, :mod:`theory.rounds.one_step`).
        game: a token MDP on whose policies the rounds are played.
        level: what a reward is given to: "sequence" ``R(log p(y)/pi(y))``; "conditional"
            ``R(log p(a|s)/pi(a|s))`` per token; "occupancy" ``R(log d_p(s,a)/d_pi(s,a))``. The
            policy step is soft value iteration. With ``one_step`` the conditional level trains
            each state's own law, without continuation values.
        progress: show a progress bar, in a terminal, from the third second on.

    Returns:
        A :class:`Solution`; ``policies`` holds all iterates (rounds + 1, ..., n), the start first,
        ``details["kl"]`` ``KL(p||pi_t)`` and ``details["max_logratio"]`` ``max |log p/pi_t|`` of
        each. ``primal`` is the potential (plus anchor) of the last iterate and ``gap`` bounds its
        distance to the equilibrium value; NaN where the objective has no potential.

    Raises:
        InvalidInput: unusable arguments, all named at once. Unavailable: the objective has no such
            round, with the reason.
    """
    betas = _check(obj, beta, rounds, ref, tau, one_step, game, level, expert, start)
    branch = one_step if isinstance(one_step, str) else ("near" if one_step else None)
    disable = None if progress else True  # None: where standard error is a terminal
    steps = tqdm(betas, desc=f"{obj.name} rounds", disable=disable, delay=3.0, leave=False)
    if game is None:
        named = {"expert": expert, "start": start}
        checked = laws.check_laws(**named, **({} if ref is None else {"ref": ref}))
        log_laws = [laws.log_law(law) for law in checked]
        refuse(_support_problems(obj, log_laws, tau))
        path, notes = _sequence_path(log_laws, obj, steps, tau, branch)
        return _solution(np.exp(path), path, log_laws[0], obj, log_laws[2:], tau, notes)
    given = [game.validate_policy(law, what) for law, what in _named(expert, start, ref)]
    if level == "sequence":
        log_laws = [game.log_sequence_law(law) for law in given]
        refuse(_support_problems(obj, log_laws, tau))
        path, notes = _sequence_path(log_laws, obj, steps, tau, branch)
        states = game.policy_from_log_law(path)
        return _solution(states, path, log_laws[0], obj, log_laws[2:], tau, notes)
    return _token_path(game, given, obj, steps, tau, branch, level)


def reward_of_log_laws(obj: Objective, log_p: FloatArray, log_q: FloatArray) -> FloatArray:
    """Best response to laws given by logarithms, not centred; finite wherever both have mass."""
    if not obj.has_link:
        return obj.reward(np.exp(log_p), np.exp(log_q))
    p, q = np.exp(log_p), np.exp(log_q)
    dead = np.isneginf(log_p) & np.isneginf(log_q)
    with np.errstate(invalid="ignore"):
        u = np.where(dead, 0.0, log_p - log_q)
    reward = np.asarray(obj.link(u, laws.triangular(p, q)[..., None]))
    return np.where(np.isfinite(u), np.clip(reward, -LARGEST, LARGEST), reward)


def gibbs_step(
    log_q: FloatArray, reward: FloatArray, beta: float, log_ref: FloatArray | None, tau: float
) -> FloatArray:
    """``log`` of the policy step T2, normalised on the last axis; mass 0 stays 0."""
    anchor = 0.0 if tau == 0 or log_ref is None else tau * log_ref
    with np.errstate(invalid="ignore"):
        weight = (beta * log_q + anchor + reward) / (beta + tau)
    return np.asarray(xp.log_normalise(np.where(np.isneginf(log_q), -np.inf, weight)))


def _sequence_path(
    log_laws: list[FloatArray],
    obj: Objective,
    betas: Iterable[float],
    tau: float,
    branch: OneStep | None,
) -> tuple[FloatArray, list[str]]:
    """All log-policies of sequence-level rounds, and what the rounds had to say."""
    log_p, log_start = log_laws[:2]
    log_ref = log_laws[2] if len(log_laws) > 2 else None
    base = log_start if log_ref is None else log_ref
    path, notes = [log_start], []
    for beta in betas:
        prior = np.asarray(obj.opponent(path[-1], log_start, base))
        if branch is None:
            reward = reward_of_log_laws(obj, log_p, prior)
            path.append(gibbs_step(prior, reward, beta, log_ref, tau))
        else:
            step = one_step_round(
                np.exp(log_p),
                np.exp(prior),
                obj,
                beta,
                ref=None if log_ref is None or tau == 0 else np.exp(log_ref),
                tau=tau,
                branch=branch,
                history=np.exp(log_start) if "history" in obj.needs else None,
            )
            path.append(laws.log_law(step.policy))
            notes.append(step.status)
    return np.stack(path), notes


def _token_path(
    game: TokenMDP,
    given: list[FloatArray],
    obj: Objective,
    betas: Iterable[float],
    tau: float,
    branch: OneStep | None,
    level: Level,
) -> Solution:
    """Rounds with a reward per token: soft value iteration, or each state's own one-step round."""
    log_p, log_ref = given[0], given[2] if len(given) > 2 else None
    start = given[1]
    history = np.exp(start) if "history" in obj.needs else None
    path = [start]
    for beta in betas:
        log_q = np.asarray(obj.opponent(path[-1], start, start if log_ref is None else log_ref))
        if branch is not None:
            rows = (np.exp(log_p), np.exp(log_q), obj, beta)
            ref = None if log_ref is None or tau == 0 else np.exp(log_ref)
            step = one_step_round(*rows, ref=ref, tau=tau, branch=branch, history=history)
            path.append(laws.log_law(step.policy))
            continue
        reward = token_reward(game, log_p, log_q, obj, level)
        path.append(game.soft_value_iteration(reward, log_q, beta, tau, log_ref).policy)
    policies = np.stack(path)
    reward = np.full_like(policies[-1], np.nan)
    if branch is None:
        reward = token_reward(game, log_p, policies[-1], obj, level)
    kl = np.stack([game.kl(log_p, policy) for policy in path])
    ratio = np.abs(game.conditional_logratio(log_p, policies)).max((-2, -1))
    unknown = np.full(game.n_prompts, np.nan)
    return Solution(
        policy=policies[-1],
        reward=reward,
        primal=unknown,
        dual=unknown,
        gap=unknown,
        status=_status(np.exp(policies), []),
        iterations=len(path) - 1,
        policies=policies,
        details={"kl": kl, "max_logratio": ratio},
    )


def token_reward(
    game: TokenMDP, log_p: FloatArray, log_q: FloatArray, obj: Objective, level: Level
) -> FloatArray:
    """Reward per token (S, A): the link at conditional or at occupancy log-ratios (T14)."""
    if level == "conditional":
        return reward_of_log_laws(obj, log_p, log_q)
    with np.errstate(invalid="ignore"):
        u = game.log_occupancy(log_p) - game.log_occupancy(log_q)
    return np.asarray(np.clip(obj.link(np.where(np.isnan(u), 0.0, u)), -LARGEST, LARGEST))


def _solution(
    policies: FloatArray,
    path: FloatArray,
    log_p: FloatArray,
    obj: Objective,
    log_ref: list[FloatArray],
    tau: float,
    notes: list[str],
) -> Solution:
    """The result of a sequence-level path; ``policies`` in the form of the caller's game."""
    p, last = np.exp(log_p), path[-1]
    reward = (
        reward_of_log_laws(obj, log_p, last)
        if not obj.missing("reward")
        else np.full_like(p, np.nan)
    )
    primal, dual = equilibrium_bounds(
        obj, p, np.exp(last), np.exp(log_ref[0]) if log_ref else None, tau
    )
    reward = obj.centred(reward, p, np.exp(last))
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isneginf(log_p), 0.0, log_p - path)
        gap = primal - dual
    return Solution(
        policy=policies[-1],
        reward=reward,
        primal=primal,
        dual=dual,
        gap=gap,
        status=_status(np.exp(path), notes),
        iterations=len(path) - 1,
        policies=policies,
        details={
            "kl": laws.kl_of_logratio(p, ratio, np.exp(path)),
            "max_logratio": np.abs(ratio).max(-1),
            "notes": notes,
        },
    )


def _status(path: FloatArray, notes: list[str]) -> str:
    """One sentence on how the path ended: settled, in a two-cycle, or still moving."""
    said = f"; one-step: {notes[-1]}" if notes else ""
    if len(path) < 2:
        return "no rounds were asked for" + said
    moved = float(0.5 * np.abs(path[-1] - path[-2]).sum(-1).max())
    if moved <= SETTLED:
        return f"converged: the last round moved {moved:.1e} in total variation{said}"
    if len(path) > 2 and 0.5 * np.abs(path[-1] - path[-3]).sum(-1).max() <= 1e-6 * moved:
        return f"cycle of period two, {moved:.1e} apart in total variation{said}"
    return f"moving: the last round moved {moved:.1e} in total variation{said}"


def _named(*given: Any) -> Iterator[tuple[Any, str]]:
    for law, name in zip(given, ("expert", "start", "ref"), strict=True):
        if law is not None:
            yield law, name


def _support_problems(obj: Objective, log_laws: list[FloatArray], tau: float) -> list[str]:
    """Supports under which no policy step exists."""
    live = [~np.isneginf(law) for law in log_laws]
    problems = []
    if tau > 0 and len(live) > 2:
        problems += laws.support_problems(live[1], "start", live[2], "ref")
    apart = ~(live[0] & live[1]).any(-1)
    unbounded = obj.has_link and obj.reward_bounds[0] == -np.inf
    if apart.any() and unbounded:
        where = tuple(int(i) for i in np.argwhere(apart)[0])
        problems.append(
            f"start and expert have disjoint supports at prompt {where}; {obj.name} "
            "needs an overlap, since its reward is unbounded below where the expert has no mass"
        )
    return problems


def _check(
    obj: Any,
    beta: Any,
    rounds: Any,
    ref: Any,
    tau: Any,
    one_step: Any,
    game: Any,
    level: Any,
    expert: Any,
    start: Any,
) -> list[float]:
    """Return one beta a round, or refuse with everything that is wrong.

    The laws are looked at here only beside other problems: they are checked where they are used.
    """
    if not isinstance(obj, Objective):
        raise InvalidInput(f"obj={obj!r}; needed is an objective, as from objectives.get(name)")
    betas, problems = round_weights(beta, rounds, ref, tau)
    if not isinstance(one_step, (bool, np.bool_)) and one_step not in get_args(OneStep):
        problems.append(f"one_step={one_step!r}; needed is False, True, 'near' or 'global'")
    if level not in get_args(Level):
        problems.append(f"level={level!r}; needed is one of {', '.join(get_args(Level))}")
    elif game is None and level != "sequence":
        problems.append(f"level={level!r} needs game, a TokenMDP")
    elif level == "occupancy" and one_step:
        problems.append(
            "one_step: an implicit reward has no occupancy form; use level='conditional'"
        )
    if game is not None and not isinstance(game, TokenMDP):
        problems.append(f"game={game!r}; needed is a TokenMDP")
    elif game is not None and level == "sequence" and not game.is_tree:
        problems.append("level='sequence' leaves the policies of merged states; use another level")
    for law, name in _named(expert, start, ref) if problems else ():
        if game is None:
            problems += laws.law_problems(law, name)
        elif isinstance(game, TokenMDP):
            problems += policy_problems(law, game.allowed, game.describe, name)
    refuse(problems)
    if "preference" in obj.needs:
        raise Unavailable(f"{obj.name} has no expert law: use preferences.self_play")
    obj.require("risk" if one_step else "reward")
    if level == "occupancy" and obj.has_link:
        try:
            obj.link(0.0)
        except InvalidInput as error:
            why = "its gain depends on Delta of two laws, and occupancies are measures"
            raise Unavailable(f"{obj.name} has no level='occupancy': {why}") from error
    return betas
