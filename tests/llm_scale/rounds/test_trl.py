"""Our losses against TRL's, on the same log-probabilities (a table made by tools/trl_losses.py)."""

import json
from pathlib import Path

import pytest
import torch

from llm_scale.data.items import Item, Response
from llm_scale.rounds.sequence import Round
from llm_scale.train import losses
from theory import objectives

TABLE = json.loads((Path(__file__).with_name("trl_losses.json")).read_text())
BETAS = [0.05, 0.1, 0.5, 1.0, 5.0]
SIDES = ("chosen", "rejected")


def same(beta):
    return 1.0, 0.0


LOSSES = [
    # TRL's name, our objective, what TRL's loss is multiplied by and what is then added, and
    # whether its scores are averages over the tokens of a response
    ("sigmoid", "spin", {}, same, False),
    ("sigmoid", "dpo", {}, same, False),
    ("hinge", "spin_hinge", {}, same, False),
    ("ipo", "ipo", {"margin": 0.5}, lambda beta: (beta**2, 0.0), True),
    ("sigmoid_norm", "spin", {}, same, True),
    ("sppo_hard", "spif", {"c": 2.0}, lambda beta: (beta**2, -0.5), False),
    ("bco_pair", "airl", {}, same, False),
]


def theirs(name, beta, scale=same):
    """TRL's losses (n,), float64, in our scale."""
    factor, shift = scale(beta)
    losses = torch.tensor(
        [pair["losses"][name][str(beta)] for pair in TABLE["pairs"]], dtype=torch.float64
    )
    return factor * losses + shift


@pytest.mark.parametrize("beta", BETAS)
def test_sppo_hard_is_the_first_author_s_loss_without_its_ridge(beta):
    """1/2 (r - 1/2)^2 + 1/2 (r' + 1/2)^2 is beta^2/2 times TRL's; the ridge adds squares."""
    r, r_own = (beta * u for u in ratios(torch.float64))
    plain = 0.5 * (r - 0.5).square() + 0.5 * (r_own + 0.5).square()
    scaled = beta**2 / 2 * theirs("sppo_hard", beta)
    torch.testing.assert_close(plain, scaled, rtol=1e-5, atol=1e-6)  # TRL's are of float32
    spif = objectives.get("spif", c=2.02).loss(r / beta, r_own / beta, beta)
    ridge = plain + 0.005 * (r.square() + r_own.square())
    torch.testing.assert_close(ridge, 0.5 * spif + 0.25, rtol=1e-12, atol=1e-12)


def ratios(dtype, averaged=False):
    """Log-ratios (n,) of chosen and rejected responses; averaged over their tokens if so."""
    out = []
    for side in SIDES:
        pairs = [(p[side], p[f"ref_{side}"]) for p in TABLE["pairs"]]
        sums = [
            (torch.tensor(new, dtype=dtype).sum() - torch.tensor(ref, dtype=dtype).sum())
            / (len(new) if averaged else 1)
            for new, ref in pairs
        ]
        out.append(torch.stack(sums))
    return out


def the_round():
    """The table's pairs as the trainer's data, and ``log pi_theta`` of all responses."""
    prompt = (1,)
    items, opponent, new = [], [], []
    for i, pair in enumerate(TABLE["pairs"]):
        expert, own = (Response((0,) * len(pair[side]), False) for side in SIDES)
        items.append(Item(i, prompt, (expert,), (own,)))
        opponent += [sum(pair[f"ref_{side}"]) for side in SIDES]
        new += [sum(pair[side]) for side in SIDES]
    stored = torch.tensor(opponent)
    return Round(items, stored, stored, torch.empty(0)), torch.tensor(new)


def test_the_table_is_trl_1_16s():
    assert TABLE["trl"] == "1.16.0"
    assert len(TABLE["pairs"]) == 32
    assert {case[0] for case in LOSSES} | {"sft"} == set(TABLE["pairs"][0]["losses"])


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(("trl", "ours", "parameters", "scale", "averaged"), LOSSES)
def test_losses_are_trls(trl, ours, parameters, scale, averaged, beta):
    expert, own = ratios(torch.float64, averaged)
    found = objectives.get(ours, **parameters).loss(expert, own, beta)
    torch.testing.assert_close(found, theirs(trl, beta, scale), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(
    ("trl", "ours", "parameters", "scale"), [case[:4] for case in LOSSES if not case[4]]
)
def test_the_trainers_losses_are_trls_in_float32(trl, ours, parameters, scale, beta):
    data, new = the_round()
    found = losses(objectives.get(ours, **parameters), data, new, beta, 0.0)
    assert found.dtype == torch.float32
    # SPIF is a difference of two numbers of this size, as TRL's loss less 1/2 is
    size = 0.5 if trl == "sppo_hard" else 0.0
    torch.testing.assert_close(
        found.double(), theirs(trl, beta, scale), rtol=1e-6, atol=1e-6 * size
    )


@pytest.mark.parametrize("beta", [0.5, 1.0, 5.0])
def test_trls_ipo_is_not_that_of_whole_responses(beta):
    expected = theirs("ipo", beta, lambda b: (b**2, 0.0))
    summed = objectives.get("ipo", margin=0.5).loss(*ratios(torch.float64), beta)
    assert (summed / expected - 1.0).abs().median() > 0.5


def test_trls_sft_term_is_a_mean_over_tokens_and_ours_a_sum():
    data, new = the_round()
    lengths = torch.tensor([len(pair["chosen"]) for pair in TABLE["pairs"]])
    expected = theirs("sft", 1.0) * lengths
    torch.testing.assert_close(
        losses(None, data, new, 1.0, 0.0).double(), expected, rtol=1e-6, atol=0.0
    )
