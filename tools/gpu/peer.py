"""The same round as a reader would write it: transformers' generate, then plain steps of DPO.

A second model in memory is the reference. Prompts, pairs, batches, precision, clipping and
optimiser are those of the trainer; pairs are padded to the longest of a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor

from llm_scale import models
from llm_scale.data.items import Item, Tokens
from llm_scale.models.player import Machine
from llm_scale.models.score import Pair
from llm_scale.rounds.batches import order
from llm_scale.settings import Settings
from tools.gpu.bench import ENDLESS
from tools.gpu.clock import Stopwatch, peak_gib, reset_peak
from tools.gpu.ours import STILL, Timed, tokens_of


def round_of_peer(
    language: models.Language, items: Sequence[Item], settings: Settings, machine: Machine
) -> Timed:
    """A round on the items' prompts and pairs (expert, own), timed."""
    policy, s = language.model, settings
    reference = copy.deepcopy(policy).requires_grad_(False)
    prompts = sorted((item.prompt for item in items), key=len)
    batches = [prompts[i : i + s.generate_batch] for i in range(0, len(prompts), s.generate_batch)]

    def optimiser(rate: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            policy.parameters(), lr=rate, weight_decay=s.weight_decay, fused=True
        )

    def step(number: int, stepper: torch.optim.Optimizer) -> float:
        chosen = [items[i] for i in order(s.seed, 0, number, s.batch, len(items))]
        with machine.precision():
            loss = dpo_loss(policy, reference, chosen, s.beta)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), s.clip)
        stepper.step()
        stepper.zero_grad(set_to_none=True)
        return float(loss.detach())

    draw(language, machine, batches[-1], 2)  # warm
    step(0, optimiser(STILL))
    watch = Stopwatch(machine.device)
    reset_peak(machine.device)
    with watch("round"):
        with watch("generation"):
            generated = sum(draw(language, machine, some, s.max_new_tokens) for some in batches)
        stepper = optimiser(s.lr)
        with watch("training"):
            losses = [step(number, stepper) for number in range(s.steps_per_round)]
    epochs = s.steps_per_round * s.batch / len(items)
    trained = round(epochs * sum(map(tokens_of, items)))
    return Timed(
        seconds={**watch.seen, "scoring": 0.0},  # the reference's passes are within the steps
        generated=generated,
        trained=trained,
        sent=trained,
        answered=round(epochs * sum(len(r.tokens) for i in items for r in i.responses)),
        steps=s.steps_per_round,
        first_loss=losses[0],
        peak_gib=peak_gib(machine.device),
    )


def dpo_loss(policy: Any, reference: Any, items: Sequence[Item], beta: float) -> Tensor:
    """Mean of ``-log s(beta (log-ratio of the expert's less that of the own response))``."""
    pairs = [(i.prompt, i.expert[0].tokens) for i in items]
    pairs += [(i.prompt, i.own[0].tokens) for i in items]
    device = next(policy.parameters()).device
    ids, mask, response = (t.to(device) for t in padded(pairs))
    with torch.no_grad():
        fixed = log_probs(reference, ids, mask, response)
    chosen, rejected = (log_probs(policy, ids, mask, response) - fixed).chunk(2)
    return -nnf.logsigmoid(beta * (chosen - rejected)).mean()


def log_probs(model: Any, ids: Tensor, mask: Tensor, response: Tensor) -> Tensor:
    """``log pi`` (B,) of the tokens (B, L) that are of the response, from all logits."""
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    each = nnf.cross_entropy(
        logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    ).view(len(ids), -1)
    return -(each * response[:, 1:]).sum(-1)


def padded(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (B, L), padded on the right; which are no padding; which are of the response."""
    longest = max(len(p) + len(r) for p, r in pairs)
    ids = torch.tensor([[*p, *r, *(0,) * (longest - len(p) - len(r))] for p, r in pairs])
    prompt, whole = torch.tensor([(len(p), len(p) + len(r)) for p, r in pairs]).T[..., None]
    at = torch.arange(longest)
    return ids, (at < whole).long(), ((at >= prompt) & (at < whole)).float()


def draw(
    language: models.Language, machine: Machine, prompts: Sequence[Tokens], horizon: int
) -> int:
    """Sample by transformers at temperature 1 from whole laws; tokens, the end included."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    ends = None if language.ends == ENDLESS else list(language.ends)
    model = language.model
    model.generation_config.eos_token_id = ends
    with torch.no_grad(), machine.precision():
        out = model.generate(
            input_ids=ids.to(machine.device), attention_mask=mask.to(machine.device),
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=horizon,
            eos_token_id=ends, pad_token_id=0,
        )[:, longest:]  # fmt: skip
    stop = torch.isin(out, torch.tensor(language.ends, device=out.device)).long()
    return int((stop.cumsum(1) - stop == 0).sum())
