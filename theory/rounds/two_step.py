"""Exact self-play rounds: the reward player's best response, then a KL-proximal policy step.

    r_t      = argmax_r E_p[a(r)] + E_{pi_t}[b(r)]                           = R(log p/pi_t)   (T1)
    pi_{t+1} = argmax_pi E_pi[r_t] - beta KL(pi||pi_t) - tau KL(pi||pi_ref)
             ∝ (pi_t^beta pi_ref^tau e^{r_t})^{1/(beta+tau)}                                   (T2)

Everything is kept in log-probabilities, so that a diverging run stays exact until its log-ratios
themselves leave the floating-point range.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
from tqdm import tqdm

from theory import laws, objectives, xp
from theory.arguments import choice, described, steps
from theory.certificate import equilibrium_bounds
from theory.errors import Unavailable, refuse
from theory.objectives import Objective
from theory.result import FloatArray, Later, Outcome, Solution
from theory.rounds.history import History, OwnResponses, history_problems
from theory.rounds.iterates import LARGEST, Iterates, two_step_rounds
from theory.rounds.one_step import one_step_round
from theory.tokens.mdp import TokenMDP
from theory.tokens.tree import policy_problems

Level = Literal["sequence", "conditional", "occupancy"]
OneStep = Literal["near", "global"]
SETTLED = 1e-12
"""Total variation of a round below which the policy rests."""
RESTS = 1e-9
"""Change of KL a round, nats (relative above 1), below which it rests."""


def self_play(
    expert: FloatArray,
    start: FloatArray,
    obj: Objective | str,
    beta: float | Iterable[float] | None = None,
    rounds: int = 50,
    ref: FloatArray | None = None,
    tau: float = 0.0,
    one_step: bool | OneStep = False,
    game: TokenMDP | None = None,
    level: Level = "sequence",
    progress: bool = True,
    *,
    effective_step: float | Iterable[float] | None = None,
    history: History = 0.0,
) -> Solution:
    """Run exact rounds of self-play against an expert (reconstruction, T1-T4, T14).

    Args:
        expert: expert law ``p``, probabilities (..., n), leading axes are prompts; with ``game``
            a state-action log-policy (S, A).
        start: first policy ``pi_0``, same shape.
        obj: the objective, or a specification such as ``"spif(c=0.5)"``.
        beta: weight of the policy player's KL step, > 0; a number or one a round. Of objectives
            with other slopes the same beta is another step: compare at ``effective_step``.
        effective_step: ``R'(0)/beta`` in place of beta. If neither is given beta is 1, and
            ``status`` says so.
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
        history: which own responses are earlier opponents' (T6: history), while log-ratios still
            divide by the present one: the last one's share m in [0, 1]; shares of the last, the
            one before it, ...; or "average", equal shares of all so far (fictitious play). Of
            two-step rounds at the sequence level.
        progress: show a progress bar, in a terminal, from the third second on.

    Returns:
        A :class:`Solution`; ``policies`` holds all iterates (rounds + 1, ..., n), the start first,
        ``details["kl"]`` ``KL(p||pi_t)`` and ``details["max_logratio"]`` ``max |log p/pi_t|`` of
        each: (rounds + 1, ...), so (rounds + 1,) for laws (n,) and (rounds + 1, prompts) for those
        of a game. ``primal`` is the potential (plus anchor) of the last iterate and ``gap`` bounds
        its distance to the equilibrium value; NaN where the objective has no potential. A path that
        does not settle is returned as well: see ``outcome``.

    Raises:
        InvalidInput: unusable arguments, all named at once. Unavailable: the objective has no such
            round, with the reason.

    >>> path = self_play([0.7, 0.2, 0.1], [0.2, 0.3, 0.5], "spif", effective_step=1.0, rounds=60)
    >>> path.outcome.name, path.policy.round(6).tolist()
    ('CONVERGED', [0.7, 0.2, 0.1])
    """
    obj = objectives.of(obj)
    given = {"expert": expert, "start": start} | ({} if ref is None else {"ref": ref})
    betas = _check(
        obj, beta, effective_step, rounds, ref, tau, one_step, game, level, history, given
    )
    said, tau = described(betas, beta, effective_step), float(tau)
    branch = one_step if isinstance(one_step, str) else ("near" if one_step else None)
    disable = None if progress else True  # None: where standard error is a terminal
    weights = tqdm(betas, desc=f"{obj.name} rounds", disable=disable, delay=3.0, leave=False)
    if game is not None and level != "sequence":
        policies = [game.validate_policy(law, name) for name, law in given.items()]
        return _token_path(game, policies, obj, weights, tau, branch, level, said)
    if game is None:
        checked = laws.check_laws(**given)
        # what is computed later must not follow the caller's array; the start is copied anyway
        checked = tuple(law if i == 1 else law.copy() for i, law in enumerate(checked))
        log_laws = None
    else:
        named = {name: game.validate_policy(law, name) for name, law in given.items()}
        log_laws = tuple(game.log_sequence_law(law) for law in named.values())
        checked = tuple(np.exp(law) for law in log_laws)
    live = [law > (0 if log_laws is None else -np.inf) for law in log_laws or checked]
    refuse(_support_problems(obj, live, tau))
    path, notes = _sequence_path(checked, log_laws, obj, weights, len(betas), tau, branch, history)
    return _solution(path, checked, obj, tau, notes, said, game)


def reward_of_log_laws(obj: Objective, log_p: FloatArray, log_q: FloatArray) -> FloatArray:
    """Best response (..., n), nats, to laws given by logarithms; not centred, finite wherever both
    have mass."""
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
    """``log`` (..., n) of the policy step T2, normalised on the last axis; mass 0 stays 0.

    Args:
        log_q: opponent's log-law (..., n). reward: nats, same shape. log_ref: the anchor's log-law.
    """
    anchor = 0.0 if tau == 0 or log_ref is None else tau * log_ref
    with np.errstate(invalid="ignore"):
        weight = (beta * log_q + anchor + reward) / (beta + tau)
    return np.asarray(xp.log_normalise(np.where(np.isneginf(log_q), -np.inf, weight)))


def _sequence_path(
    given: tuple[FloatArray, ...],
    logs: tuple[FloatArray, ...] | None,
    obj: Objective,
    betas: Iterable[float],
    count: int,
    tau: float,
    branch: OneStep | None,
    history: History,
) -> tuple[Iterates, list[str]]:
    """All policies of sequence-level rounds, and what the rounds had to say."""
    if branch is None and obj.has_link and obj.plays_itself and not _has_old(history):
        ref = given[2] if len(given) > 2 else None
        return two_step_rounds(obj, given[0], given[1], betas, count, ref, tau, logs), []
    log_p, log_start, *rest = logs or [laws.log_law(law) for law in given]
    log_ref = rest[0] if rest else None
    base = log_start if log_ref is None else log_ref
    path, notes, own = [log_start], [], OwnResponses(history)
    for beta in betas:
        prior = np.asarray(obj.opponent(path[-1], log_start, base))
        if branch is None:
            reward = reward_of_log_laws(obj, log_p, own.after(prior))
            path.append(gibbs_step(prior, reward, beta, log_ref, tau))
        else:
            step = one_step_round(
                given[0],
                np.exp(prior),
                obj,
                beta,
                ref=None if log_ref is None or tau == 0 else given[2],
                tau=tau,
                branch=branch,
                history=given[1] if "history" in obj.needs else None,
            )
            path.append(laws.log_law(step.policy))
            notes.append(step.status)
    return Iterates.of(log_p, path), notes


def _token_path(
    game: TokenMDP,
    given: list[FloatArray],
    obj: Objective,
    betas: Iterable[float],
    tau: float,
    branch: OneStep | None,
    level: Level,
    said: str,
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
    recent = np.exp(policies[-3:])
    outcome, status = ending(recent, kl, ratio, said, said_by_rounds=[])
    return Solution(
        policy=policies[-1],
        reward=reward,
        primal=unknown,
        dual=unknown,
        gap=unknown,
        outcome=outcome,
        status=status,
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
    path: Iterates,
    given: tuple[FloatArray, ...],
    obj: Objective,
    tau: float,
    notes: list[str],
    said: str,
    game: TokenMDP | None,
) -> Solution:
    """The result of a sequence-level path, most of it for when it is asked for."""
    p, last, ref = given[0], path.policies[-1], given[2] if len(given) > 2 else None

    @cache
    def bounds() -> tuple[FloatArray, FloatArray]:
        return equilibrium_bounds(obj, p, last, ref, tau)

    @cache
    def end() -> tuple[Outcome, str]:
        return ending(path.policies[-3:], path.kl, path.reach, said, notes)

    def reward() -> FloatArray:
        if obj.missing("reward"):
            return np.full_like(p, np.nan)
        log_p, log_last = path.log_ends()
        return obj.centred(reward_of_log_laws(obj, log_p, log_last), p, last)

    def gap() -> FloatArray:
        primal, dual = bounds()
        with np.errstate(invalid="ignore"):
            return np.asarray(primal - dual)

    later: dict[str, Any] = {
        "reward": reward,
        "primal": lambda: bounds()[0],
        "dual": lambda: bounds()[1],
        "gap": gap,
        "outcome": lambda: end()[0],
        "status": lambda: end()[1],
    }
    policies = path.policies
    if game is not None:
        assert path.log_policies is not None
        policies = game.policy_from_log_law(path.log_policies)
    return Solution(
        policy=policies[-1],
        policies=policies,
        **{name: Later(compute) for name, compute in later.items()},  # type: ignore[arg-type]
        iterations=len(path.kl) - 1,
        details={"kl": path.kl, "max_logratio": path.reach, "notes": notes},
    )


def ending(
    recent: FloatArray, kl: FloatArray, reach: FloatArray, said: str, said_by_rounds: list[str]
) -> tuple[Outcome, str]:
    """How a path ended, from its last (up to three) policies and the KL and reach of all.

    Converged is a path whose policy and whose KL to the expert both rest: a policy that collapses
    onto one outcome moves no more in total variation, while KL goes on growing.
    """
    said += "".join(f"; one-step: {note}" for note in said_by_rounds[-1:])
    if len(recent) < 2:
        return Outcome.NO_ROUNDS, f"no rounds were asked for ({said})"

    def moved(back: int) -> tuple[float, bool, bool]:
        """Total variation from ``back`` rounds ago, whether KL rests, whether it grew."""
        with np.errstate(invalid="ignore"):
            change = np.where(kl[-1] == kl[-1 - back], 0.0, kl[-1] - kl[-1 - back])
        rests = np.abs(change) <= RESTS * (1.0 + np.abs(kl[-1]))
        grew = (change > 0) & ~rests & (kl[-1] > kl[0])
        distance = 0.5 * np.abs(recent[-1] - recent[-1 - back]).sum(-1)
        return float(distance.max()), bool(rests.all()), bool(grew.any())

    last, rests, grew = moved(1)
    lost = ~(reach[-1] < LARGEST) & (reach[0] < LARGEST)
    numbers = f"the last round moved {last:.1e} in total variation ({said})"
    worst = f"KL(expert||policy) went from {kl[0].max():.3g} to {kl[-1].max():.3g} nats; "
    if lost.any():
        return Outcome.DIVERGED, f"diverged: log-ratios left the range of numbers; {worst}{numbers}"
    if last <= SETTLED:
        if rests:
            return Outcome.CONVERGED, f"converged: {numbers}"
        if grew:
            return Outcome.DIVERGED, f"diverged: the policy collapsed; {worst}{numbers}"
        return Outcome.MOVING, f"moving: {worst}{numbers}"
    if len(recent) > 2:
        before, _, grew = moved(2)
        if before <= 1e-6 * last:
            if grew:
                return Outcome.DIVERGED, f"diverged: the policy jumps to and fro; {worst}{numbers}"
            apart = f"{last:.1e} apart in total variation ({said})"
            return Outcome.CYCLE, f"cycle of period two, {apart}"
    return Outcome.MOVING, f"moving: {numbers}"


def _support_problems(
    obj: Objective, live: list[np.ndarray[Any, np.dtype[np.bool_]]], tau: float
) -> list[str]:
    """Supports under which no policy step exists."""
    problems = []
    if tau > 0 and len(live) > 2:
        problems += laws.support_problems(live[1], "start", live[2], "ref")
    apart = ~(live[0] & live[1]).any(-1)
    if apart.any() and obj.has_link and obj.reward_bounds[0] == -np.inf:
        where = tuple(int(i) for i in np.argwhere(apart)[0])
        problems.append(
            f"start and expert have disjoint supports at prompt {where}; {obj.name} "
            "needs an overlap, since its reward is unbounded below where the expert has no mass"
        )
    return problems


def _has_old(history: History) -> bool:
    """Whether any own responses are an earlier opponent's."""
    return isinstance(history, str) or bool(np.any(history))


