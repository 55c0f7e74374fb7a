"""Changes that must change nothing, and what the theory says of the first gradient of a round."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab import streams
from llm_scale import models
from llm_scale import train as training
from llm_scale.data.items import Item, Response
from llm_scale.data.prompts import format_prompt
from llm_scale.data.user_file import pair_file
from llm_scale.launch import prepare
from llm_scale.launch.evaluate import Opened, responses
from llm_scale.models import score
from llm_scale.models.player import Machine, Player
from llm_scale.models.sample import generate
from llm_scale.rounds import begin as rounds
from llm_scale.rounds.sequence import Round
from llm_scale.settings import Settings
from tests.llm_scale.commands import metrics
from theory import objectives

SMALL = Settings(
    prompts=24, held_out=0, rounds=1, steps_per_round=10, batch=8, sft_steps=2, cosines=0,
    max_new_tokens=8,
    device="cpu",
)  # fmt: skip
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


# -- the start of a round ------------------------------------------------------------------------


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


# -- the first gradient of a round (T15) ---------------------------------------------------------

HORIZON = 3


class First:
    """A model after a short SFT, in float64, with gradients of log-probabilities."""

    def __init__(self, out: Path, prompts: int) -> None:
        self.settings = dataclasses.replace(
            SMALL, prompts=1500, rounds=0, sft_steps=40, batch=24, lr=5e-3, max_new_tokens=HORIZON
        )
        made = prepare.prepare(self.settings)
        training.train(training.assemble(self.settings, out, made.language, made.task))
        self.language = made.language
        self.items = dataclasses.replace(
            made.task, settings=dataclasses.replace(self.settings, prompts=prompts)
        ).items(7)
        self.sampler = made.language.model.eval()
        self.model = LinearScorer(made.language.model)
        self.parameters = list(self.model.parameters())
        self.expert = self.gradient([(i.prompt, i.expert[0].tokens) for i in self.items])

    def gradient(self, pairs):
        """Mean gradient of ``log pi(y|x)``, flat."""
        found = torch.autograd.grad(self.model(pairs).mean(), self.parameters)
        return torch.cat([g.flatten() for g in found])

    def along(self, pairs, direction, step=1e-3):
        """Derivatives (n,) of every ``log pi(y|x)`` along a direction, by central differences."""
        sizes = [p.numel() for p in self.parameters]
        ends = []
        with torch.no_grad():
            for sign in (1, -1):
                shift = [sign * step * d for d in direction.split(sizes)]
                for p, d in zip(self.parameters, shift, strict=True):
                    p += d.reshape(p.shape)
                ends.append(self.model(pairs))
                for p, d in zip(self.parameters, shift, strict=True):
                    p -= d.reshape(p.shape)
        return ((ends[0] - ends[1]) / (2 * step)).numpy()

    def own(self, seed, temperature=1.0, items=None):
        """(prompt, response, truncated) of one sample a prompt."""
        items = self.items if items is None else items
        model = self.sampler if temperature == 1.0 else Tempered(self.sampler, temperature)
        drawn, _ = generate(
            [model], [i.prompt for i in items],
            lambda j: streams.uniform(HORIZON, seed, "own", 0, j), HORIZON, self.language.ends, 512,
        )  # fmt: skip
        return [(i.prompt, r.tokens, r.truncated) for i, r in zip(items, drawn, strict=True)]


class LinearScorer(nn.Module):
    """Sequence log-probabilities in float64 (but for Llama's norms, always in float32)."""

    def __init__(self, model) -> None:
        super().__init__()
        import copy

        self.model = copy.deepcopy(model).double()

    def forward(self, pairs):
        ids, mask, where, targets = score.collate(pairs, torch.device("cpu"))
        logits = self.model(input_ids=ids, attention_mask=mask).logits.flatten(0, 1)[where]
        tokens = logits.log_softmax(-1).gather(-1, targets)[:, 0]
        rows = torch.tensor([len(r) for _, r in pairs])
        index = torch.repeat_interleave(torch.arange(len(pairs)), rows)
        return torch.zeros(len(pairs), dtype=torch.float64).index_add(0, index, tokens)


class Tempered(nn.Module):
    """The sampler that theory forbids."""

    def __init__(self, model, temperature) -> None:
        super().__init__()
        self.model, self.temperature, self.config = model, temperature, model.config

    def forward(self, **inputs):
        out = self.model(**inputs)
        out.logits = out.logits / self.temperature
        return out


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return First(tmp_path_factory.mktemp("first"), prompts=1500)


@pytest.fixture(scope="module")
def direction(first):
    return first.expert / first.expert.norm()


def share(first, direction, samples):
    """Mean component of own gradients along SFT's over SFT's own, and its standard error."""
    found = first.along([(p, r) for p, r, _ in samples], direction) / float(first.expert.norm())
    return found.mean(), found.std(ddof=1) / np.sqrt(len(found))


def own_gradients(first, items, seeds, temperature=1.0):
    """(seeds, P): mean gradients of one own response to every item."""
    drawn = [first.own(seed, temperature, items) for seed in seeds]
    return torch.stack([first.gradient([(p, r) for p, r, _ in samples]) for samples in drawn])


def independence(gradients):
    """z of the hypothesis that independent gradients (k, P) have mean 0.

    Under mean 0 the sum over i != j of their inner products has mean 0 and variance twice the sum
    of their squares; z is their ratio.
    """
    gram = (gradients @ gradients.T).numpy()
    off = gram[~np.eye(len(gram), dtype=bool)]
    return float(off.sum() / np.sqrt(2.0 * np.square(off).sum()))


@pytest.mark.claim("T15.first_gradient", "S7.first_gradient", regime="listed", of="identities")
def test_own_samples_do_not_push_along_the_sft_gradient(claim, first, direction):
    """``E_{pi_t} grad log pi_t = 0``, truncated responses included: 7500 samples of 5 seeds."""
    found = [share(first, direction, first.own(seed)) for seed in range(5)]
    mean = np.mean([m for m, _ in found])
    error = np.sqrt(np.mean([e**2 for _, e in found]) / len(found))
    assert error < 0.03, "the interval is narrow enough to say something"
    what = "component of own gradients along SFT's, in units of SFT's (99.7 % interval)"
    claim.close(mean, 0.0, atol=3 * error, what=what, because="sampling")
    for m, e in found:
        what = "the same for a single seed, 4 standard errors"
        claim.close(m, 0.0, atol=4 * e, what=what, because="sampling")


@pytest.mark.claim(
    "T15.first_gradient",
    "S7.first_gradient",
    regime="listed",
    drops="own_from_current",
    of="identities",
)
@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_another_temperature_pushes(claim, first, temperature):
    """In some direction: towards likely tokens or away from them, along SFT's or not."""
    own = own_gradients(first, first.items[:100], range(12), temperature)
    what = "mean own gradient, z of a U-statistic"
    claim.exhibits(independence(own), 5.0, what=what, because="sampling")


@pytest.mark.claim(
    "T15.first_gradient",
    "S7.first_gradient",
    regime="listed",
    drops="own_from_current",
    of="identities",
)
def test_a_false_eos_pushes(claim, first, direction):
    """Without it the mean is 0; so what it adds is the whole of what remains."""
    samples = first.own(0)
    ended = [(p, (*r, first.language.eos)) for p, r, cut in samples if cut]
    plain = [(p, r) for p, r, cut in samples if cut]
    added = first.along(ended, direction) - first.along(plain, direction)
    added = np.concatenate([added, np.zeros(len(samples) - len(added))])
    error = added.std(ddof=1) / np.sqrt(len(added))
    what = "component along SFT, in standard errors"
    claim.exhibits(abs(added.mean()) / error, 5.0, what=what, because="sampling")


@pytest.mark.claim("T15.first_gradient", "S7.first_gradient", regime="listed", of="identities")
def test_the_whole_first_gradient_turns_to_sft_s_with_more_own_samples(claim, first):
    """In no direction do own samples push: K responses to each of 100 prompts, K up to 48."""
    items = first.items[:100]
    expert = first.gradient([(i.prompt, i.expert[0].tokens) for i in items])
    own = own_gradients(first, items, range(10, 58))
    what = "mean own gradient, z of a U-statistic"
    claim.close(independence(own), 0.0, atol=3.0, what=what, because="sampling")

    def cosine(count):
        """Mean over groups of ``count`` samples of the cosine of the loss's gradient with SFT's."""
        played = expert - own.reshape(-1, count, own.shape[1]).mean(1)
        return float(torch.cosine_similarity(played, expert[None]).mean())

    noise_share = float(own.square().sum(1).mean() / expert.square().sum())
    for count in (4, 12, 48):
        predicted = 1.0 / np.sqrt(1.0 + noise_share / count)
        spread = 0.5 * noise_share / count  # of 48/count groups, each of few directions
        what = f"cosine to SFT at K={count}"
        claim.close(cosine(count), predicted, atol=spread, what=what, because="sampling")
    claim.exhibits(cosine(48), 0.95, what="cosine to SFT at K=48")


@pytest.mark.parametrize(
    ("name", "own"),
    [("spin", 1), ("spif", 2), ("ipo", 1), ("airl", 1), ("nwj", 1), ("exponential", 1),
     ("policy_only", 1), ("iq_learn", 1), ("centred_spif", 3)],
)  # fmt: skip
def test_the_first_gradient_is_that_of_sft_less_that_of_own_samples(first, name, own):
    """Of the trainer's loss: ``beta (R'_p grad E_p log pi + R'_q grad E_q log pi)`` at r = 0."""
    objective, beta = objectives.get(name), 0.7
    zero = [torch.zeros(1, n, dtype=torch.float64, requires_grad=True) for n in (1, own)]
    slopes = torch.autograd.grad(objective.risk(*zero, beta).sum(), zero)
    slope = [float(s.sum()) for s in slopes]
    assert slope[0] < 0 < slope[1]
    items = first.items[:20]
    drawn = [first.own(seed, items=items) for seed in range(own)]
    full = [
        dataclasses.replace(item, own=tuple(Response(r, cut) for _, r, cut in each))
        for item, each in zip(items, zip(*drawn, strict=True), strict=True)
    ]
    pairs = [(i.prompt, r.tokens) for i in full for r in i.responses]
    with torch.no_grad():
        current = first.model(pairs)
    data = Round(full, current, current, torch.empty(0))
    loss = training.losses(objective, data, first.model(pairs), beta, 0.0).mean()
    found = torch.cat([g.flatten() for g in torch.autograd.grad(loss, first.parameters)])
    sides = [
        first.gradient([(i.prompt, r.tokens) for i in full for r in getattr(i, side)])
        for side in ("expert", "own")
    ]
    predicted = slope[0] * sides[0] + slope[1] * sides[1]
    size = float(predicted.norm())
    assert float((found - predicted).norm()) / size <= 1e-6


# -- prompts, ends, lengths ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A byte-level model whose pad is its EOS, with a chat template that says something."""
    path = tmp_path_factory.mktemp("model")
    texts = ["thou art gone", "he said unto them", "and they went out"] * 3
    tokenizer = models.byte_tokenizer(texts, 270)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}:"
    models.save(models.tiny(tokenizer, 3, torch.device("cpu"), width=16, layers=1), path)
    return path


