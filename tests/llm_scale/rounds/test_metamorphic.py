"""Changes that must not change a trajectory, and the loss at the start of a round."""

import dataclasses

import numpy as np
import pytest
import torch

from llm_scale import train as training
from llm_scale.launch import prepare
from llm_scale.models import score
from llm_scale.models.player import Machine, Player
from llm_scale.rounds import begin as rounds
from tests.llm_scale.commands import metrics
from tests.llm_scale.rounds.small import SMALL
from theory import objectives

GAMES = {
    "pairs": {"objective": "spin"},
    "several own": {"objective": "ipo", "own_samples": 2},
    "groups": {"objective": "centred_spif", "own_samples": 2, "expert_samples": 2},
    "tokens": {"objective": "spif", "level": "token"},
    "preferences": {"objective": "sppo", "oracle": "bradley-terry", "own_samples": 3},
}


def played(out, **given):
    """Losses of all steps of a run, and the responses of its last round."""
    settings = dataclasses.replace(SMALL, **given)
    made = prepare.prepare(settings)
    out.mkdir(exist_ok=True)
    parts = training.assemble(settings, out, made.language, made.task)
    seen = []
    begin = training.begin

    def kept(*arguments):
        started = begin(*arguments)
        seen.append(started.data)
        return started

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "begin", kept)
        training.train(parts)
    rows = metrics(out)
    return np.array([row["loss"] for row in rows if "loss" in row]), seen[-1]


def assert_same(found, expected):
    """Losses within 1e-5 of the largest one of their round, and exactly the same responses.

    A loss is a smooth function of differences of log-probabilities. These are sums over up to 8
    tokens of about -5 nats each, in float32: known to 40 nats * 2^-24 * (a few) = 1e-5 nats at
    worst, less in a mean over a batch. Adam divides by the gradient's own size, so where a
    gradient is rounding noise its step is not reproducible; there the loss does not depend on it
    to first order, and at this learning rate ten steps add less than the rounding itself.
    """
    losses, data = found
    first = SMALL.sft_steps
    for part in (slice(0, first), slice(first, None)):
        scale = np.abs(expected[0][part]).max()
        assert np.abs(losses[part] - expected[0][part]).max() <= 1e-5 * scale
    assert data.items == expected[1].items
    for name in ("own", "wins"):
        assert torch.equal(
            getattr(data, name, torch.ones(1)), getattr(expected[1], name, torch.ones(1))
        )


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The runs that all others are compared with."""
    return {
        name: played(tmp_path_factory.mktemp("plain"), **given) for name, given in GAMES.items()
    }


@pytest.mark.parametrize("name", GAMES)
def test_accumulation_and_the_sampler_s_batches_do_not_change_the_trajectory(name, plain, tmp_path):
    given = GAMES[name] | {"tokens_per_batch": 40, "generate_batch": 3, "checkpoint_every": 3}
    assert_same(played(tmp_path, **given), plain[name])


@pytest.mark.parametrize("name", ["pairs", "tokens"])
def test_padding_does_not_change_the_trajectory(name, plain, tmp_path, monkeypatch):
    real = score.collate

    def wider(pairs, device):
        ids, mask, where, targets = real(pairs, device)
        rows, length = ids.shape
        more = torch.full((rows, 5), 7, dtype=ids.dtype)  # a real token, only on the right
        where = where // length * (length + 5) + where % length
        return torch.cat([ids, more], 1), mask, where, targets

    for module in ("models.score", "rounds.tokens"):
        monkeypatch.setattr(f"llm_scale.{module}.collate", wider)
    assert_same(played(tmp_path, **GAMES[name]), plain[name])


@pytest.mark.parametrize("name", ["groups", "preferences"])
def test_order_within_a_step_does_not_change_the_trajectory(name, plain, tmp_path, monkeypatch):
    real = training.order
    monkeypatch.setattr(training, "order", lambda *a: real(*a)[::-1])
    assert_same(played(tmp_path, **GAMES[name]), plain[name])


def test_the_trajectory_is_not_insensitive(plain, tmp_path, monkeypatch):
    """The comparison above can fail: another order of whole steps is another trajectory."""
    real = training.order
    monkeypatch.setattr(
        training, "order", lambda seed, r, step, b, n: real(seed, r, 9 - step, b, n)
    )
    losses, data = played(tmp_path, **GAMES["pairs"])
    assert np.abs(losses - plain["pairs"][0])[SMALL.sft_steps + 1 :].max() > 1e-2
    assert data.items == plain["pairs"][1].items or SMALL.sft_steps > 0


@pytest.mark.parametrize("objective", ["spin", "dpo"])
def test_the_loss_of_spin_starts_a_round_at_ln_2(objective, tmp_path):
    """All log-ratios are 0 there: the stored log pi_t is that of the training forward pass."""
    for seed in range(2):
        made = {"objective": "spin"} if objective == "spin" else {
            "objective": "dpo", "oracle": "bradley-terry", "own_samples": 2
        }  # fmt: skip
        losses, _ = played(tmp_path / str(seed), **made, seed=seed, steps_per_round=1, rounds=2)
        starts = losses[SMALL.sft_steps :]
        np.testing.assert_allclose(starts, np.log(2.0), rtol=0, atol=1e-6)


def test_bfloat16_moves_the_first_loss_only_by_how_responses_are_batched(task, language, change):
    """In bfloat16 ln 2 is missed by 5e-5 (float32: 3e-8), as padding decides how sums round.

    Of single prompts by up to 3e-3 (float32: 2e-6).
    """
    settings, spin = change(prompts=64, max_new_tokens=24), objectives.get("spin")
    task = dataclasses.replace(task, settings=settings)
    mean, worst = {}, {}
    for dtype in (torch.float32, torch.bfloat16):
        player = Player(language, settings, Machine(torch.device("cpu"), dtype))
        data = rounds.begin(player, task.items(0), 0, spin, {}, {}).data
        off = []
        for part in torch.arange(len(data.items)).split(3):
            some = data.subset(part.tolist())
            with player.machine.precision(), torch.no_grad():
                log_probs = some.log_probs(player.scorer)
            off.append(training.losses(spin, some, log_probs, 1.0, 0.0).double() - np.log(2.0))
        mean[dtype] = abs(float(torch.cat(off).mean()))
        worst[dtype] = float(torch.cat(off).abs().max())
    assert mean[torch.float32] < 1e-6
    assert mean[torch.bfloat16] < 1e-3
    assert worst[torch.float32] < 1e-5 < worst[torch.bfloat16] < 1e-2
