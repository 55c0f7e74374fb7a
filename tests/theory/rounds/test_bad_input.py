"""Wrong calls of rounds: each is refused before any work, in words that help."""

from __future__ import annotations

import numpy as np
import pytest

from tests.theory.wrong_calls import (
    BATCH,
    GAME,
    SPIF,
    SPPO,
    THREE,
    TSPIN,
    Call,
    Calls,
    P,
    Q,
    get,
    refused,
)  # fmt: skip
from theory import TokenMDP, self_play, theory_card
from theory.rounds.log_linear import LogLinear
from theory.rounds.one_step import local_rate_one_step, one_step_round, partition_gap
from theory.rounds.predictions import gap_slope, long_step, spif_burn_in, spif_reach

CLASS = LogLinear(np.eye(3)[:, :2])
ZERO = np.zeros(2)

CALLS: Calls = {
    # rounds
    "one_step_round: no expert": (
        lambda: one_step_round(None, Q, SPIF, 1.0),
        r"^expert: shape \(\) has no outcomes; needed is \(\.\.\., n\), all >= 1$",
    ),
    "one_step_round: no policy": (
        lambda: one_step_round(P, None, SPIF, 1.0),
        r"^policy: shape \(\) has no outcomes; needed is \(\.\.\., n\), all >= 1$",
    ),
    "one_step_round: preference as text": (
        lambda: one_step_round(P, Q, SPPO, 1.0, preference="x"),
        r"^preference: not an array of numbers \(<U1 values\)$",
    ),
    "one_step_round: preference of other outcomes": (
        lambda: one_step_round(THREE, THREE, SPPO, 1.0, preference=[0.5, 0.6]),
        r"^preference: shape \(2,\); needed is that of the laws, \(3,\)$",
    ),
    "one_step_round: no preference at all": (
        lambda: one_step_round(P, Q, SPPO, 1.0, preference=[]),
        r"^preference: outside \[0, 1\]; needed is P\(y > pi_t\) of each outcome$",
    ),
    "partition_gap: a beta an outcome": (
        lambda: partition_gap(P, Q, SPIF, [1.0, 2.0]),
        r"^beta=\[1\.0, 2\.0\]; needed is a finite number > 0$",
    ),
    "self_play: a name": (
        lambda: self_play(P, Q, "spiff", 1.0),
        r"unknown objective 'spiff'\. Did you mean 'spif'",
    ),
    "self_play: a number": (
        lambda: self_play(P, Q, 3, 1.0),
        r"obj=3; needed is an objective, as from objectives\.get",
    ),
    "self_play: two betas": (
        lambda: self_play(P, Q, SPIF, 1.0, effective_step=1.0),
        r"beta and effective_step: both given; needed is one of them",
    ),
    "self_play: beta as text": (
        lambda: self_play(P, Q, SPIF, "1"),
        r"beta='1'; needed is a finite number > 0, or one a round",
    ),
    "self_play: effective step": (
        lambda: self_play(P, Q, SPIF, effective_step=0.0),
        r"effective_step=0\.0; needed is a finite number > 0, or one a round",
    ),
    "self_play: no effective step": (
        lambda: self_play(P, Q, "ipm", effective_step=1.0),
        r"effective_step: ipm",
    ),
    "self_play: no law": (
        lambda: self_play([0.5, 0.6], Q, SPIF, 1.0),
        r"expert: sums to 1\.1 at prompt \(\); needed is 1",
    ),
    "self_play: outcomes differ": (
        lambda: self_play(P, THREE, SPIF, 1.0),
        r"laws differ in the number of outcomes: \{'expert': \(2,\), 'start': \(3,\)\}",
    ),
    "self_play: prompts differ": (
        lambda: self_play(*BATCH, SPIF, 1.0),
        r"prompt axes do not broadcast: \{'expert': \(2, 3\), 'start': \(4, 3\)\}",
    ),
    "self_play: betas": (
        lambda: self_play(P, Q, SPIF, beta=[1.0, 2.0], rounds=3),
        r"beta: 2 values for 3 rounds; needed is one a round",
    ),
    "self_play: rounds": (
        lambda: self_play(P, Q, SPIF, 1.0, rounds=2.5),
        r"rounds=2\.5; needed is a whole number >= 0",
    ),
    "self_play: no ref": (
        lambda: self_play(P, Q, SPIF, 1.0, tau=0.1),
        r"tau=0\.1 needs ref, the reference policy of the anchor",
    ),
    "self_play: support of ref": (
        lambda: self_play(P, Q, SPIF, 1.0, tau=0.1, ref=[1.0, 0.0]),
        r"start has mass at \(1,\) where ref has none; needed is support\(start\) within",
    ),
    "self_play: level": (
        lambda: self_play(P, Q, SPIF, 1.0, level="token"),
        r"level='token'; needed is one of 'sequence', 'conditional', 'occupancy'",
    ),
    "self_play: level without game": (
        lambda: self_play(P, Q, SPIF, 1.0, level="conditional"),
        r"level='conditional' needs game, a TokenMDP",
    ),
    "self_play: one_step": (
        lambda: self_play(P, Q, SPIF, 1.0, one_step="far"),
        r"one_step='far'; needed is False, True, 'near' or 'global'",
    ),
    "self_play: laws for a game": (
        lambda: self_play(P, Q, SPIF, 1.0, game=GAME),
        r"expert must have shape \(\.\.\., 3 states, 3 actions\), got \(2,\)",
    ),
    "self_play: no game": (
        lambda: self_play(P, Q, SPIF, 1.0, game=3),
        r"game=3; needed is a TokenMDP",
    ),
    "self_play: preference": (
        lambda: self_play(P, Q, SPPO, 1.0),
        r"sppo has no expert law: use preferences\.self_play",
    ),
    "self_play: nothing to play": (
        lambda: self_play(P, Q, TSPIN, 1.0),
        r"tspin has no reward: reference-free",
    ),
    "self_play: one step of gail": (
        lambda: self_play(P, Q, get("gail"), 1.0, one_step=True),
        r"gail has no risk: the implicit reward starts at r = 0",
    ),
    "theory_card: a name": (
        lambda: theory_card("spiff"),
        r"unknown objective 'spiff'",
    ),
    # log-linear classes
    "LogLinear: no matrix": (
        lambda: LogLinear(np.zeros(3)),
        r"features: shape \(3,\); needed is a finite matrix \(n, d\)",
    ),
    "reach: no step": (lambda: spif_reach(0.0), r"eta=0\.0; needed is a finite number > 0"),
    "gap slope: no step": (lambda: gap_slope(0.0, np.nan), r"eta=nan; needed is a finite"),
    "gap slope: beyond 1": (lambda: gap_slope(2.0, 1.0), r"t: needed are numbers within \[-1, 1\]"),
    "gap slope: NaN": (lambda: gap_slope([0.0, np.nan], 1.0), r"t: needed are numbers within"),
    "gap slope: text": (lambda: gap_slope("a", 1.0), r"t: needed are numbers within"),
    "long step: a response that the policy lacks": (
        lambda: long_step([0.5, 0.5], [1.0, 0.0], 3.0),
        r"policy\[1\]=0; needed is mass wherever the expert has",
    ),
    "burn-in: all wrong": (
        lambda: spif_burn_in(-1.0, 0.0, np.nan),
        r"(?s)nats=-1\.0.*eta=0\.0.*reached=nan",
    ),
    "long step: no step": (lambda: long_step([0.5, 0.5], [0.1, 0.9], -1.0), r"eta=-1\.0"),
    "long step: equal laws": (
        lambda: long_step([0.5, 0.5], [0.5, 0.5], 9.0),
        r"equal laws; needed are laws that differ",
    ),
    "LogLinear: base": (
        lambda: LogLinear(np.eye(3)[:, :2], [0.0, np.inf, 0.0]),
        r"log_base: shape \(3,\); needed are 3 finite numbers",
    ),
    "LogLinear: text": (lambda: LogLinear("x"), r"features: not an array of numbers"),
    "LogLinear: rank": (
        lambda: LogLinear(np.ones((3, 2))),
        r"features: 2 columns of rank 0 modulo constants; needed are identifiable parameters",
    ),
    "LogLinear: expert": (
        lambda: CLASS.self_play(P, ZERO, SPIF, 1.0, 2),
        r"expert: 2 outcomes on the last axis, needed 3",
    ),
    "LogLinear: theta": (
        lambda: CLASS.self_play(THREE, THREE, SPIF, 1.0, 2),
        r"theta: shape \(3,\); needed is \(2,\)",
    ),
    "LogLinear: no objective": (
        lambda: CLASS.self_play(THREE, ZERO, 2.0, 1.0, 2),
        r"obj=2.0; needed is an objective",
    ),
    "LogLinear: no ref": (
        lambda: CLASS.self_play(THREE, ZERO, SPIF, 1.0, 2, tau=0.5),
        r"tau=0\.5 needs ref, the reference policy of the anchor",
    ),
    "LogLinear: preference": (
        lambda: CLASS.self_play(THREE, ZERO, SPPO, 1.0, 2),
        r"sppo has no expert law: use preferences\.self_play",
    ),
    "LogLinear: base of text": (
        lambda: LogLinear(np.eye(3)[:, :1], ["a", "b"]),
        r"log_base: not an array of numbers",
    ),
    "LogLinear: no columns": (
        lambda: LogLinear(np.zeros((3, 0))),
        r"features: shape \(3, 0\); needed is a finite matrix",
    ),
    "LogLinear: theta without value": (
        lambda: CLASS.self_play(THREE, [np.nan, 0.0], SPIF, 1.0, 2),
        r"theta=\[nan, 0\.0\]; needed is one finite number a feature",
    ),
    "LogLinear: experts": (
        lambda: CLASS.self_play(BATCH[0], ZERO, SPIF, 1.0, 2),
        r"expert: shape \(2, 3\); needed is one law, \(3,\)",
    ),
    "LogLinear: law": (lambda: CLASS.law(THREE), r"theta: shape \(3,\); needed is \(2,\)"),
    "LogLinear: law without value": (
        lambda: CLASS.law([np.nan, 0.0]),
        r"theta=\[nan, 0\.0\]; needed is one finite number a feature",
    ),
    "LogLinear: log-law": (lambda: CLASS.log_law(THREE), r"theta: shape \(3,\); needed is \(2,\)"),
    "maximum_likelihood: no law": (
        lambda: CLASS.maximum_likelihood(np.array([0.7, 0.2, 0.2])),
        r"expert: sums to 1\.1 at prompt \(\); needed is 1",
    ),
    "destination: no temperature": (
        lambda: CLASS.destination(THREE, 0),
        r"temperature=0; needed is a finite number > 0",
    ),
    "destination: negative temperature": (
        lambda: CLASS.destination(THREE, -1),
        r"temperature=-1; needed is a finite number > 0",
    ),
    "destination: temperature": (
        lambda: CLASS.destination(THREE, np.nan),
        r"temperature=nan; needed is a finite number > 0",
    ),
    "projection: all at once": (
        lambda: CLASS.reverse_kl_projection(P, THREE),
        ["expert: 2 outcomes", "start: shape (3,)"],
    ),
    "potential: all at once": (
        lambda: CLASS.potential_minimiser(P, SPIF, THREE),
        ["expert: 2 outcomes", "start: shape (3,)"],
    ),
    # predictions of one step
    "partition_gap: negative beta": (
        lambda: partition_gap(P, Q, SPIF, -1),
        r"beta=-1; needed is a finite number > 0",
    ),
    "partition_gap: beta": (lambda: partition_gap(P, Q, SPIF, np.nan), r"beta=nan; .* > 0"),
    "partition_gap: text": (lambda: partition_gap(P, Q, SPIF, "1"), r"beta='1'; .* > 0"),
    "local rate: negative beta": (lambda: local_rate_one_step("spif", -1), r"beta=-1; .* > 0"),
    "local rate: beta": (lambda: local_rate_one_step("spif", np.nan), r"beta=nan; .* > 0"),
    "local rate: no beta": (lambda: local_rate_one_step("spif", 0), r"beta=0; .* > 0"),
    # weights and token policies
    "self_play: a truth value": (
        lambda: self_play(P, Q, SPIF, True),
        r"beta=True; needed is a finite number > 0, or one a round",
    ),
    "self_play: truth values": (
        lambda: self_play(P, Q, SPIF, [True, 1.0], 2),
        r"beta=\[True, 1\.0\]; needed is a finite number > 0, or one a round",
    ),
    "self_play: no values": (
        lambda: self_play(P, Q, SPIF, [], 0),
        r"beta=\[\]; needed is a finite number > 0, or one a round",
    ),
    "self_play: a policy of narrow type": (
        lambda: self_play(GAME.expert, (GAME.expert + 1e-3).astype(np.float32), SPIF, game=GAME),
        r"start: probabilities do not sum to 1 .*; needed is 1 to within 1e-05$",
    ),
    "self_play: a policy of full type": (
        lambda: self_play(GAME.expert, GAME.expert + 1e-6, SPIF, game=GAME),
        r"start: probabilities do not sum to 1 .*; needed is 1 to within 1e-09$",
    ),
    # all problems at once
    "self_play: all at once": (
        lambda: self_play([0.5, 0.6], [np.nan, 1], SPIF, beta=-1, rounds=-1, tau=-1),
        ["rounds=-1", "beta=-1", "tau=-1", "expert: sums to 1.1", "start: not finite"],
    ),
    "self_play: settings, all at once": (
        lambda: self_play(P, Q, SPIF, 1.0, tau=1.0, one_step="far", level="token", game=3),
        ["tau=1.0 needs ref", "one_step='far'", "level='token'", "game=3"],
    ),
    "self_play: game, all at once": (
        lambda: self_play(P, GAME.expert - 1, SPIF, beta=0, game=GAME),
        ["beta=0", "expert must have shape", "start: probabilities do not sum to 1"],
    ),
    "LogLinear: all at once": (
        lambda: CLASS.self_play(P, THREE, SPIF, -1, 2.5, "x", temperature=0, tau=np.nan),
        ["expert:", "beta=-1", "temperature=0", "tau=nan", "rounds=2.5", "theta:", "kind='x'"],
    ),
}