@pytest.mark.parametrize("style", ["chat", "plain", "auto"])
def test_one_prompt_format_for_generation_and_for_training(directory, style, tmp_path, monkeypatch):
    """What the sampler sees, what the loss sees and what `generate` sees is the same text."""
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"say {i}", "response": "thou art gone"} for i in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = dataclasses.replace(
        SMALL, model=str(directory), task=str(path), prompt_style=style, batch=2, max_new_tokens=5
    )
    made = prepare.prepare(settings)
    sampled, scored = set(), set()
    real_sample, real_collate = Player.sample, score.collate
    monkeypatch.setattr(
        Player,
        "sample",
        lambda s, p, *a, **k: sampled.update(map(tuple, p)) or real_sample(s, p, *a, **k),
    )

    def collate(pairs, device):
        scored.update(p for p, _ in pairs)
        return real_collate(pairs, device)

    monkeypatch.setattr(score, "collate", collate)
    training.train(training.assemble(settings, tmp_path, made.language, made.task))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    text = {"plain": "say {}\n"}.get(style, "<user> say {} :")
    expected = {tuple(tokenizer(text.format(i))["input_ids"]) for i in range(6)}
    assert sampled == scored == expected
    sampled.clear()
    opened = Opened(Player(made.language, settings, made.machine), settings, "")
    responses(opened, [row["prompt"] for row in rows], 1, 0)
    assert sampled == expected


