"""Self-play inside a log-linear class ``pi_theta ∝ pi_base exp(features theta)`` (T15).

The class is usually misspecified: the expert is not in it. One-step rounds minimise the risk of the
implicit reward over theta; two-step rounds take the unrestricted best response and project the
policy step onto the class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from scipy.optimize import minimize

from theory import arguments, laws, objectives, xp
from theory.errors import InvalidInput, Unavailable, refuse
from theory.objectives import Objective
from theory.objectives.implicit import of_logratios
from theory.result import FloatArray, Outcome, Solution
from theory.rounds.minimum import minimum
from theory.rounds.two_step import reward_of_log_laws

Kind = Literal["one_step", "two_step"]
GRADIENT_TOLERANCE = 1e-9


@dataclasses.dataclass(frozen=True)
class LogLinear:
    """Exponential family over ``n`` outcomes: ``pi_theta ∝ exp(log_base + features theta)``.

    Attributes:
        features: (n, d), of full column rank modulo constants.
        log_base: log of the base measure (n,), finite; none is the uniform one.
    """

    features: FloatArray
    log_base: FloatArray | None = None

    def __post_init__(self) -> None:
        """Refuse features that are not a finite matrix of full column rank modulo constants."""
        try:
            object.__setattr__(self, "features", np.array(laws.as_numbers(self.features)))
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"features: not an array of numbers ({error})") from None
        shape = self.features.shape
        if len(shape) != 2 or 0 in shape or not np.all(np.isfinite(self.features)):
            raise InvalidInput(f"features: shape {shape}; needed is a finite matrix (n, d)")
        centred = self.features - self.features.mean(0)
        if np.linalg.matrix_rank(centred) < shape[1]:
            raise InvalidInput(
                f"features: {shape[1]} columns of rank {np.linalg.matrix_rank(centred)} modulo "
                "constants; needed are identifiable parameters"
            )
        if self.log_base is not None:
            try:
                base = np.array(laws.as_numbers(self.log_base))
            except (TypeError, ValueError) as error:
                raise InvalidInput(f"log_base: not an array of numbers ({error})") from None
            if base.shape != shape[:1] or not np.all(np.isfinite(base)):
                raise InvalidInput(
                    f"log_base: shape {base.shape}; needed are {shape[0]} finite numbers"
                )
            object.__setattr__(self, "log_base", base)

    def log_law(self, theta: Any) -> Any:
        """``log pi_theta``, shape (n,); numpy or torch like ``theta``; its values go unchecked.

        Raises:
            InvalidInput: not as many parameters as features.
        """
        refuse(self._length_problems(theta))
        level = _like(self.features, theta) @ theta
        if self.log_base is not None:
            level = level + _like(self.log_base, theta)
        return xp.log_normalise(level)

    def law(self, theta: FloatArray) -> FloatArray:
        """``pi_theta``, shape (n,).

        Raises:
            InvalidInput: not one finite number a feature.
        """
        refuse(self._parameter_problems(theta))
        return np.asarray(np.exp(self.log_law(laws.as_numbers(theta))))

    def maximum_likelihood(self, expert: FloatArray) -> FloatArray:
        """``argmax_theta E_p log pi_theta``: the destination of SFT, shape (d,).

        Raises:
            InvalidInput: no law of the outcomes.
        """
        refuse(self._law_problems(expert, "expert"))
        (expert,) = laws.check_laws(expert=expert)
        return self._minimise(lambda theta: -(xp_dot(expert, self.log_law(theta))))

    def destination(self, expert: FloatArray, temperature: float = 1.0) -> FloatArray:
        """Log-law (n,) where one-step rounds rest if own *responses* are drawn at a temperature.

        There ``pi^{1/T}``, normalised, has the expert's mean features: it is the maximum likelihood
        of the class with the base measure to the power 1/T, and ``pi`` is its power T. Without a
        base measure that is the class's own maximum likelihood to the power T (T15).

        Raises:
            InvalidInput: no law of the outcomes, or not ``temperature > 0``.
        """
        problems = self._law_problems(expert, "expert")
        refuse(problems + arguments.numbers("temperature", temperature, single=True))
        base = None if self.log_base is None else self.log_base / temperature
        drawn = LogLinear(self.features, base)
        best = np.asarray(drawn.log_law(drawn.maximum_likelihood(expert)))
        return np.asarray(xp.log_normalise(temperature * best))

    def reverse_kl_projection(self, expert: FloatArray, start: FloatArray) -> FloatArray:
        """A local minimiser of ``KL(pi_theta||p)`` reached from ``start``, shape (d,).

        Raises:
            InvalidInput: no law of the outcomes, or not one finite number a feature.
        """
        problems = self._law_problems(expert, "expert")
        refuse(problems + self._parameter_problems(start, "start"))
        (expert,) = laws.check_laws(expert=expert)
        log_p = laws.log_law(expert)

        def risk(theta: Any) -> Any:
            log_law = self.log_law(theta)
            return xp_dot(xp.exp(log_law), log_law - _like(log_p, log_law))

        return self._minimise(risk, start)

    def potential_minimiser(
        self, expert: FloatArray, obj: Objective, start: FloatArray
    ) -> FloatArray:
        """Stationary point of ``D_Phi(pi_theta||p)`` reached from ``start`` (T15), shape (d,).

        The gradient is ``-Cov_theta(features, R(log p/pi_theta))`` because ``-R`` is that of D_Phi.

        Raises:
            InvalidInput: no law of the outcomes, or not one finite number a feature.
        """
        problems = self._law_problems(expert, "expert")
        refuse(problems + self._parameter_problems(start, "start"))
        (expert,) = laws.check_laws(expert=expert)
        log_p = laws.log_law(expert)

        def gradient(theta: FloatArray) -> FloatArray:
            law = self.law(theta)
            reward = reward_of_log_laws(obj, log_p, np.asarray(self.log_law(theta)))
            return -(law * (reward - law @ reward)) @ self.features

        def value(theta: FloatArray) -> tuple[float, FloatArray]:
            return float(obj.potential(self.law(theta), expert)), gradient(theta)

        found = minimize(value, start, jac=True, method="BFGS", options={"gtol": 1e-11})
        return np.asarray(found.x)

    def self_play(
        self,
        expert: FloatArray,
        theta: FloatArray,
        obj: Objective | str,
        beta: float,
        rounds: int,
        kind: Kind = "one_step",
        temperature: float = 1.0,
        tau: float = 0.0,
        ref: FloatArray | None = None,
    ) -> Solution:
        """Exact rounds in the class; ``policies`` (rounds + 1, n), ``details["theta"]`` beside.

        Args:
            expert: law ``p`` (n,).
            theta: first parameter (d,).
            obj: objective with a risk ("one_step") or a best response ("two_step").
            beta: weight of the policy player's KL step, > 0.
            rounds: number of rounds.
            kind: what a round is.
            temperature: own responses are drawn from ``pi_t^(1/temperature)``, normalised, while
                log-ratios divide by ``pi_t``: 1 is exact, anything else off-policy (whole responses
                at a temperature, not each token at one).
            tau: weight of the anchor in the implicit reward ("one_step" only).
            ref: reference law of the anchor (n,), and the base of objectives whose opponent has
                one (the start if not given).

        Raises:
            InvalidInput: arguments. NotConverged: an inner minimisation failed.
        """
        obj = objectives.of(obj)
        theta = self._checked(expert, theta, obj, beta, rounds, kind, temperature, tau, ref)
        (expert,) = laws.check_laws(expert=expert)
        path = [theta]
        log_start = np.asarray(self.log_law(path[0]))
        start_law = np.exp(log_start)
        log_base = log_start if ref is None else laws.log_law(np.asarray(ref, dtype=np.float64))
        for _ in range(rounds):
            current = np.asarray(self.log_law(path[-1]))
            log_q = np.asarray(obj.opponent(current, log_start, log_base))
            if kind == "two_step":
                path.append(self._two_step(expert, log_q, path[-1], obj, beta))
                continue
            own = np.exp(xp.log_normalise(log_q / temperature))
            risk = self._one_step_risk(expert, own, log_q, obj, beta, tau, ref, start_law)
            path.append(self._minimise(risk, path[-1]))
        thetas = np.stack(path)
        policies = np.stack([self.law(t) for t in path])
        nothing = np.asarray(np.nan)
        moved = float(laws.total_variation(policies[-1], policies[-2])) if rounds else np.nan
        outcome = Outcome.CONVERGED if moved <= 1e-10 else Outcome.MOVING
        return Solution(
            policy=policies[-1],
            reward=np.full_like(policies[-1], np.nan),
            primal=nothing,
            dual=nothing,
            gap=nothing,
            outcome=outcome,
            status=f"{outcome.value}: the last round moved {moved:.1e} in total variation",
            iterations=rounds,
            policies=policies,
            details={"theta": thetas},
        )

    def _law_problems(self, law: Any, name: str) -> list[str]:
        n = len(self.features)
        found = laws.law_problems(law, name, outcomes=n)
        if not found and len(shape := np.shape(law)) > 1:
            found = [f"{name}: shape {tuple(shape)}; needed is one law, ({n},)"]
        return found

    def _length_problems(self, theta: Any, name: str = "theta") -> list[str]:
        shape, d = tuple(np.shape(theta)), self.features.shape[1]
        return [] if shape == (d,) else [f"{name}: shape {shape}; needed is ({d},)"]

    def _parameter_problems(self, theta: Any, name: str = "theta") -> list[str]:
        found = self._length_problems(theta, name)
        return found or arguments.every(name, theta, np.isfinite, "one finite number a feature")

    def _checked(
        self,
        expert: Any,
        theta: Any,
        obj: Objective,
        beta: Any,
        rounds: Any,
        kind: Any,
        temperature: Any,
        tau: Any,
        ref: Any,
    ) -> FloatArray:
        """The first parameter as an array, after refusing everything that is unusable."""
        problems = self._law_problems(expert, "expert")
        problems += self._law_problems(ref, "ref") if ref is not None else []
        problems += arguments.number("beta", beta) + arguments.number("temperature", temperature)
        problems += arguments.anchor(tau, ref) + arguments.whole("rounds", rounds)
        problems += arguments.choice("kind", kind, get_args(Kind))
        problems += self._parameter_problems(theta)
        if tau != 0 and kind == "two_step":
            problems.append("tau: two-step rounds in the class have no anchor here")
        refuse(problems)
        if "preference" in obj.needs:
            raise Unavailable(f"{obj.name} has no expert law: use preferences.self_play")
        obj.require("risk" if kind == "one_step" else "reward")
        return np.array(theta, dtype=np.float64)

    def _one_step_risk(
        self,
        expert: FloatArray,
        own: FloatArray,
        log_q: FloatArray,
        obj: Objective,
        beta: float,
        tau: float,
        ref: FloatArray | None,
        start: FloatArray,
    ) -> Callable[[Any], Any]:
        def risk(theta: Any) -> Any:
            log_law = self.log_law(theta)
            prior = 0.0 if obj.reference_free else _like(log_q, log_law)
            ratio = log_law - prior
            anchor, extras = None, {}
            if tau > 0 and ref is not None:
                anchor = log_law - _like(laws.log_law(ref), log_law)
            if "history" in obj.needs:
                extras = {"r_history": beta * ratio, "history_law": _like(start, log_law)}
            reward = of_logratios(ratio, beta, anchor, tau)
            weights = _like(expert, log_law), _like(own, log_law)
            return obj.reward_risk(reward, reward, *weights, **extras)

        return risk

    def _two_step(
        self, expert: FloatArray, log_q: FloatArray, theta: FloatArray, obj: Objective, beta: float
    ) -> FloatArray:
        """``max_theta E_pi[r] - beta KL(pi_theta||pi_t)``, from the current parameter."""
        reward = reward_of_log_laws(obj, laws.log_law(expert), log_q)

        def risk(candidate: Any) -> Any:
            log_law = self.log_law(candidate)
            inner = beta * (log_law - _like(log_q, log_law)) - _like(reward, log_law)
            return xp_dot(xp.exp(log_law), inner)

        return self._minimise(risk, theta)

    def _minimise(self, risk: Callable[[Any], Any], start: FloatArray | None = None) -> FloatArray:
        first = np.zeros(self.features.shape[1]) if start is None else start
        return minimum(risk, first, GRADIENT_TOLERANCE, "minimisation in the class")


def xp_dot(weight: Any, value: Any) -> Any:
    """``sum weight value`` in the namespace of ``value``; weight 0 ignores the value."""
    return xp.namespace(value).sum(_like(weight, value) * value)


def _like(array: Any, other: Any) -> Any:
    """``array`` in the namespace of ``other``."""
    namespace = xp.namespace(other)
    return array if xp.namespace(array) is namespace else namespace.asarray(array)
