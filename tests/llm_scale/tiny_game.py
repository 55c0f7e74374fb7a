"""A game of three words and three tokens: every response and every prefix can be listed."""

import itertools

import numpy as np
import torch

from lab.specs import objective_of
from llm_scale import models
from llm_scale.data import oracles
from llm_scale.data.experts import Ngram
from llm_scale.data.tasks import KnownExpert
from llm_scale.models import weights
from llm_scale.models.player import Machine, Player
from llm_scale.rounds.batches import order
from llm_scale.rounds.begin import begin
from llm_scale.settings import Settings
from llm_scale.train import losses

WORDS, HORIZON = 3, 3
PROMPT = (0,)
"""A token that no response begins with: attention to copies of one token cannot count them, so a
model would see the prompt "a" and the prefix "a a" as one."""
PREFIXES = [
    w for h in range(HORIZON) for w in itertools.product(range(1, WORDS + 1), repeat=h)
]  # in the order of TokenMDP.tree's states
RESPONSES = [(*w, 0) for w in PREFIXES] + list(
    itertools.product(range(1, WORDS + 1), repeat=HORIZON)
)


def settings(**given):
    known = {"max_new_tokens": HORIZON, "held_out": 4, "device": "cpu", "prompts": 64}
    return Settings(**known | given)


def task(s):
    """An expert that repeats patterns, with some freedom."""
    texts = [(1, 2), (2, 3), (1, 1, 2), (3,), (3, 3), (2, 2, 1), (1,), (2, 1, 3)]
    texts = [PROMPT + text for text in texts]
    return KnownExpert(
        models.word_tokenizer(["a", "b", "c"]), Ngram(texts, WORDS + 1, 0, 2, 0.5), (PROMPT,), s
    )


def player(s, width=64):
    language = models.tiny(task(s).tokenizer, s.seed, torch.device("cpu"), width=width, layers=1)
    with torch.no_grad():  # less uniform than at initialisation
        for parameter in language.model.parameters():
            parameter.mul_(2.0 if parameter.ndim > 1 else 1.0)
    return Player(language, s, Machine.of(s))


def start(who, judge=None):
    """The first round's data; ``judge`` overrides the oracle of the settings."""
    s, known = who.settings, task(who.settings)
    oracle = judge or oracles.build(s.oracle, known.expert, known.tokenizer)
    base = weights.copy_of(who.language)
    return begin(who, known.items(0), 0, objective_of(s.objective), base, base, oracle)


def train(who, data, steps, lr=1e-2):
    """A round of AdamW, its rate going to 0."""
    s, objective = who.settings, objective_of(who.settings.objective)
    optimiser = torch.optim.AdamW(who.language.model.parameters(), weight_decay=0.0)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * (1.0 - step / steps)
        some = data.subset(order(s.seed, 0, step, s.batch, len(data.items)))
        each = losses(objective, some, some.log_probs(who.scorer), s.beta, s.tau)
        optimiser.zero_grad()
        each.mean().backward()
        optimiser.step()


def log_law(who):
    """``log pi(y)`` of all responses, float64, normalised."""
    found = who.score([(PROMPT, r) for r in RESPONSES]).double().numpy()
    return found - np.logaddexp.reduce(found)


def log_policy(who):
    """``log pi(a|s)`` (prefixes, tokens), float64."""
    from llm_scale.measure.tokens import next_log_laws

    longest = [p for p in RESPONSES if len(p) == HORIZON and 0 not in p]
    (table,) = next_log_laws([who], [(PROMPT, r) for r in longest])
    table = table.reshape(len(longest), HORIZON, -1)
    rows = {r[:h]: table[i, h] for i, r in enumerate(longest) for h in range(HORIZON)}
    return np.stack([rows[p] for p in PREFIXES])


def gradient(who, each):
    """Gradient of the mean loss as one vector, float64."""
    who.language.model.zero_grad()
    each.mean().backward(retain_graph=True)
    parts = [p.grad.flatten().double() for p in who.language.model.parameters()]
    who.language.model.zero_grad()
    return torch.cat(parts)


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def fit(x, y, weight):
    """Weighted slope and correlation of y on x, centred."""
    x, y = (v - (weight * v).sum() for v in (x, y))
    xy, xx, yy = ((weight * v).sum() for v in (x * y, x * x, y * y))
    return xy / xx, xy / np.sqrt(xx * yy)