def test_the_known_expert_s_prompts_are_formatted_as_a_user_s(task):
    words = task.tokenizer.decode(task.prompts[0])
    assert tuple(format_prompt(task.tokenizer, words)) == task.prompts[0]


def test_a_response_that_is_cut_is_trained_without_an_eos(directory, tmp_path):
    path = tmp_path / "pairs.jsonl"
    texts = ["go", "thou art gone and they went out"]
    path.write_text("".join(json.dumps({"prompt": "say", "response": t}) + "\n" for t in texts))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    settings = dataclasses.replace(SMALL, task=str(path), max_new_tokens=6)
    short, long = pair_file(path, tokenizer, settings).pairs
    assert short.expert[0] == Response(
        (*tokenizer("go")["input_ids"], tokenizer.eos_token_id), False
    )
    assert long.expert[0] == Response(tuple(tokenizer(texts[1])["input_ids"][:6]), True)
    exact = dataclasses.replace(settings, max_new_tokens=len(short.expert[0].tokens) - 1)
    cut = pair_file(path, tokenizer, exact).pairs[0].expert[0]
    assert cut == Response(tuple(tokenizer("go")["input_ids"]), True), "its EOS itself is cut off"


def test_length_is_not_normalised(directory):
    """IPO on sums of token log-probabilities, of plain transformers, at unequal lengths."""
    model = AutoModelForCausalLM.from_pretrained(directory)
    winner, loser = (5, 9, 11, 40, 8, 0), (7, 0)
    item = Item(0, (1, 2), (Response(winner, False),), (Response(loser, False),))
    stored = torch.tensor([-30.0, -12.0])
    data = Round([item], stored, stored, torch.empty(0))
    objective, beta = objectives.get("ipo", margin=0.5), 0.3

    def total(response):
        ids = torch.tensor([[1, 2, *response]])
        with torch.no_grad():
            laws = model(input_ids=ids).logits[0].log_softmax(-1)
        return sum(float(laws[1 + i, t]) for i, t in enumerate(response))

    scorer = score.Scorer(model)
    found = float(training.losses(objective, data, data.log_probs(scorer), beta, 0.0).detach())
    margin = beta * ((total(winner) + 30.0) - (total(loser) + 12.0))
    assert found == pytest.approx((margin - 0.5) ** 2, rel=1e-5)


