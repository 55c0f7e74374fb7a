"""The implicit reward of a policy: what one model stands for as a reward player (T3).

    r = beta (log pi - log opponent) + tau (log pi - log anchor)

and ``r = beta log pi`` of reference-free objectives. This is its one home: losses, trainer, toys
and telemetry all come here.
"""

from __future__ import annotations

from typing import Any, Protocol


class Referenced(Protocol):
    """What the reward has to know of an objective."""

    @property
    def reference_free(self) -> bool:
        """Whether the loss has no opponent's log-probabilities in it."""


def of_logratios(logratio: Any, beta: Any, anchor_logratio: Any = None, tau: Any = 0.0) -> Any:
    """``beta logratio + tau anchor_logratio`` in nats; without an anchor only the first term."""
    reward = beta * logratio
    return reward if anchor_logratio is None else reward + tau * anchor_logratio


def implicit_reward(
    objective: Referenced,
    log_pi: Any,
    log_opponent: Any,
    beta: Any,
    log_anchor: Any = None,
    tau: Any = 0.0,
) -> Any:
    """Implicit reward of log-probabilities (numpy, torch or numbers), in nats, unchecked.

    Args:
        objective: of it only whether it is reference-free.
        log_pi: log-probabilities of the responses under the trained policy.
        log_opponent: the same under the law that the round started from; unused (may be None) for
            a reference-free objective.
        beta: weight of the KL step, > 0.
        log_anchor: the same under the anchor's reference; None for no anchor.
        tau: weight of the anchor, >= 0.

    Example:
        >>> from theory import objectives
        >>> implicit_reward(objectives.get("spin"), -1.0, -3.0, beta=0.5)
        1.0
    """
    logratio = log_pi if objective.reference_free else log_pi - log_opponent
    anchor = None if log_anchor is None else log_pi - log_anchor
    return of_logratios(logratio, beta, anchor, tau)
