"""A prompt and all of its responses in one row: the prompt goes through the model once.

The law of a response does not change: it sees the prompt and itself, at the same positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llm_scale.data.items import Tokens

SHARED_FROM = 16
"""Length of a prompt, in tokens, from which its responses share it in one row."""

Pair = tuple[Tokens, Tokens]


def collate_shared(
    pairs: Sequence[Pair], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `collate`, with a prompt once for neighbours that share it; the mask is (B, L, L).

    A row is the prompt and its responses one after the other; a response sees the prompt and its
    own tokens, whose positions follow the prompt's: the law is that of `collate`.
    """
    rows = shared_rows(pairs)
    longest = max(row_length(pairs, row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    part = torch.full_like(ids, -1)  # 0 is the prompt, 1 and on are its responses, -1 is padding
    where: list[Tensor] = []
    targets: list[int] = []
    for i, row in enumerate(rows):
        prompt = pairs[row[0]][0]
        at = len(prompt)
        ids[i, :at] = torch.tensor(prompt)
        part[i, :at] = 0
        last = torch.tensor([i * longest + at - 1])
        for number, j in enumerate(row, 1):
            response = pairs[j][1]
            end = at + len(response)
            ids[i, at:end] = torch.tensor(response)
            part[i, at:end] = number
            first = i * longest + at
            where += [last, torch.arange(first, first + len(response) - 1)]
            targets += response
            at = end
    part = part.to(device)
    causal = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
    same = part[:, :, None] == part[:, None, :]
    mask = causal & (same | (part == 0)[:, None, :])
    flat, column = torch.cat(where), torch.tensor(targets)[:, None]
    return ids.to(device), mask, flat.to(device), column.to(device)


def shared_rows(pairs: Sequence[Pair]) -> list[list[int]]:
    """Indices of neighbours with the same prompt, by row.

    A row is at most twice as long as its longest pair, since attention grows with the square;
    short prompts are not worth a mask.
    """
    rows: list[list[int]] = []
    for i, (prompt, _) in enumerate(pairs):
        row = [*rows[-1], i] if rows else [i]
        fits = len(prompt) >= SHARED_FROM and prompt == pairs[row[0]][0]
        longest = max(len(pairs[j][1]) for j in row)
        if len(row) > 1 and fits and row_length(pairs, row) <= 2 * (len(prompt) + longest):
            rows[-1] = row
        else:
            rows.append([i])
    return rows


def row_length(pairs: Sequence[Pair], row: Sequence[int]) -> int:
    """Tokens of a row: the prompt once, and all responses."""
    return len(pairs[row[0]][0]) + sum(len(pairs[j][1]) for j in row)