@pytest.mark.parametrize(("call", "said"), CALLS.values(), ids=CALLS)
def test_wrong_call(call: Call, said: str | list[str]) -> None:
    refused(call, said)


def test_what_looks_wrong_but_is_right() -> None:
    """Lists, and prompts that broadcast."""
    assert self_play(BATCH[0], THREE, SPIF, 1.0, rounds=np.int64(1)).policy.shape == (2, 3)
    assert LogLinear([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).features.shape == (3, 2)


def test_token_policies_of_narrow_type_are_normalised() -> None:
    expert, narrow = GAME.expert, GAME.expert.astype(np.float32)
    path = self_play(expert, narrow, SPIF, game=GAME, rounds=1)
    np.testing.assert_allclose(np.exp(GAME.validate_policy(narrow)).sum(-1), 1.0, atol=1e-14)
    assert path.details["kl"].max() < 1e-12
    again = TokenMDP.from_arrays(GAME.next_state, expert=narrow).expert
    assert again is not None
    assert again.dtype == np.float64
    np.testing.assert_allclose(np.exp(again).sum(-1), 1.0, atol=1e-14)
    for law in (GAME.sequence_law(expert), GAME.sequence_law(narrow)):
        found = GAME.policy_from_law(law.astype(np.float32))
        np.testing.assert_allclose(found, expert, atol=1e-5)
