"""T15: the first gradient of a round is that of supervised fine-tuning, in any model class."""

import numpy as np
import pytest
import sympy as sp

from tests.theory.symbolic.algebra import array, exact, risk, sign, symbolic, vanishes, weights
from theory import objectives

BETA = sp.Symbol("beta", positive=True)
THETA = sp.Symbol("theta", real=True)
NAMES = objectives.names()
LOSSES = [n for n in NAMES if objectives.get(n).missing("risk") is None and n != "tspin"]
HALF = sp.Rational(1, 2)
MARGIN, MU = sp.symbols("margin mu", positive=True)
FACTOR = {  # of -beta E_p grad log pi
    **dict.fromkeys(["spif", "iq_learn", "policy_only", "nwj", "exponential", "sppo"], 1),
    **dict.fromkeys(["spin_hinge", "spin_exponential", "centred_spif", "renyi"], 1),
    **dict.fromkeys(["airl", "spin", "dpo", "alpha_spin"], HALF),
    **dict.fromkeys(["ipo", "inpo"], 2 * MARGIN),
    "brier": HALF**2,
    "space": MU / (1 + MU),
}


def softmax_path(n):
    """A policy with log pi = log q + theta phi - log Z: any smooth model, along one direction."""
    q, phi = weights("q", n), array(*sp.symbols(f"f1:{n + 1}", real=True))
    tilt = array(*(sp.exp(THETA * f) for f in phi))
    return q / sum(q), phi, q * tilt / sum(q * tilt)


def at_start(e):
    return sp.diff(exact(e), THETA).subs(THETA, 0)


def test_expected_score_is_zero():
    logits = sp.symbols("z1:4", real=True)
    policy = [sp.exp(z) / sum(map(sp.exp, logits)) for z in logits]
    for z in logits:
        score = sum(w * sp.diff(sp.log(w), z) for w in policy)
        assert vanishes(score), "E_q grad log q = 0 (softmax over 3 outcomes)"
    law, _, policy = softmax_path(3)
    score = sum(w * at_start(sp.log(x)) for w, x in zip(law, policy, strict=True))
    assert vanishes(score), "and along any direction in parameter space"


def test_the_table_has_every_loss():
    assert set(FACTOR) == set(LOSSES)


@pytest.mark.claim("T15.first_gradient", regime="symbolic")
@pytest.mark.parametrize("name", FACTOR)
def test_first_gradient_is_the_supervised_one(name, claim):
    obj = symbolic(name)
    labels = {"expert_preference": 1, "policy_preference": 0} if "preference" in obj.needs else {}
    p = weights("p", 3)
    law, _, policy = softmax_path(3)
    rewards = BETA * array(*(sp.log(x / w) for w, x in zip(law, policy, strict=True)))
    found = at_start(risk(obj, rewards, p, law, **labels))
    supervised = sum(w * at_start(sp.log(x)) for w, x in zip(p / sum(p), policy, strict=True))
    claim.exact(
        vanishes(found + FACTOR[name] * BETA * supervised),
        "d risk/d theta at theta_t = -factor beta E_p grad log pi (softmax, 3 outcomes)",
    )
    claim.exact(sign(FACTOR[name]) == 1, "a positive factor")


@pytest.mark.claim("T15.first_gradient", regime="symbolic", drops="own_reference")
@pytest.mark.parametrize("case", ["tspin", "anchor", "opponent"])
def test_other_references_leave_the_supervised_gradient(case, claim):
    """At p = pi_t the supervised gradient is 0; these gradients are not (rational instance)."""
    law, phi, policy = softmax_path(3)
    rng = np.random.default_rng(0)
    at = {s: sp.Rational(int(k), 7) for s, k in
          zip([*weights("q", 3), *phi], rng.permutation(range(1, 7)), strict=True)}  # fmt: skip
    own, moved = array(*(w.subs(at) for w in law)), array(*(x.subs(at) for x in policy))
    other = array(HALF, HALF / 2, HALF / 2)
    logs = {
        "tspin": [sp.log(x) for x in moved],
        "anchor": [
            2 * sp.log(x) - sp.log(w) - sp.log(o) for x, w, o in zip(moved, own, other, strict=True)
        ],
        "opponent": [sp.log(x / o) for x, o in zip(moved, other, strict=True)],
    }
    rewards = array(*logs[case])
    found = at_start(risk(symbolic("spin"), rewards, own, own))
    supervised = sum(w * at_start(sp.log(x)) for w, x in zip(own, moved, strict=True))
    claim.exact(vanishes(supervised), "the expert's law is stationary for the likelihood")
    claim.exact(not vanishes(found), f"{case}: but not for the round")


@pytest.mark.claim("T15.win_rate", regime="symbolic")
def test_with_preferences_it_is_the_policy_gradient_of_the_win_rate(claim):
    law, _, policy = softmax_path(3)
    wins = sp.symbols("w1:4", positive=True)  # P(y > pi_t)
    winners = 2 * law * array(*wins)
    supervised = sum(w * at_start(sp.log(x)) for w, x in zip(winners, policy, strict=True))
    win_rate = at_start(sum(x * w for x, w in zip(policy, wins, strict=True)))
    claim.exact(vanishes(supervised - 2 * win_rate), "E_winners grad log pi = 2 grad P(pi > pi_t)")
