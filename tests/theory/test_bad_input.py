"""Wrong calls of every public verb: each is refused before any work, in words that help.

A message names what is wrong, where, and what is allowed; several problems come at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from theory import (
    InvalidInput,
    TokenMDP,
    Unavailable,
    equilibrium,
    objectives,
    preferences,
    saddle_point,
    self_play,
    theory_card,
)
from theory.objectives import Pairwise, Pointwise, register
from theory.rounds.log_linear import LogLinear
from theory.tokens import text

get = objectives.get
P, Q, THREE = np.array([0.3, 0.7]), np.array([0.5, 0.5]), np.full(3, 1 / 3)
BATCH = np.full((2, 3), 1 / 3), np.full((4, 3), 1 / 3)
SPIF, SPIN, IPO = get("spif"), get("spin"), get("ipo")
SPPO, INPO, TSPIN = get("sppo"), get("inpo"), get("tspin")
GAME = TokenMDP.random(vocab=3, horizon=2, seed=0)
RPS = preferences.rock_paper_scissors()
CLASS = LogLinear(np.eye(3)[:, :2])
ZERO = np.zeros(2)

Call = Callable[[], object]
CALLS: dict[str, tuple[Call, str]] = {
    # objectives: names and parameters
    "get: unknown name": (
        lambda: get("spiff"),
        r"unknown objective 'spiff'\. Did you mean 'spif'\? Known: spif, iq_learn, ",
    ),
    "get: no name at all": (lambda: get(3), r"unknown objective 3\. Known: spif"),
    "get: unknown parameter": (
        lambda: get("spif", gamma=1.0),
        r"spif: unknown parameter 'gamma'; it takes c, alpha",
    ),
    "get: parameter of none": (
        lambda: get("spin", c=1.0),
        r"spin: unknown parameter 'c'; it takes none",
    ),
    "get: not positive": (lambda: get("spif", c=0), r"spif: c=0; needed is a number > 0"),
    "get: outside the unit interval": (
        lambda: get("renyi", order=1.0),
        r"renyi: order=1\.0; needed is within \(0, 1\)",
    ),
    "get: no number": (
        lambda: get("ipo", margin="big"),
        r"ipo: margin='big'; needed is a finite number",
    ),
    "get: infinite": (lambda: get("space", mu=np.inf), r"space: mu=inf; needed is a finite number"),
    "get: a truth value": (lambda: get("ipm", bound=True), r"ipm: bound=True; needed is a finite"),
    # objectives: definitions and files
    "link: some deltas out of range": (
        lambda: IPO.link(P, np.array([0.5, 2.5])),
        r"delta=array.*; needed is Delta\(p, q\), within \[0, 2\]",
    ),
    "loss: some betas": (
        lambda: SPIN.loss(P, Q, np.array([1.0, -1.0])),
        r"spin: beta=array.*; needed is a finite number > 0",
    ),
    "loss: some taus": (
        lambda: INPO.loss(P, Q, 1.0, tau=np.array([1.0, -1]), expert_anchor=P, policy_anchor=P),
        r"inpo: tau=array.*; needed is a finite number >= 0",
    ),
    "risk: some weights": (
        lambda: SPIN.risk(P, Q, 1.0, np.array([2.0, -1.0])),
        r"spin: expert_weight: needed are finite numbers >= 0",
    ),
    "risk: some prompts without weight": (
        lambda: SPIN.risk(BATCH[0], BATCH[0], 1.0, np.array([[1.0, 1, 1], [0, 0, 0]])),
        r"spin: expert_weight: all 0 for a prompt",
    ),
    "register: a taken name": (
        lambda: register("spin")(type("Mine", (Pointwise,), {"__module__": "mine"})),
        r"objective name 'spin' is taken; choose another",
    ),
    "register: no form": (
        lambda: register("mine")(type("Mine", (), {})),
        r"mine: derive from Pointwise, Pairwise or Group",
    ),
    "register: a function": (
        lambda: register("mine")(lambda r: r),
        r"mine: derive from Pointwise, Pairwise or Group",
    ),
    "register: no name": (lambda: register(Pairwise), r"needed is a name, as in @register\("),
    "load_file: nothing there": (
        lambda: objectives.load_file("nowhere/mine.py"),
        r"nowhere.mine\.py: no such file; needed is a Python file that uses @register",
    ),
    "load_file: registers nothing": (
        lambda: objectives.load_file(Path(__file__).with_name("__init__.py")),
        r"__init__\.py: registers no objective; decorate a class with @register\(\"name\"\)",
    ),
    # link and reward
    "link: text": (lambda: SPIF.link("u"), r"u='u'; needed are numbers"),
    "link: None": (lambda: SPIF.link(None), r"u=None; needed are numbers"),
    "link: no delta": (
        lambda: IPO.link(0.5),
        r"ipo: its link needs delta = Delta\(p, q\), within \[0, 2\]",
    ),
    "link: delta out of range": (
        lambda: IPO.link(0.5, 2.5),
        r"delta=2\.5; needed is Delta\(p, q\), within \[0, 2\]",
    ),
    "slope: text": (lambda: SPIF.slope("u"), r"u='u'; needed are numbers"),
    "slope: delta out of range": (lambda: IPO.slope(0.5, -1.0), r"delta=-1\.0; needed is Delta"),
    "reward: outcomes differ": (
        lambda: SPIF.reward(P, THREE),
        r"laws differ in the number of outcomes: .*\(2,\).*\(3,\)",
    ),
    "reward: logits for laws": (
        lambda: SPIF.reward(np.log(P), Q),
        r"expert: negative at \(0,\) \(-1\.2.*\); needed are values in \[0, 1\]",
    ),
    "reward: unused extra": (
        lambda: SPIF.reward(P, Q, tau=0.1),
        r"spif: unused extra 'tau'; it takes none",
    ),
    "reward: missing extras": (
        lambda: SPPO.reward(P, Q, expert_preference=0.5),
        r"sppo: missing extra 'policy_preference'",
    ),
    "reward: no probability": (
        lambda: SPPO.reward(P, Q, expert_preference=1.5, policy_preference=P),
        r"sppo: expert_preference: needed are probabilities P\(y > pi_t\), within \[0, 1\]",
    ),
    "reward: preferences of other shape": (
        lambda: SPPO.reward(P, Q, expert_preference=THREE, policy_preference=P),
        r"sppo: shapes do not broadcast: expert \(2,\), expert_preference \(3,\)",
    ),
    "reward: not available": (
        lambda: get("spin_hinge").reward(P, Q),
        r"spin_hinge has no reward: the best response is a staircase",
    ),
    "potential: not available": (
        lambda: IPO.potential(P, Q),
        r"ipo has no potential: the step kappa_t changes",
    ),
    "potential: no law": (lambda: SPIF.potential(P, [0.5, 0.6]), r"expert: sums to 1\.1"),
    # loss and risk
    "loss: beta zero": (lambda: SPIN.loss(P, Q, 0.0), r"spin: beta=0\.0; needed is a .* > 0"),
    "loss: beta text": (lambda: SPIN.loss(P, Q, "1"), r"spin: beta='1'; needed is a"),
    "loss: no beta": (lambda: SPIN.loss(P, Q, None), r"spin: beta=None; needed is a finite number"),
    "loss: beta of other shape": (
        lambda: SPIN.loss(P, Q, np.ones(3)),
        r"spin: shapes do not broadcast: .*policy_logratio \(2,\), beta \(3,\)",
    ),
    "loss: text": (
        lambda: SPIN.loss("x", Q, 1.0),
        r"spin: expert_logratio='x'; needed are numbers",
    ),
    "loss: shapes": (
        lambda: SPIN.loss(P, THREE, 1.0),
        r"spin: shapes do not broadcast: expert_logratio \(2,\), policy_logratio \(3,\)",
    ),
    "loss: numpy and torch": (
        lambda: SPIN.loss(P, torch.tensor(Q), 1.0),
        r"expert_logratio is numpy, policy_logratio is torch; needed is one kind for all",
    ),
    "loss: anchor without its parts": (
        lambda: SPIN.loss(P, Q, 1.0, tau=0.1),
        r"spin: missing extra 'expert_anchor'; spin: missing extra 'policy_anchor'",
    ),
    "loss: missing anchor": (lambda: INPO.loss(P, Q, 1.0), r"inpo: missing extra 'tau'"),
    "loss: negative tau": (
        lambda: INPO.loss(P, Q, 1.0, tau=-1.0, expert_anchor=P, policy_anchor=P),
        r"inpo: tau=-1\.0; needed is a finite number >= 0",
    ),
    "loss: reference-free": (
        lambda: TSPIN.loss(P, Q, 1.0, history_logratio=Q, tau=0.1, expert_anchor=P),
        r"tspin: unused extra 'tau'; it takes \['history_law', 'history_logratio'\]",
    ),
    "loss: not available": (lambda: get("gail").loss(P, Q, 1.0), r"gail has no loss: the implicit"),
    "loss: group": (
        lambda: get("centred_spif").loss(P, Q, 1.0),
        r"centred_spif has no loss: a group objective needs all responses .* use risk",
    ),
    "risk: a number": (
        lambda: SPIF.risk(0.1, Q, 1.0),
        r"expert_logratio: shape \(\) has no responses; needed is \(\.\.\., G\) with G >= 1",
    ),
    "risk: no responses": (
        lambda: SPIF.risk(P, np.zeros((2, 0)), 1.0),
        r"policy_logratio: shape \(2, 0\) has no responses; needed is \(\.\.\., K\) with K >= 1",
    ),
    "risk: weights of other shape": (
        lambda: SPIN.risk(P, Q, 1.0, THREE),
        r"spin: shapes do not broadcast: expert_logratio \(2,\), expert_weight \(3,\)",
    ),
    "risk: negative weight": (
        lambda: SPIN.risk(P, Q, 1.0, None, -Q),
        r"spin: policy_weight: needed are finite numbers >= 0",
    ),
    "risk: no weight left": (
        lambda: SPIN.risk(P, Q, 1.0, 0 * P),
        r"spin: expert_weight: all 0 for a prompt; needed is some response to weigh",
    ),
    "risk: one weight": (
        lambda: SPIN.risk(P, Q, 1.0, 1.0),
        r"expert_weight: a single number; needed is one for every response",
    ),
    "risk: prompts differ": (
        lambda: SPIN.risk(*BATCH, 1.0),
        r"prompt axes .* do not broadcast: expert \(2,\), policy \(4,\)",
    ),
    "risk: extras of other shape": (
        lambda: SPPO.risk(P, Q, 1.0, expert_preference=THREE, policy_preference=Q),
        r"sppo: shapes do not broadcast: expert_logratio \(2,\), expert_preference \(3,\)",
    ),
    "value: no saddle": (lambda: SPIN.value(P, Q, P), r"spin has no saddle: its payoff is a mean"),
    # rounds
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
    # token MDPs
    "tree: sizes": (
        lambda: TokenMDP.tree(vocab=1, horizon=0),
        r"vocab must be at least 2, got 1; horizon must be at least 1, got 0",
    ),
    "tree: no whole number": (
        lambda: TokenMDP.tree(vocab=3, horizon=2.5),
        r"horizon must be a whole number, got 2\.5",
    ),
    "tree: too large": (
        lambda: TokenMDP.tree(vocab=50, horizon=9),
        r"has 1,696,.* state-action pairs, more than .*merge states \(order=k\)",
    ),
    "tree: eos": (
        lambda: TokenMDP.tree(vocab=3, horizon=2, eos=3),
        r"eos must be a token index in 0\.\.2 or None, got 3",
    ),
    "random: concentration": (
        lambda: TokenMDP.random(concentration=0.0),
        r"concentration must be positive and finite, got 0",
    ),
    "random: concentration of text": (
        lambda: TokenMDP.random(concentration="x"),
        r"concentration must be positive and finite, got 'x'",
    ),
    "random: seed": (
        lambda: TokenMDP.random(seed="x"),
        r"^seed must be a whole number >= 0 or None, got 'x'$",
    ),
    "random: negative seed": (lambda: TokenMDP.random(seed=-1), r"seed must be .* got -1"),
    "random: truth value": (lambda: TokenMDP.random(seed=True), r"seed must be .* got True"),
    "random: rng": (
        lambda: TokenMDP.random(seed=0.5, rng=3),
        r"seed must be .* got 0\.5; rng must be a numpy Generator or None, got int",
    ),
    "tree: names": (
        lambda: TokenMDP.tree(3, 2, prompt_names=3),
        r"prompt_names must be a sequence of names, got int",
    ),
    "tree: size": (
        lambda: TokenMDP.tree(3, 2, max_state_actions="x"),
        r"max_state_actions must be a number, got 'x'",
    ),
    "from_arrays: expert": (
        lambda: TokenMDP.from_arrays([[-1]], expert="x"),
        r"expert must be an array of log-probabilities \(could not convert",
    ),
    "from_arrays: no integers": (
        lambda: TokenMDP.from_arrays([[0.5]]),
        r"next_state must be .* array of integers, got dtype float64",
    ),
    "from_arrays: unknown state": (
        lambda: TokenMDP.from_arrays([[5, -1]]),
        r"next_state must be -1 .* or a state 0\.\.0; other values at states 0",
    ),
    "from_arrays: cycle": (
        lambda: TokenMDP.from_arrays([[1, -1], [2, -1], [1, -1]]),
        r"cycle|another prompt|depth",
    ),
    "policy: probabilities": (
        lambda: GAME.sequence_law(np.exp(GAME.expert)),
        r"log-probabilities above 0 \(probabilities given as they are\?\) at state 0",
    ),
    "policy: not normalised": (
        lambda: GAME.sequence_law(GAME.expert - 1.0),
        r"probabilities do not sum to 1 at state 0 .*\(sum 0\.367879441\)",
    ),
    "policy: shape": (
        lambda: GAME.log_sequence_law(np.zeros((2, 2))),
        r"policy must have shape \(\.\.\., 3 states, 3 actions\), got \(2, 2\)",
    ),
    "law of a policy": (
        lambda: GAME.policy_from_law(np.full((1, 7), 0.2)),
        r"law of prompt 0 sums to 1\.4, not 1",
    ),
    "soft value iteration": (
        lambda: GAME.soft_value_iteration(np.zeros((2, 2)), GAME.expert, -1.0),
        r"beta=-1\.0; needed is a finite number >= 0; reward must be .*got \(2, 2\)",
    ),
    "merged: order": (lambda: GAME.merged(-1), r"order must be a whole number >= 0, got -1"),
    # real text
    "from_text: one string": (
        lambda: TokenMDP.from_text("some words"),
        r"texts must be a sequence of texts or pairs, got one string",
    ),
    "from_text: a number": (
        lambda: TokenMDP.from_text(5),
        r"texts must be a sequence of texts or pairs, got int",
    ),
    "from_text: smoothing of text": (
        lambda: TokenMDP.from_text(["a b"], smoothing="x"),
        r"smoothing must be a finite number >= 0, got 'x'",
    ),
    "from_text: too few words": (
        lambda: TokenMDP.from_text(["a b", "c"], vocab_size=9, horizon=2),
        r"vocab_size=9 needs 7 different tokens, the text has 3",
    ),
    "from_text: settings": (
        lambda: TokenMDP.from_text(["a b"], unit="syllable", smoothing=-1.0),
        r"unit must be 'word' or 'char', got 'syllable'; smoothing must be .* got -1",
    ),
    "load_pairs: nothing there": (
        lambda: text.load_pairs("nowhere.jsonl"),
        r"nowhere\.jsonl: no such file",
    ),
    "split_by_book: no such book": (
        lambda: text.split_by_book([text.Pair("Job", "x", "y")], ["Ruth"]),
        r"no such book: 'Ruth'",
    ),
    # equilibria
    "saddle_point: a name": (
        lambda: saddle_point(P, Q, "spiff"),
        r"unknown objective 'spiff'",
    ),
    "saddle_point: tau": (
        lambda: saddle_point(P, Q, SPIF, tau="x"),
        r"tau='x'; needed is a finite number >= 0",
    ),
    "saddle_point: method": (
        lambda: saddle_point(P, Q, SPIF, method="slow"),
        r"method='slow'; needed is one of 'fast', 'convex'",
    ),
    "saddle_point: tolerance": (
        lambda: saddle_point(P, Q, SPIF, tolerance=0.0),
        r"tolerance=0\.0; needed is a finite number > 0 or None",
    ),
    "saddle_point: pairwise": (
        lambda: saddle_point(P, Q, SPIN),
        r"spin has no saddle: .* use equilibrium",
    ),
    "equilibrium: no link": (
        lambda: equilibrium(P, Q, TSPIN),
        r"tspin has no equilibrium: no link, as reference-free",
    ),
    "equilibrium: moving opponent": (
        lambda: equilibrium(P, Q, get("alpha_spin")),
        r"alpha_spin has no equilibrium: the fixed point depends on beta and on the base",
    ),
    "equilibrium: preference": (
        lambda: equilibrium(P, Q, SPPO),
        r"sppo has no equilibrium of imitation: .* use preferences\.nash",
    ),
    # preferences
    "nash: no preference": (
        lambda: preferences.nash([[0.5, 0.2], [0.2, 0.5]]),
        r"P: P \+ P\^T at \(0, 1\) .*needed is P\(y > y'\) \+ P\(y' > y\) = 1",
    ),
    "nash: out of range": (
        lambda: preferences.nash([[0.5, 1.2], [-0.2, 0.5]]),
        r"P: out of range at \(0, 1\) \(1\.2.*needed is a value in \[0, 1\]",
    ),
    "nash: a row": (
        lambda: preferences.nash([0.5, 0.5]),
        r"P: shape \(2,\); needed is \(\.\.\., n, n\) with n >= 1",
    ),
    "duality_gap: other outcomes": (
        lambda: preferences.duality_gap(RPS, P),
        r"policy: 2 outcomes on the last axis, needed 3",
    ),
    "preferences.self_play: no objective": (
        lambda: preferences.self_play(RPS, THREE, 2.0, 1.0, 3),
        r"obj=2.0; needed is an objective",
    ),
    "preferences.self_play: no reward": (
        lambda: preferences.self_play(RPS, THREE, get("spin_hinge"), 1.0, 3),
        r"spin_hinge has no reward: the best response is a staircase",
    ),
    "preferences.self_play: no ref": (
        lambda: preferences.self_play(RPS, THREE, SPIF, 1.0, 3, tau=1.0),
        r"tau=1\.0 needs ref, the reference policy of the anchor",
    ),
    "bradley_terry: text": (
        lambda: preferences.bradley_terry("scores"),
        r"scores: not an array of numbers",
    ),
    # log-linear classes
    "LogLinear: no matrix": (
        lambda: LogLinear(np.zeros(3)),
        r"features: shape \(3,\); needed is a finite matrix \(n, d\)",
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
}


@pytest.mark.parametrize(("call", "message"), CALLS.values(), ids=CALLS)
def test_wrong_call(call: Call, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        call()
    assert caught.value.problems
    absent = re.match(r"\w+ has no [\w ]+: ", str(caught.value))
    assert not absent or isinstance(caught.value, Unavailable)


def test_the_table_covers_every_verb() -> None:
    assert len(CALLS) >= 100
    verbs = {name.split(":")[0] for name in CALLS}
    assert verbs >= {
        "get", "register", "load_file", "link", "reward", "loss", "risk", "self_play",
        "theory_card", "tree", "random", "from_arrays", "from_text", "saddle_point", "equilibrium",
        "nash", "duality_gap", "preferences.self_play", "LogLinear", "load_pairs",
    }  # fmt: skip


SEVERAL: dict[str, tuple[Call, list[str]]] = {
    "get": (lambda: get("spif", c=-1, alpha=3), ["c=-1", "alpha=3"]),
    "get: names": (lambda: get("spif", a=1, b=2), ["'a'", "'b'"]),
    "loss": (
        lambda: INPO.loss(P, Q, -1.0, gamma=2),
        ["'tau'", "'expert_anchor'", "'policy_anchor'", "'gamma'", "beta=-1.0"],
    ),
    "risk": (
        lambda: SPIN.risk(np.zeros((2, 0)), Q, 1.0, None, -Q),
        ["expert_logratio", "policy_weight"],
    ),
    "self_play": (
        lambda: self_play([0.5, 0.6], [np.nan, 1], SPIF, beta=-1, rounds=-1, tau=-1),
        ["rounds=-1", "beta=-1", "tau=-1", "expert: sums to 1.1", "start: not finite"],
    ),
    "self_play: settings": (
        lambda: self_play(P, Q, SPIF, 1.0, tau=1.0, one_step="far", level="token", game=3),
        ["tau=1.0 needs ref", "one_step='far'", "level='token'", "game=3"],
    ),
    "self_play: game": (
        lambda: self_play(P, GAME.expert - 1, SPIF, beta=0, game=GAME),
        ["beta=0", "expert must have shape", "start: probabilities do not sum to 1"],
    ),
    "tree": (
        lambda: TokenMDP.tree(vocab=0, horizon=-1, prompts=0, order=-2),
        ["vocab", "horizon", "prompts", "order"],
    ),
    "saddle_point": (
        lambda: saddle_point([0.5, 0.6], [-1, 2], SPIF, tau=-1, method="slow", tolerance=-1),
        ["expert: sums", "ref: negative", "tau=-1", "method='slow'", "tolerance=-1"],
    ),
    "preferences.self_play": (
        lambda: preferences.self_play(RPS, THREE, SPIF, -1.0, -3, tau=-1.0),
        ["rounds=-3", "beta=-1.0", "tau=-1.0"],
    ),
    "LogLinear": (
        lambda: CLASS.self_play(P, THREE, SPIF, -1, 2.5, "x", temperature=0, tau=np.nan),
        ["expert:", "beta=-1", "temperature=0", "tau=nan", "rounds=2.5", "theta:", "kind='x'"],
    ),
}


@pytest.mark.parametrize(("call", "parts"), SEVERAL.values(), ids=SEVERAL)
def test_all_problems_at_once(call: Call, parts: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        call()
    for part in parts:
        assert any(part in problem for problem in caught.value.problems), (part, str(caught.value))
    assert len(caught.value.problems) >= len(parts)


def test_what_looks_wrong_but_is_right() -> None:
    """Lists, numbers, one weight row for all prompts, broadcast prompts, beta per prompt."""
    assert SPIN.risk([0.1, 0.2], [0.3], 1.0, [1, 2], [1.0]).shape == ()
    assert float(SPIN.loss(0.0, 0.0, 1)) == pytest.approx(np.log(2))
    assert SPIN.risk(BATCH[0], THREE, 1.0, [1, 1, 0]).shape == (2,)
    assert SPIN.loss(BATCH[0], THREE, np.ones((2, 1))).shape == (2, 3)
    assert self_play(BATCH[0], THREE, SPIF, 1.0, rounds=np.int64(1)).policy.shape == (2, 3)
    assert LogLinear([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).features.shape == (3, 2)
    assert SPIF.link(3).shape == ()
    assert IPO.link(np.inf, 2.0) == pytest.approx(0.5)
    assert IPO.link(np.inf, 0.0) == pytest.approx(1.0)
