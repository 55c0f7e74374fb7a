"""S1 at token level: the learned reward of a token against the link of its conditional ratio (T14).

At every prefix of the held-out expert responses all tokens are seen, so the expert's law ``p(.|s)``
and the policy's ``pi_t(.|s)`` are known exactly, and rewards are compared under their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_scale.data.items import Item
from llm_scale.measure import telemetry
from llm_scale.measure.predicted import Game
from llm_scale.models.player import Player
from llm_scale.rounds.opponent import over_positions
from theory import laws
from theory.errors import NotConverged, Unavailable
from theory.objectives.finite_groups import finite_group_link
from theory.rounds.one_step import one_step_round

FloatArray = NDArray[np.float64]


def measured(
    player: Player, start: Player, items: Sequence[Item], expert: Any, game: Game
) -> telemetry.Row:
    """Slope and correlation of ``beta log pi_{t+1}/pi_t`` on the predictions, centred per prefix.

    ``token_link_*`` against ``R(u_h)``; ``token_predicted_*`` against the prediction for the loss
    as it is trained. Empty unless the expert's next-token laws are known (``next_log_laws``), the
    opponent is pi_t and there is no anchor.

    Args:
        player: plays pi_{t+1}. start: plays pi_t.
        items: held-out prompts with their expert response.
        expert: the known expert, or None.
        game: the objective and its weights.
    """
    known = hasattr(expert, "next_log_laws") and player.settings.opponent == "last"
    free = game.objective.reference_free or game.objective.missing("link") is not None
    if not known or free or game.tau > 0:
        return {}
    pairs = [(item.prompt, item.expert[0].tokens) for item in items]
    log_q, log_new = next_log_laws([start, player], pairs)
    p = np.exp(
        np.concatenate(
            [
                expert.next_log_laws(np.array([(*x, *y[:h])]))
                for x, y in pairs
                for h in range(len(y))
            ]
        )
    )
    prefix = np.repeat(np.arange(len(pairs)), [len(y) for _, y in pairs])
    reward = game.beta * (log_new - log_q)
    link, refined = predictions(p, np.exp(log_q), game)
    weight = 0.5 * (p + np.exp(log_q))
    out = regression("token_link", link, reward, weight, prefix)
    return out | regression("token_predicted", refined, reward, weight, prefix)


def next_log_laws(players: Sequence[Player], pairs: Sequence[Any]) -> list[FloatArray]:
    """Log-laws (T, V) of the next token at all positions, float64, one table a player."""

    def read(laws_: list[Tensor], _: Tensor) -> Tensor:
        return torch.cat([law.double() for law in laws_], dim=-1)

    rows = [torch.zeros(len(y), 0) for _, y in pairs]
    table = torch.cat(over_positions(players, pairs, rows, read)).numpy()
    parts = np.split(table, len(players), axis=-1)
    return [part - np.logaddexp.reduce(part, axis=-1, keepdims=True) for part in parts]


def predictions(p: FloatArray, q: FloatArray, game: Game) -> tuple[FloatArray, FloatArray]:
    """Rewards (T, V) of all tokens: ``R(u_h)``, and for the loss as it is trained.

    Every prefix has one expert token, so a group is 1 against K; a pointwise loss moves each
    prefix's law in one step (T4). Prefixes where that has no near solution are NaN.
    """
    objective = game.objective
    link = np.asarray(objective.link(laws.log_ratio(p, q), laws.triangular(p, q)[:, None]))
    if objective.name == "centred_spif":
        c = float(getattr(objective, "c", 1.0))
        return link, np.asarray(finite_group_link(p, q, c, 1, game.own_samples).reward)
    if objective.form != "pointwise" or "history" in objective.needs:
        return link, link
    try:
        found = one_step_round(p, q, objective, game.beta)
    except Unavailable:
        return link, link
    except NotConverged as error:
        found = error.solution
    good = found.converged & (found.dumped < 0)
    return link, np.where(good[:, None], found.reward, np.nan)


def regression(
    name: str, x: FloatArray, y: FloatArray, weight: FloatArray, cluster: NDArray[np.int64]
) -> telemetry.Row:
    """Weighted slope of y on x, both (T, V) and centred per row; its error is over clusters."""
    good = np.isfinite(x).all(-1)
    if not good.any():
        return {}
    x, y, weight, cluster = x[good], y[good], weight[good], cluster[good]
    share = weight / weight.sum(-1, keepdims=True)
    x, y = (v - (share * v).sum(-1, keepdims=True) for v in (x, y))
    cross, size, length = ((share * v).sum(-1) for v in (x * y, x * x, y * y))
    if not (size.sum() > 0 and length.sum() > 0):
        return {}
    slope = cross.sum() / size.sum()
    spread = np.bincount(cluster, cross - slope * size)
    return {
        f"{name}_slope": float(slope),
        f"{name}_slope_se": float(np.sqrt(np.square(spread).sum()) / size.sum()),
        f"{name}_correlation": float(cross.sum() / np.sqrt(size.sum() * length.sum())),
    }
