"""Wrong calls of objectives: each is refused before any work, in words that help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.theory.wrong_calls import (
    BATCH,
    INPO,
    IPO,
    SPIF,
    SPIN,
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
from theory import objectives
from theory.objectives import Pairwise, Pointwise, finite_groups, register

BATCH_OF_TWO = BATCH[0], BATCH[0]

CALLS: Calls = {
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
    "get: a penalty lost in rounding": (
        lambda: get("spif(c=1e-300)"),
        r"spif: c=1e-300; needed is a number >= 1e-18",
    ),
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
    "link: texts": (lambda: SPIF.link(np.array(["a"])), r"needed are numbers \(<U1 values\)"),
    "load_file: None": (lambda: objectives.load_file(None), r"path=None; needed is the name of a"),
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
    "link: delta of other shape": (
        lambda: IPO.link(np.array([1, 2]), np.array([0.1, 0.2, 0.3])),
        r"shapes do not broadcast: u \(2,\), delta \(3,\)",
    ),
    "slope: two deltas": (
        lambda: IPO.slope(P, np.array([0.1, 0.2])),
        r"delta=array.*; needed is one number for all of u",
    ),
    # finite groups
    "renyi: half a response": (
        lambda: get("renyi").finite_group_reward(P, Q, 1.5, 2),
        r"expert_size=1\.5; needed is a whole number >= 1, or inf for the law itself",
    ),
    "centred_spif: half a response": (
        lambda: get("centred_spif").finite_group_reward(P, Q, 2, 1.5),
        r"own_size=1\.5; needed is a whole number >= 1",
    ),
    "spif: no responses": (
        lambda: SPIF.finite_group_reward(P, Q, 0, -1),
        ["expert_size=0", "own_size=-1"],
    ),
    "group_coefficients: text": (
        lambda: finite_groups.group_coefficients("a", 1),
        r"expert_size='a'; needed is a whole number >= 1",
    ),
    "renyi_local_gain: text": (
        lambda: finite_groups.renyi_local_gain("a", 1, 1),
        r"order='a'; needed is within \(0, 1\)",
    ),
    "finite_group_link: negative c": (
        lambda: finite_groups.finite_group_link(P, [1, 0], -1, 1, 1),
        r"c=-1; needed is a finite number > 0",
    ),
    "finite_group_link: c": (
        lambda: finite_groups.finite_group_link(P, [1, 0], np.nan, 1, 1),
        r"c=nan; needed is a finite number > 0",
    ),
    "expected_group_loss: reward": (
        lambda: finite_groups.expected_group_loss(P, Q, np.array([1, np.nan]), 1.0, 1, 1),
        r"reward: nan at \(1,\); needed is a finite number wherever a law has mass",
    ),
    "expected_group_loss: rewards": (
        lambda: finite_groups.expected_group_loss(P, Q, THREE, 1.0, 1, 1),
        r"reward: shape \(3,\); needed is \(\.\.\., 2\), one number an outcome",
    ),
    "expected_group_loss: prompts": (
        lambda: finite_groups.expected_group_loss(*BATCH_OF_TWO, np.ones((4, 3)), 1.0, 1, 1),
        r"reward: its prompts \(4,\) do not fit the laws' \(2,\)",
    ),
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
    "loss: a truth value": (lambda: SPIN.loss(P, Q, True), r"spin: beta=True; needed is a"),
    "loss: beta of texts": (lambda: SPIN.loss(P, Q, np.array(["1"])), r"spin: beta=array.* > 0"),
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
    # all problems at once
    "get: all at once": (lambda: get("spif", c=-1, alpha=3), ["c=-1", "alpha=3"]),
    "get: names, all at once": (lambda: get("spif", a=1, b=2), ["'a'", "'b'"]),
    "loss: all at once": (
        lambda: INPO.loss(P, Q, -1.0, gamma=2),
        ["'tau'", "'expert_anchor'", "'policy_anchor'", "'gamma'", "beta=-1.0"],
    ),
    "risk: all at once": (
        lambda: SPIN.risk(np.zeros((2, 0)), Q, 1.0, None, -Q),
        ["expert_logratio", "policy_weight"],
    ),
}


@pytest.mark.parametrize(("call", "said"), CALLS.values(), ids=CALLS)
def test_wrong_call(call: Call, said: str | list[str]) -> None:
    refused(call, said)


def test_what_looks_wrong_but_is_right() -> None:
    """Lists, numbers, one weight row for all prompts, beta per prompt."""
    assert SPIN.risk([0.1, 0.2], [0.3], 1.0, [1, 2], [1.0]).shape == ()
    assert float(SPIN.loss(0.0, 0.0, 1)) == pytest.approx(np.log(2))
    assert SPIN.risk(BATCH[0], THREE, 1.0, [1, 1, 0]).shape == (2,)
    assert SPIN.loss(BATCH[0], THREE, np.ones((2, 1))).shape == (2, 3)
    assert SPIF.link(3).shape == ()
    assert IPO.link(np.inf, 2.0) == pytest.approx(0.5)
    assert IPO.link(np.inf, 0.0) == pytest.approx(1.0)