def _history_problems(history: Any, one_step: Any, level: Any) -> list[str]:
    """Why rounds cannot have these old responses."""
    problems = history_problems(history)
    if not problems and _has_old(history) and (one_step or level != "sequence"):
        return [f"history={history!r}: two-step rounds of level='sequence' alone have it"]
    return problems


def _check(
    obj: Objective,
    beta: Any,
    effective_step: Any,
    rounds: Any,
    ref: Any,
    tau: Any,
    one_step: Any,
    game: Any,
    level: Any,
    history: Any,
    given: dict[str, Any],
) -> list[float]:
    """Return one beta a round, or refuse with everything that is wrong.

    The laws are looked at here only beside other problems: they are checked where they are used.
    """
    betas, problems = steps(obj, beta, effective_step, rounds, ref, tau)
    if not isinstance(one_step, (bool, np.bool_)) and one_step not in get_args(OneStep):
        problems.append(f"one_step={one_step!r}; needed is False, True, 'near' or 'global'")
    problems += choice("level", level, get_args(Level))
    problems += _history_problems(history, one_step, level)
    if game is None and level in get_args(Level)[1:]:
        problems.append(f"level={level!r} needs game, a TokenMDP")
    elif level == "occupancy" and one_step:
        problems.append(
            "one_step: an implicit reward has no occupancy form; use level='conditional'"
        )
    if game is not None and not isinstance(game, TokenMDP):
        problems.append(f"game={game!r}; needed is a TokenMDP")
    elif game is not None and level == "sequence" and not game.is_tree:
        problems.append("level='sequence' leaves the policies of merged states; use another level")
    for name, law in given.items() if problems else ():
        if game is None:
            problems += laws.law_problems(law, name)
        elif isinstance(game, TokenMDP):
            problems += policy_problems(law, game.allowed, game.describe, name)
    refuse(problems)
    if "preference" in obj.needs:
        raise Unavailable(f"{obj.name} has no expert law: use preferences.self_play")
    obj.require("risk" if one_step else "reward")
    if level == "occupancy" and obj.has_gain:
        why = "its gain depends on Delta of two laws, and occupancies are measures"
        raise Unavailable(f"{obj.name} has no level='occupancy': {why}")
    return betas
