"""What the theory says of the first gradient of a round (T15)."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lab import streams
from llm_scale import train as training
from llm_scale.data.items import Response
from llm_scale.launch import prepare
from llm_scale.models import score
from llm_scale.models.sample import generate
from llm_scale.rounds.sequence import Round
from tests.llm_scale.rounds.small import SMALL
from theory import objectives

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
