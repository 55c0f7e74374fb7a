"""T14: mass that a pointwise loss dumps at every prefix, and tokens that leave no room."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from tests.theory.rounds.token_loss.losses import SPIF
from theory import TokenMDP, objectives, self_play
from theory.result import FloatArray
from theory.rounds.one_step import one_step_round, partition_gap

CENTRED = objectives.get("centred_spif", c=1.0)


NEGLECTED = 1e-9


def with_neglected(
    horizon: int, p: list[float], q: list[float]
) -> tuple[TokenMDP, FloatArray, FloatArray]:
    """Independent positions, and at each a token beside that neither player gives."""
    game = TokenMDP.tree(vocab=len(p) + 1, horizon=horizon, eos=None)
    rows = (np.array([*law, NEGLECTED]) / (1 + NEGLECTED) for law in (p, q))
    expert, start = (np.tile(np.log(row), (game.n_states, 1)) for row in rows)
    return game, expert, start


def left(game: TokenMDP, policy: FloatArray) -> float:
    """Mass of the responses without a neglected token."""
    kept = (game.sequence_tokens[0] < game.n_actions - 1).all(-1)
    return float(game.sequence_law(policy)[0][kept].sum())


@pytest.mark.claim("T14.token_dumping", regime="tabular")
@pytest.mark.parametrize("far", [0.6, 0.95])
def test_dumped_mass_adds_up_along_a_response(claim, far: float) -> None:
    """1 - prod Z per token; 1 - Z of responses, at most 1 - e^-eta, per response."""
    eta, p, q = 1.0, [far, 1 - far], [1 - far, far]
    kept = []
    for horizon in (1, 2, 4):
        game, expert, start = with_neglected(horizon, p, q)
        z = np.exp(partition_gap(np.exp(expert), np.exp(start), SPIF, 1 / eta))
        path = self_play(
            expert, start, SPIF, 1 / eta, 1, one_step="global", game=game, level="conditional"
        )
        share = left(game, path.policy)
        claim.close(share, z[0] ** horizon, 0.0, 0.02, what="mass left per token: prod Z",
                    because="expansion")  # fmt: skip
        law_p, law_q = (game.sequence_law(law)[0] for law in (expert, start))
        whole = one_step_round(law_p, law_q, SPIF, 1 / eta, branch="global")
        z_whole = float(np.exp(partition_gap(law_p, law_q, SPIF, 1 / eta)))
        dumped = float(whole.dumped_mass)
        claim.close(1 - dumped, z_whole, 0.0, 0.02, what="mass left per response: Z",
                    because="expansion")  # fmt: skip
        claim.below(np.exp(-eta), z_whole, what="e^-eta, of Z of responses")
        kept.append((share, z_whole))
    if far > 0.9:
        claim.exhibits(np.exp(-eta) / kept[-1][0], 3.0, what="e^-eta over what is left per token")


@pytest.mark.claim("T14.token_dumping", regime="tabular", drops="level_seen")
def test_a_pair_loss_dumps_at_no_prefix(claim) -> None:
    game, expert, start = with_neglected(4, [0.95, 0.05], [0.05, 0.95])
    found = self_play(expert, start, CENTRED, 1.0, 1, one_step=True, game=game,
                      level="conditional")  # fmt: skip
    claim.exhibits(left(game, found.policy), 1 - 1e-7, what="mass left")


@pytest.mark.claim("T14.token_room", regime="tabular")
def test_a_likely_token_has_no_room(claim) -> None:
    """One expert and one own token at a prefix: the least loss is attained iff q e^R < 1."""
    eta = 1.0
    for likely, room in ((0.3, True), (0.9, False)):
        q = np.array([likely, 0.5 * (1 - likely), 0.5 * (1 - likely)])
        total = q[0] * np.exp(eta) + q[1] * np.exp(-eta)
        assert (total < 1) == room

        def least(unseen: float, q: FloatArray = q) -> float:
            """Least risk of both tokens' rewards with this mass left for the unseen one."""

            def risk(share: float) -> float:
                law = (1 - unseen) * np.array([share, 1 - share])
                r = np.log(law / q[:2]) / eta
                return float(-(r[0] - 0.5 * r[0] ** 2) + r[1] + 0.5 * r[1] ** 2)

            bounds = (1e-12, 1 - 1e-12)
            options = {"xatol": 1e-13}
            return float(
                minimize_scalar(risk, bounds=bounds, method="bounded", options=options).fun
            )

        if room:
            found = minimize_scalar(least, bounds=(1e-9, 0.9), method="bounded").x
            claim.close(found, 1 - total, 1e-4, what="unseen mass: 1 - sum q e^R",
                        because="solver")  # fmt: skip
            claim.close(least(1 - total), -1.0, 1e-9, what="the loss of free rewards, -1/c")
        else:
            risks = np.array([least(m) for m in np.geomspace(1e-8, 0.5, 15)])
            claim.exhibits(np.diff(risks).min(), 1e-9, what="rise of the loss with unseen mass")
            claim.exhibits(risks[0] + 1.0, 0.05, what="its infimum above that of free rewards")


@pytest.mark.claim("T14.token_room", regime="tabular", drops="separable")
def test_an_own_token_that_is_the_expert_s_leaves_room(claim) -> None:
    """Its reward is R(0) = 0, so the token keeps its probability, however likely it is."""
    q, sides = np.array([0.9, 0.05, 0.05]), (np.array([1.0, 0.0, 0.0]),) * 2

    def risk(x: float) -> float:
        ratio = np.log([x, 0.5 * (1 - x), 0.5 * (1 - x)]) - np.log(q)
        return float(SPIF.risk(ratio, ratio, 1.0, *sides))

    found = minimize_scalar(risk, bounds=(1e-6, 1 - 1e-6), method="bounded").x
    claim.close(found, 0.9, 1e-4, what="probability of the token", because="solver")
    claim.exhibits(min(risk(1e-6), risk(1 - 1e-6)) - risk(found), 0.01, what="risk at the ends")
