"""Finite classes of laws (T16): maximum likelihood and self-play on the same n expert samples.

Laws are those of random token policies, so that the horizon can grow at a fixed size of the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from lab.streams import Streams, draw
from theory import TokenMDP
from theory.objectives import Objective
from theory.objectives.implicit import implicit_reward


def random_class(seed: int, members: int, horizon: int, vocab: int, spread: float) -> Tensor:
    """Laws (members, N) of token policies near one another: logits of size ``spread`` apart."""
    rng = Streams([seed]).generator(0, f"finite class, horizon {horizon}")
    game = replace(TokenMDP.tree(vocab, horizon), expert=None)
    centre = rng.standard_normal((game.n_states, vocab))
    logits = centre + spread * rng.standard_normal((members, game.n_states, vocab))
    log_policy = torch.from_numpy(logits).log_softmax(-1).numpy()
    law = game.sequence_law(log_policy)[:, 0]
    return torch.from_numpy(law / law.sum(-1, keepdims=True))


def hellinger(p: Tensor, q: Tensor) -> Tensor:
    """``D_H^2 = sum (sqrt p - sqrt q)^2`` over the last axis."""
    return (p.sqrt() - q.sqrt()).square().sum(-1)


def trial(
    laws: Tensor,
    seeds: Sequence[int],
    n: int,
    objectives: dict[str, tuple[Objective, float]],
    rounds: int,
    outside: bool = False,
) -> pd.DataFrame:
    """One estimate of every method a seed, all from the same n samples of the seed's expert.

    A round of self-play picks the member that minimises the objective's loss in
    ``beta log pi/pi_t`` on the n expert samples against n fresh own samples; the first opponent is
    drawn at random. The expert is drawn uniformly from the class, or, ``outside``, it is the even
    mixture of a member with the uniform law, which is no member.

    Args:
        laws: (members, N).
        seeds: of the trials.
        n: samples.
        objectives: name to objective with a loss, and its beta.
        rounds: of self-play.
        outside: drop the premise that the expert is in the class.

    Returns:
        Columns seed, n, method, hellinger (``D_H^2`` to the expert), wrong (1.0 if another member
        than the expert, or its component, was chosen).
    """
    streams = Streams(seeds)
    members = laws.shape[0]
    which = (streams.uniform("expert", 0, (2,)) * members).to(torch.int64)
    expert = laws[which[:, 0]]
    if outside:
        expert = 0.5 * expert + 0.5 / laws.shape[1]
    log_laws = laws.log()
    sample = draw(expert, streams.uniform("expert data", 0, (n,)))
    by_response = log_laws.T.contiguous()
    likelihood = by_response[sample]  # (seeds, n, members)
    chosen = {"mle": likelihood.mean(1).argmax(-1)}
    for name, (objective, beta) in objectives.items():
        current = which[:, 1]
        for t in range(rounds):
            own = draw(laws[current], streams.uniform("own", t, (n,)))
            prior = log_laws[current]
            on_expert, on_own = (
                implicit_reward(objective, log_pi, prior.gather(-1, drawn)[..., None], beta)
                for log_pi, drawn in ((likelihood, sample), (by_response[own], own))
            )
            current = objective.reward_loss(on_expert, on_own).mean(1).argmin(-1)
        chosen[name] = current
    parts = [
        pd.DataFrame(
            {
                "seed": list(seeds),
                "n": n,
                "method": name,
                "hellinger": hellinger(laws[index], expert).numpy(),
                "wrong": (index != which[:, 0]).to(torch.float64).numpy(),
            }
        )
        for name, index in chosen.items()
    ]
    return pd.concat(parts, ignore_index=True)
