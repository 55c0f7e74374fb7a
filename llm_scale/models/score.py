"""Log-probabilities of responses, without a tensor of batch x length x vocabulary.

Only the hidden states that predict a response token reach the output layer, in chunks; several are
computed again in the backward pass, so that logits in float32 exist for one chunk at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llm_scale.data.items import Tokens
from llm_scale.models import output
from llm_scale.models.shared_prompts import (
    SHARED_FROM,
    Pair,
    collate_shared,
    row_length,
    shared_rows,
)
from theory.errors import InvalidInput

CHUNK_LOGITS = 2**24
"""Logits of one chunk: 64 MiB in float32."""

ENLARGED = 100.0
"""Factor of hidden states in `Scorer`'s second look at a model."""


SAME = 3e-4
"""Relative error (root mean square) of hidden states up to which two ways are one.

Another kernel rounds elsewhere: 1e-5 in float32 on a model of 30 layers, single entries ten times
that. Masks or positions that are not seen make 2e-3 or more, on small new models too.
"""


class Scorer(nn.Module):
    """A causal LM as a function from (prompt, response) pairs to token log-probabilities.

    A module of its own, so that torch's distributed wrappers see the whole computation.
    """

    def __init__(self, model: Any, shares_prompts: bool | None = None) -> None:
        """Wrap a transformers model; refuse one whose logits are not its output layer's.

        ``shares_prompts`` is found out, unless it is known of the same model with other weights.
        """
        super().__init__()
        self.model = model
        if shares_prompts is None:
            self._probe()
        self.shares_prompts = self._can_share() if shares_prompts is None else shares_prompts

    def _probe(self) -> None:
        """Compare with transformers' own logits: a model may change them in ways unknown here.

        Hidden states are also compared enlarged: a cap does not show on a new model's small logits.
        """
        device = next(self.model.parameters()).device
        ids = torch.arange(4, device=device)[None] % output.vocabulary(self.model)
        head = self.model.get_output_embeddings()
        if head is None:
            raise InvalidInput(f"{type(self.model).__name__} has no output layer over tokens")
        size = 1.0
        handle = head.register_forward_pre_hook(lambda _module, given: (size * given[0],))
        try:
            for size in (1.0, ENLARGED):
                with torch.no_grad():
                    own = self.model(input_ids=ids).logits.float()
                    ours = output.logits(self.model, output.states(self.model, ids)).float()
                if not torch.allclose(own, ours, rtol=1e-4, atol=1e-4 * size):
                    apart = float((own - ours).abs().max())
                    raise InvalidInput(
                        f"{type(self.model).__name__} changes its logits in a way that is not in "
                        f"its configuration (by up to {apart:.2g}), which the trainer does not "
                        "support"
                    )
        finally:
            handle.remove()

    def _can_share(self) -> bool:
        """Whether the model sees exactly what a mask shows it (see `collate_shared`)."""
        config = output.text_config(self.model)
        attention = getattr(config, "_attn_implementation", "")
        if attention != "sdpa" or getattr(config, "sliding_window", None):
            return False
        device = next(self.model.parameters()).device
        tokens = tuple(i % output.vocabulary(self.model) for i in range(SHARED_FROM))
        pairs = [(tokens, tokens[a:b]) for a, b in ((0, 3), (5, 7), (2, 3))]
        try:
            with torch.no_grad():
                single = [
                    output.states(self.model, torch.tensor([[*p, *r]], device=device))
                    for p, r in pairs
                ]
                shared = self.hidden(*collate_shared(pairs, device)[:3])
        except Exception:  # whatever a class raises that knows no such mask
            return False
        alone = torch.cat([hidden[0, len(tokens) - 1 : -1] for hidden in single])
        off, size = (x.square().mean().sqrt() for x in (shared - alone, alone))
        return bool(off <= SAME * size)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None,
        where: Tensor,
        targets: Tensor,
        smoothing: float = 0.0,
    ) -> Tensor:
        """Log-probabilities (T, m) of ``targets`` (T, m) at flat positions ``where`` (T,).

        Args:
            ids: (B, L) tokens, padded on the right.
            mask: (B, L, L), true where the first sees the second; None is causal, and padding on
                the right is not seen then.
            where: flat indices (of B x L) whose hidden state predicts the targets.
            targets: m candidate tokens for each.
            smoothing: share of the mean log-probability of all tokens in the place of the target's.
        """
        return self._log_probs(self.hidden(ids, mask, where), targets, smoothing)

    def hidden(self, ids: Tensor, mask: Tensor | None, where: Tensor) -> Tensor:
        """Hidden states (T, d) at flat positions; arguments as in `forward`."""
        seen: dict[str, Tensor] = {}
        if mask is not None:
            seen = {"attention_mask": mask[:, None], "position_ids": mask.sum(-1) - 1}
        return output.states(self.model, ids, **seen).flatten(0, 1)[where]

    def log_law(self, hidden: Tensor) -> Tensor:
        """Whole next-token log-laws (t, V) in float32 of a few hidden states (t, d)."""
        return output.logits(self.model, hidden).float().log_softmax(-1)

    @property
    def chunk(self) -> int:
        """Positions whose logits exist at a time."""
        return max(1, CHUNK_LOGITS // output.vocabulary(self.model))

    def _log_probs(self, hidden: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        parts = []
        several = len(hidden) > self.chunk  # the logits of one are there at the backward's start
        for h, t in zip(hidden.split(self.chunk), targets.split(self.chunk), strict=True):
            if several and torch.is_grad_enabled():
                parts.append(checkpoint(self._chunk, h, t, smoothing, use_reentrant=False))
            else:
                parts.append(self._chunk(h, t, smoothing))
        return torch.cat(parts) if parts else hidden.new_zeros(targets.shape, dtype=torch.float32)

    def _chunk(self, hidden: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        logits = output.logits(self.model, hidden).float()
        of_target = logits.gather(-1, targets)
        if smoothing:
            of_target = of_target.lerp(logits.mean(-1, keepdim=True), smoothing)
        return of_target - logits.logsumexp(-1, keepdim=True)


def collate(pairs: Sequence[Pair], device: torch.device) -> tuple[Tensor, None, Tensor, Tensor]:
    """Right-padded ids, no mask, flat positions of the predictions, and their targets (T, 1)."""
    longest = max(len(p) + len(r) for p, r in pairs)
    ids = torch.tensor([[*p, *r, *(0,) * (longest - len(p) - len(r))] for p, r in pairs])
    prompt, whole = torch.tensor([(len(p), len(p) + len(r)) for p, r in pairs]).T[..., None]
    at = torch.arange(longest)
    where = ((at >= prompt - 1) & (at < whole - 1)).flatten().nonzero()[:, 0]
    targets = ids.flatten()[where + 1][:, None]
    return ids.to(device), None, where.to(device), targets.to(device)


def _shares(scorer: nn.Module) -> bool:
    return bool(getattr(scorer, "module", scorer).shares_prompts)


def sequence_log_probs(scorer: nn.Module, pairs: Sequence[Pair], smoothing: float = 0.0) -> Tensor:
    """``log pi(y|x)`` (B,) of one batch, in float32 on the model's device; differentiable.

    With ``smoothing`` the sum of what `Scorer.forward` then gives for every token.
    """
    device = next(scorer.parameters()).device
    shared = _shares(scorer) and len(shared_rows(pairs)) < len(pairs)
    given = (collate_shared if shared else collate)(pairs, device)
    tokens = scorer(*given, *[smoothing] * (smoothing > 0))[:, 0]
    rows = torch.tensor([len(r) for _, r in pairs], device=device)
    index = torch.repeat_interleave(torch.arange(len(pairs), device=device), rows)
    return torch.zeros(len(pairs), device=device).index_add(0, index, tokens)


def buckets(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices in batches of about equal length: at most ``tokens`` padded tokens in each."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        batch = batches[-1] if batches else []
        if not batch or (len(batch) + 1) * lengths[i] > tokens:
            batches.append([i])
        else:
            batch.append(i)
    return batches


@torch.no_grad()
def score(scorer: nn.Module, pairs: Sequence[Pair], tokens: int) -> Tensor:
    """``log pi(y|x)`` (n,) of any number of pairs, float32 on the CPU, by the training forward."""
    out = torch.zeros(len(pairs))
    for batch in _batches(scorer, pairs, tokens):
        out[batch] = sequence_log_probs(scorer, [pairs[n] for n in batch]).cpu()
    return out


def _batches(scorer: nn.Module, pairs: Sequence[Pair], tokens: int) -> list[list[int]]:
    """Indices in batches as of `buckets`, responses that may share a prompt beside each other."""
    if not _shares(scorer):
        return buckets([len(p) + len(r) for p, r in pairs], tokens)
    first: dict[Tokens, int] = {}
    order = sorted(range(len(pairs)), key=lambda i: first.setdefault(pairs[i][0], i))
    ordered = [pairs[i] for i in order]
    rows = shared_rows(ordered)
    found = buckets([row_length(ordered, row) for row in rows], tokens)
    return [[order[i] for number in batch for i in rows[number]] for batch in found]


@torch.no_grad()
def over_laws(
    scorers: Sequence[Any],
    pairs: Sequence[Pair],
    rows: Sequence[Tensor],
    tokens: int,
    read: Callable[[list[Tensor], Tensor], Tensor],
) -> list[Tensor]:
    """Read something (length, m) off the whole next-token laws at all positions of every response.

    Args:
        scorers: one `Scorer` or several. pairs: prompts and responses.
        rows: a tensor (length, k) for every response, handed to ``read`` in the same chunks.
        tokens: padded tokens of one forward pass.
        read: log-laws [(t, V)] of all scorers and the rows (t, k) of these positions to (t, m).
    """
    out: dict[int, Tensor] = {}
    device = next(scorers[0].parameters()).device
    for batch in buckets([len(p) + len(r) for p, r in pairs], tokens):
        ids, mask, where, _ = collate([pairs[i] for i in batch], device)
        hidden = [s.hidden(ids, mask, where) for s in scorers]
        given = torch.cat([rows[i] for i in batch]).to(device)
        parts = []
        for at in range(0, len(where), scorers[0].chunk):
            part = slice(at, at + scorers[0].chunk)
            laws = [s.log_law(h[part]) for s, h in zip(scorers, hidden, strict=True)]
            parts.append(read(laws, given[part]).cpu())
        found = torch.cat(parts).split([len(pairs[i][1]) for i in batch])
        out |= dict(zip(batch, found, strict=True))
    return [out[i] for i in range(len(pairs))]
