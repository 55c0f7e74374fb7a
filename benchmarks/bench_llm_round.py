"""One self-play round of a language model against transformers' generate and TRL's DPOTrainer.

Each takes its turns in processes of its own (`benchmarks.llm_round`), on the same model, prompts
and pairs; the best of each part counts, for generation the best of all turns of transformers.
Where the number of sampled tokens differs (the law is the same, the numbers are not) the peer's
seconds are scaled to ours. Memory is the peak above weights, gradients and optimiser over an
epoch, and includes a reference model where the peer keeps one. We always take a step in parts of
`tokens_per_batch`; TRL does so with "four parts a step".
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.progress import track

from benchmarks.llm_round import EPOCHS, PEERS

TURNS = 2
AIM = 3.0
"""Of a whole round, and of generation."""
AIM_MEMORY = 4.0
AIMED = ("trl", "trl, references ahead")
SHORT = (*AIMED, "trl, four parts a step")
"""Peers that are run by default."""
INSTALL = "TRL is not installed: pip install -c constraints.txt -e '.[bench]', or make bench"
MIB = 2.0**20
Found = dict[str, Any]


def run(full: bool) -> list[dict[str, Any]]:
    """Rows for generation, training, the whole round and memory; ours alone without TRL."""
    peers = list(PEERS if full else SHORT) if find_spec("trl") else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        about = _part("prepare", folder, full)
        jobs = [(who, False) for _ in range(TURNS) for who in ("ours", *peers)]
        jobs += [(who, True) for who in ("ours", *peers)]
        times: dict[str, Found] = {}
        bytes_: dict[str, Found] = {}
        for who, memory in track(jobs, description="self-play round", transient=True):
            found = _part(who, folder, full, memory)
            _best(bytes_ if memory else times, who, found)
    if not peers:
        return [_row("whole round", about, _whole(times["ours"]), "TRL", None, None, INSTALL)]
    peer_s = _peer_generation(times)
    rows = [_generation(about, times["ours"], peer_s)]
    for peer in peers:
        found = {**times[peer], "generate": peer_s}
        rows += _rows(about, times["ours"], found, peer, bytes_)
    return rows


def _part(who: str, folder: Path, full: bool, memory: bool = False) -> Found:
    """What one process measured. RuntimeError: it failed, with its last lines."""
    flags = ["memory"] * memory + ["full"] * full
    # Freed blocks go back to the kernel at once, so that resident pages are live memory.
    blocks = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **(blocks if memory else {})}
    line = [sys.executable, "-m", "benchmarks.llm_round", who, str(folder), *flags]
    done = subprocess.run(
        line, cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{who}: {done.stderr[-2000:]}")
    found = json.loads((folder / f"{who}{' memory' if memory else ''}.json").read_text())
    assert isinstance(found, dict)
    return found


def _best(into: dict[str, Found], who: str, found: Found) -> None:
    """Keep the least of every measured part, and what was said with it."""
    parts: Found = found.pop("parts")
    old = into.get(who, parts)
    into[who] = {**found, **{name: min(value, old[name]) for name, value in parts.items()}}


def _train(found: Found) -> float:
    """Seconds of all that needs the pairs: reference log-probabilities and steps."""
    return float(found["train"] + found.get("score", 0.0) + found.get("references", 0.0))


def _whole(found: Found) -> float:
    return float(found["generate"]) + _train(found)


def _peer_generation(times: dict[str, Found]) -> float:
    """Seconds of transformers for as many tokens as ours: the same work for all peers."""
    own = times["ours"]["generated"]
    return float(
        min(t["generate"] * own / t["generated"] for who, t in times.items() if who != "ours")
    )


def _generation(about: Found, ours: Found, peer_s: float) -> dict[str, Any]:
    speed = [ours["generated"] / s for s in (ours["generate"], peer_s)]
    note = f"{speed[0]:.0f} against {speed[1]:.0f} tokens/s; {_floor(about, ours, 'generate')}"
    return _row("generation", about, ours["generate"], "transformers", peer_s, AIM, note)


def _rows(
    about: Found, ours: Found, peer: Found, name: str, bytes_: dict[str, Found]
) -> list[dict[str, Any]]:
    aim = AIM if name in AIMED else None
    trained = EPOCHS * about["trained"]
    speed = [trained / _train(found) for found in (ours, peer)]
    note = f"{speed[0]:.0f} against {speed[1]:.0f} tokens/s; {_floor(about, ours, 'train')}"
    same = f"first losses apart by {abs(ours['first_loss'] - peer['first_loss']):.0e}"
    memory = [bytes_[who]["train"] / MIB for who in ("ours", name)]
    return [
        _row("training", about, _train(ours), name, _train(peer), None, note),
        _row("whole round", about, _whole(ours), name, _whole(peer), aim, same),
        {
            **_row("peak memory of training", about, memory[0], name, memory[1], None, ""),
            "aim": AIM_MEMORY if name in AIMED else None,
            "note": "above weights, gradients and optimiser",
            "unit": "MiB",
        },
    ]


def _floor(about: Found, ours: Found, part: str) -> str:
    """Operations of the part (2 N a token forward, 6 N with backward) against a matrix product."""
    tokens = {
        "generate": about["generated"] + about["prompted"],
        "train": EPOCHS * about["trained"],
    }[part]
    count = {"generate": 2, "train": 6}[part] * about["weights"] * tokens
    seconds = ours[part]
    return f"{count / seconds / ours['matrix_flops']:.0%} of a matrix product's speed"


def _row(
    what: str, about: Found, ours: float, peer: str, peer_s: float | None, aim: Any, note: str
) -> dict[str, Any]:
    size = f"{about['weights'] / 1e6:.2g} M weights, {about['prompts']} prompts"
    return {
        "name": f"self-play round, {what}",
        "size": size,
        "ours_s": ours,
        "peer": peer,
        "peer_s": peer_s,
        "aim": aim,
        "note": note,
    }
