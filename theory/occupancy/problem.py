"""The game over occupancy measures of a token MDP (T10 on merged states; reconstruction).

Per-token rewards r(s, a) see a policy through its occupancy d(s, a), the expert through e(s, a):

    saddle:       min_pi max_r  sum_sa [e a(r) + d b(r)] + tau KL(pi || ref)
    equilibrium:  r = R(log e/d),  pi = soft value iteration of r at temperature tau;
                  it minimises  sum_sa e Phi(d/e) + tau KL(pi || ref),  Phi'(x) = -R(-log x)

KL is that of the sequence laws, sum_sa d log pi(a|s)/ref(a|s).  Both are convex in d, which is
bound by flow constraints, and have no closed form.  Prompts count with
weight 1 each and do not interact.

Occupancies are measures, not laws: their mass is the expected length.  So a payoff at ratio 1 that
is not zero (R(0) in the equilibrium, -b(R(0)) in the saddle point) pays for every token: GAIL, NWJ
and the pointwise logistic game prefer long responses, also at tau = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from theory import arguments, laws
from theory.certificate import BALANCE, require_best_response, response_imbalance, reward_gain
from theory.errors import InvalidInput, Unavailable
from theory.objectives import Objective, derivatives
from theory.result import Outcome, Solution
from theory.tokens.mdp import TokenMDP
from theory.tokens.tree import BoolArray, FloatArray

Kind = Literal["saddle", "equilibrium"]

SMALLEST = 1e-290
"""Occupancies below this count as this where they divide."""


@dataclass(frozen=True)
class Evaluation:
    """A policy and what it is worth: all (S, A), except the primal value (prompts,).

    regret is log pi/ref; given is g + d payoff = e h, the expert's part of the dual value.
    """

    log_policy: FloatArray
    policy: FloatArray
    occupancy: FloatArray
    ratio: FloatArray
    payoff: FloatArray
    regret: FloatArray
    given: FloatArray
    primal: FloatArray


@dataclass(frozen=True, eq=False)
class OccupancyProblem:
    """The program of one game: expert occupancy, reference, objective, kind and temperature."""

    game: TokenMDP
    ref: FloatArray
    obj: Objective
    kind: Kind
    tau: float
    log_expert: FloatArray
    expert: FloatArray
    open: BoolArray
    """(S, A) where the policy can have mass: reference and value finite, and so are those after."""
    absent: float
    """Payoff per unit of policy mass where the expert has none."""
    offset: float
    """Slope to add to the objective's potential so that Phi'(1) = -R(0)."""

    @classmethod
    def build(
        cls, game: TokenMDP, expert: Any, ref: Any, obj: Objective, tau: float, kind: Kind
    ) -> OccupancyProblem:
        """Check everything and raise InvalidInput (or Unavailable) with all problems at once."""
        problems = []
        problems += arguments.choice("kind", kind, get_args(Kind)) + arguments.number("tau", tau)
        for name, policy in (("expert", expert), ("ref", ref)):
            try:
                if np.ndim(game.validate_policy(policy, name)) != 2:
                    problems.append(f"{name} must be one policy, without batch axes")
            except InvalidInput as error:
                problems += error.problems
        if problems:
            raise InvalidInput(problems)
        _require(obj, kind)
        log_ref = game.validate_policy(ref, "ref")
        log_expert = game.log_occupancy(expert)
        mass = np.exp(log_expert)
        offset = 0.0 if kind == "saddle" else _offset(obj)
        draft = cls(
            game,
            log_ref,
            obj,
            kind,
            float(tau),
            log_expert,
            mass,
            np.ones_like(mass, dtype=bool),
            0.0,
            offset,
        )
        absent = float(draft.payoff_at(np.array([-np.inf]))[0])
        weight = np.where((mass == 0) & np.isneginf(absent), -np.inf, log_ref)
        feasible, value = game.backward(weight, 1.0)
        stuck = np.flatnonzero(np.isneginf(value[: game.n_prompts]))
        if len(stuck):
            raise InvalidInput(
                [
                    f"no policy has a finite value at prompt {p}: every response leaves the "
                    "support of the reference or (reward -inf) of the expert"
                    for p in stuck[:3]
                ]
            )
        reachable = game.forward(np.exp(feasible), log=False)[1] > 0
        problem = cls(
            game, log_ref, obj, kind, float(tau), log_expert, mass, reachable, absent, offset
        )
        lost = problem.unreached_value()
        if not np.isfinite(lost).all():
            state = int(np.argwhere(~np.isfinite(lost))[0, 0])
            raise InvalidInput(
                [
                    f"the value is infinite for every policy: {obj.name} needs a policy that goes "
                    f"where the expert goes, and {game.describe(state)} the reference does not"
                ]
            )
        return problem

    def reward_at(self, ratio: FloatArray) -> FloatArray:
        """Best response R(u), nats."""
        return np.asarray(self.obj.link(ratio), dtype=np.float64)

    def payoff_at(self, ratio: FloatArray) -> FloatArray:
        """What the policy is paid per unit of occupancy at log-ratio u: R(u), or -b(R(u))."""
        with np.errstate(all="ignore"):
            reward = self.reward_at(ratio)
            if self.kind == "equilibrium":
                return reward
            return -np.asarray(self.obj.b(reward), dtype=np.float64)

    def slope_at(self, ratio: FloatArray) -> FloatArray:
        """Derivative of `payoff_at`, by central differences (it only steers the iteration)."""
        step = 1e-5
        with np.errstate(all="ignore"):
            slope = (self.payoff_at(ratio + step) - self.payoff_at(ratio - step)) / (2.0 * step)
        return np.where(np.isfinite(slope), np.maximum(slope, 0.0), 0.0)

    def value_of(self, expert: FloatArray, mass: FloatArray, ratio: FloatArray) -> FloatArray:
        """g(e, d) per entry with e > 0: e a(r) + d b(r) at r = R(u), or e Phi(d/e)."""
        with np.errstate(all="ignore"):
            if self.kind == "saddle":
                reward = self.reward_at(ratio)
                paid = np.where(mass > 0, mass * np.asarray(self.obj.b(reward)), 0.0)
                return expert * np.asarray(self.obj.a(reward)) + paid
            return _potential(self.obj, expert, mass, ratio, self.offset)

    def unreached_value(self) -> FloatArray:
        """(S, A) g(e, 0) where only the expert goes; 0 elsewhere."""
        gone = (self.expert > 0) & ~self.open
        value = np.zeros_like(self.expert)
        mass = self.expert[gone]
        value[gone] = self.value_of(mass, np.zeros_like(mass), np.full_like(mass, np.inf))
        return value

    def evaluate(self, log_policy: FloatArray) -> Evaluation:
        """Occupancy, best response and value of a log-policy (S, A), nats."""
        game, tau = self.game, self.tau
        policy = np.where(self.open, np.exp(log_policy), 0.0)
        reach, mass = game.forward(policy, log=False)
        live = mass > 0
        both = live & (self.expert > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_mass = np.log(reach)[:, None] + log_policy
            ratio = np.where(both, self.log_expert - log_mass, 0.0)
            regret = np.where(self.open, log_policy - self.ref, 0.0)
        absent = self.open & (self.expert == 0)
        payoff = np.where(both, self.payoff_at(ratio), np.where(absent, self.absent, 0.0))
        value = np.where(both, self.value_of(self.expert, mass, ratio), self.unreached_value())
        with np.errstate(invalid="ignore"):  # a policy of infinite value, which no step accepts
            given = value + np.where(both, mass * payoff, 0.0)
        value = np.where(absent & live, -mass * payoff, value)
        primal = self._per_prompt(value + tau * mass * regret)
        return Evaluation(log_policy, policy, mass, ratio, payoff, regret, given, primal)

    def lower_bound(self, at: Evaluation) -> FloatArray:
        """(prompts,) bound of the minimum from below, from the best response to a policy.

        For any reward, min_pi [sum e h - <d, payoff> + tau KL] = sum e h - V(prompt), with V from
        soft value iteration, is at most the value of the game.
        """
        weight = np.where(self.open, self.tau * self.ref + at.payoff, -np.inf)
        soft = self.game.backward(weight, self.tau)[1][: self.game.n_prompts]
        return self._per_prompt(at.given) - soft

    def _per_prompt(self, entries: FloatArray) -> FloatArray:
        rows = entries.sum(-1)
        found = np.bincount(self.game.prompt, weights=rows, minlength=self.game.n_prompts)
        return np.asarray(found, dtype=np.float64)

    def best_rewards(self, at: Evaluation) -> FloatArray:
        """(S, A) rewards of a policy as the link has them, 0 where neither side goes."""
        ratio = np.where(
            self.expert > 0,
            np.where(at.occupancy > 0, at.ratio, np.inf),
            np.where(at.occupancy > 0, -np.inf, 0.0),
        )
        empty = (self.expert == 0) & (at.occupancy == 0)
        return np.where(empty, 0.0, self.reward_at(ratio))

    def solution(
        self,
        at: Evaluation,
        tolerance: float,
        said: str,
        iterations: int,
        details: dict[str, Any],
        settled: bool = True,
    ) -> Solution:
        """The result, values per prompt, certified here by the payoffs.

        What the reward player could gain on the link's rewards (:func:`certificate.reward_gain`)
        is added to the value of a saddle point and taken off the bound of an equilibrium, which
        there is none of where the loss says that the link's reward is no best response.
        """
        reward = self.best_rewards(at)
        more = self._per_prompt(reward_gain(self.obj, self.expert, at.occupancy, reward))
        saddle = self.kind == "saddle"
        primal = at.primal + more if saddle else at.primal
        dual = self.lower_bound(at) if saddle else self.lower_bound(at) - more
        wrong = 0.0 if saddle else self._imbalance(at, reward)
        if not (wrong <= BALANCE or float(np.max(more)) > tolerance):  # the payoffs say how wrong
            dual = np.full_like(dual, -np.inf)
            said += "; the link's reward is no best response of the loss at these occupancies"
        gap = primal - dual
        met = settled and bool(np.all(gap <= tolerance * np.maximum(1.0, np.abs(primal))))
        outcome = Outcome.CONVERGED if met else Outcome.NOT_CONVERGED
        worst, lost = float(np.max(gap)), float(np.max(more))
        if lost > 0.5 * worst and not met:
            said += f"; on the link's rewards the payoffs gain {lost:.1e}: no best response"
        return Solution(
            policy=np.where(self.open | ~self.open.any(-1, keepdims=True), at.log_policy, -np.inf),
            reward=reward,
            primal=primal,
            dual=dual,
            gap=gap,
            outcome=outcome,
            status=f"{outcome.value}: duality gap {worst:.1e} nats, {said}",
            iterations=iterations,
            details={"occupancy": at.occupancy, **details},
        )

    def _imbalance(self, at: Evaluation, reward: FloatArray) -> float:
        """:func:`certificate.response_imbalance` of the link, of prompts together.

        Payoffs take occupancies as they are. A loss of reward differences is one of laws: its link
        is held to it at the occupancies divided by their sums.
        """
        e, d = self.expert.ravel(), at.occupancy.ravel()
        r = reward.ravel()
        if self.obj.up_to_constant:
            e, d = e / e.sum(), d / d.sum()
            r = np.asarray(self.obj.link(laws.log_ratio(e, d)))
        return float(response_imbalance(self.obj, e, d, r))


def _require(obj: Objective, kind: Kind) -> None:
    if kind == "saddle":
        obj.require("saddle")
    obj.require("link")
    if kind == "equilibrium":
        obj.require("potential")
    if "equilibrium" in obj.absent:
        obj.require("equilibrium")
    require_best_response(obj)
    if obj.has_gain:
        why = "its gain depends on Delta of two laws, and occupancies are measures"
        raise Unavailable(f"{obj.name} has no occupancy game: {why}")


def integrated_link(obj: Objective, ratio: FloatArray) -> FloatArray:
    """Phi(e^-u) = int_0^u R(v) e^-v dv by adaptive quadrature (T5), elementwise."""
    return derivatives.potential_density(obj.link, ratio)


def _potential(
    obj: Objective, expert: FloatArray, mass: FloatArray, ratio: FloatArray, offset: float
) -> FloatArray:
    """The value e Phi(d/e) per entry as the objective writes it, or by quadrature.

    Closed forms subtract: where d/e is huge they lose digits, and quadrature takes over.
    """
    if not obj.writes("potential_formula"):
        return expert * integrated_link(obj, ratio)
    value = obj.potential_formula(mass[..., None], expert[..., None]) + offset * (mass - expert)
    far = (ratio < -15.0) & (expert > 0)
    if far.any():
        value[far] = expert[far] * integrated_link(obj, ratio[far])
    return np.asarray(value)


def _offset(obj: Objective) -> float:
    """Potentials are written for laws, where a multiple of (total mass - 1) is nothing; occupancies
    have any mass, so the multiple that makes Phi'(1) = -R(0) is found by quadrature of the link."""
    if not obj.writes("potential_formula"):
        return 0.0
    points = np.exp(np.array([-1.0, -0.4, 0.7]))
    exact = integrated_link(obj, -np.log(points))
    ones = np.ones((len(points), 1))
    written = obj.potential_formula(points[:, None], ones) - obj.potential_formula(ones, ones)
    slopes = (exact - written) / (points - 1.0)
    if np.ptp(slopes) > 1e-8 * (1.0 + np.abs(slopes).max()):
        raise Unavailable(
            f"{obj.name}: potential_formula is not the integral of its link: they differ by more "
            f"than a multiple of the mass ({slopes.tolist()})"
        )
    return float(np.median(slopes))
