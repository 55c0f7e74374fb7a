"""Make tests/llm_scale/rounds/trl_losses.json: TRL's own losses on drawn log-probabilities.

`python -m tools.trl_losses [PATH]`, where TRL is installed (extra bench). The numbers come out of
`DPOTrainer._compute_loss` as it is, called with a model that returns given log-probabilities, one
pair at a time. Token log-probabilities are multiples of 2^-12, so that their sums and differences
are exact in float32; the losses are computed in float64.
"""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

TABLE = Path(__file__).parents[1] / "tests" / "llm_scale" / "rounds" / "trl_losses.json"
LOSSES = ("sigmoid", "hinge", "ipo", "sigmoid_norm", "sppo_hard", "bco_pair", "sft")
BETAS = (0.05, 0.1, 0.5, 1.0, 5.0)
PAIRS = 32
GRID = 2.0**-12
SIDES = ("chosen", "rejected")


def drawn(rng: random.Random) -> dict[str, Any]:
    """Token log-probabilities of a pair, under the policy and under the reference."""
    pair: dict[str, Any] = {}
    spread = 10.0 ** rng.uniform(-2.0, 0.5)
    for side in SIDES:
        length = rng.randint(1, 12)
        ref = [-round(rng.expovariate(0.7) / GRID) * GRID for _ in range(length)]
        new = [min(0.0, t + round(rng.gauss(0.0, spread) / GRID) * GRID) for t in ref]
        pair[side], pair[f"ref_{side}"] = new, ref
    return pair


def trl_loss(trainer: Any, pair: dict[str, Any], loss: str, beta: float) -> float:
    """What `DPOTrainer._compute_loss` returns for one pair."""
    longest = max(len(pair[side]) for side in SIDES)
    log_probs = torch.zeros(2, longest, dtype=torch.float64)
    mask = torch.zeros(2, longest + 1, dtype=torch.int64)
    for row, side in enumerate(SIDES):
        tokens = pair[side]
        log_probs[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.float64)
        mask[row, 1 : len(tokens) + 1] = 1  # a prompt of one token
    zeros = torch.zeros_like(log_probs)
    outputs = SimpleNamespace(
        log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool()
    )
    accelerator = SimpleNamespace(
        device=torch.device("cpu"), gather=_same, gather_for_metrics=_same, autocast=nullcontext
    )
    stub = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=accelerator, aux_loss_enabled=False,
        ld_alpha=None, precompute_ref_logps=True, f_divergence_type="reverse_kl", beta=beta,
        loss_types=[loss], loss_weights=[1.0], label_smoothing=0.0, use_weighting=False,
        _metrics=defaultdict(lambda: defaultdict(list)), _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    refs = {
        f"ref_{side}_logps": torch.tensor([sum(pair[f"ref_{side}"])], dtype=torch.float64)
        for side in SIDES
    }
    inputs = {"input_ids": mask, "attention_mask": mask, "completion_mask": mask, **refs}
    return float(trainer._compute_loss(stub, lambda **_: outputs, inputs, False))


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def main(path: Path = TABLE) -> None:
    """Write the table."""
    from trl import DPOTrainer

    rng = random.Random(0)
    rows = []
    for _ in range(PAIRS):
        pair = drawn(rng)
        losses = {
            loss: {str(beta): trl_loss(DPOTrainer, pair, loss, beta) for beta in BETAS}
            for loss in LOSSES
        }
        rows.append({**pair, "losses": losses})
    head = {
        "made_by": "python -m tools.trl_losses",
        "source": "DPOTrainer._compute_loss, one pair at a time, float64",
        "trl": metadata.version("trl"),
        "torch": torch.__version__.split("+")[0],
    }
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    text = f'{json.dumps(head)[:-1]},\n "pairs": [\n  {lines}\n]}}\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