def test_an_eos_that_also_pads_is_learned_and_seen(directory):
    """Masks are lengths: EOS is a target where it ends a response, and a token in a prompt."""
    model = AutoModelForCausalLM.from_pretrained(directory)
    eos = model.config.eos_token_id
    assert model.config.pad_token_id == eos
    scorer = score.Scorer(model)
    pairs = [((3, eos, 4), (5, 6, eos)), ((eos, eos, 2, 7, 9), (8,))]
    both = score.sequence_log_probs(scorer, pairs)
    for (prompt, response), found in zip(pairs, both, strict=True):
        with torch.no_grad():
            laws = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
        at = range(len(prompt) - 1, len(prompt) + len(response) - 1)
        parts = [float(laws[i, t]) for i, t in zip(at, response, strict=True)]
        assert float(found.detach()) == pytest.approx(sum(parts), abs=1e-5)
    both[0].backward()
    gradient = model.get_input_embeddings().weight.grad[eos]
    assert float(gradient.abs().max()) > 0


def test_prompts_with_the_padding_s_token_are_sampled_as_when_alone(directory):
    model = AutoModelForCausalLM.from_pretrained(directory)
    eos = model.config.eos_token_id
    prompts = [(eos, 3), (4, eos, eos, 9, 7), (6,), (eos,)] * 3

    def number(i):
        return streams.uniform(6, 0, "own", 0, i)

    whole, _ = generate([model], prompts, number, 6, (eos,))
    alone = [
        generate([model], [p], lambda _, i=i: number(i), 6, (eos,))[0][0]
        for i, p in enumerate(prompts)
    ]
    assert whole == alone
