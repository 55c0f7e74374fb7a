"""Plots of a report: measures over rounds, rewards against the link, the course of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lab.stats import centred, interval
from llm_scale.store.read import Replicates, points

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
PANELS: tuple[tuple[str, str, str], ...] = (
    ("kl", "KL(p‖π), nats", "kl_before"),
    ("nll", "NLL of expert responses, nats", "nll_before"),
    ("reverse_kl", "KL(π‖p), nats", "reverse_kl_before"),
    ("link_slope", "slope of rewards on R(u)", ""),
    ("predicted_slope", "slope on the prediction", ""),
    ("predicted_correlation", "correlation with it", ""),
    ("contraction", "contraction of log p/π", ""),
    ("reward_range", "range of rewards, nats", ""),
    ("dumped", "dumped mass", ""),
    ("log_prob_own_after", "log π of own responses, nats", "log_prob_own_before"),
    ("cosine_end", "cosine to SFT, last step", ""),
    ("after_length_own", "length of responses, tokens", ""),
)
"""Measure, its name, and the measure before the first round, if there is one."""
LARGEST_LINK = 6
"""Groups shown in the plot of the link."""


def draw(groups: Sequence[Replicates], out: Path) -> list[Path]:
    """Write the plots as PNG into a folder; those without data are left out."""
    out.mkdir(parents=True, exist_ok=True)
    made = {"rounds": rounds(groups), "link": link(groups), "training": training(groups)}
    paths = []
    for name, figure in made.items():
        if figure is not None:
            paths.append(out / f"{name}.png")
            figure.savefig(paths[-1], dpi=130, metadata={"Software": None})
    return paths


def rounds(groups: Sequence[Replicates]) -> Any:
    """Every measure after every round; bars are 95 % Student intervals over seeds."""
    there = [p for p in PANELS if any(g.values(p[0], r) for g in groups for r in g.rounds)]
    figure, axes = _axes(len(there), 3)
    for ax, (key, title, start) in zip(axes, there, strict=True):
        for group, colour in zip(groups, _colours(groups), strict=True):
            table = _series(group, key, start)
            if not len(table):
                continue
            x, y, half = table.T
            ax.errorbar(x, y, np.nan_to_num(half), color=colour, marker="o", ms=3, lw=1.2)
            if key == "reward_range":
                bound = [v for r in group.rounds for v in group.values("reward_range_bound", r)]
                if bound:
                    ax.axhline(bound[0], color=colour, ls=":", lw=1)
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("rounds done")
        ax.set_xticks(range(1 + max(r for g in groups for r in g.rounds) + 1))
    _legend(figure, groups)
    return figure


def _series(group: Replicates, key: str, start: str) -> np.ndarray:
    """(points, 3): rounds done, mean, half interval."""
    rows = []
    first = group.values(start, group.rounds[0]) if start and group.rounds else []
    if first:
        rows.append((group.rounds[0], *interval(first)))
    for round_ in group.rounds:
        values = group.values(key, round_)
        if values:
            rows.append((round_ + 1, *interval(values)))
    return np.array(rows)


def link(groups: Sequence[Replicates]) -> Any:
    """Learned rewards against u in the first and the last round of one seed of each group.

    Both learned and predicted rewards are known up to a constant per prompt: the learned ones are
    shifted to the prompt's mean of ``R(u)``.
    """
    shown = []
    for group in groups:
        run = group.runs[0]
        have = [row["round"] for row in run.rounds if "link_slope" in row]
        shown += [(group, run, r) for r in dict.fromkeys((*have[:1], *have[-1:]))]
    shown = shown[: 2 * LARGEST_LINK]
    if not shown:
        return None
    figure, axes = _axes(len(shown), 2)
    for ax, (group, run, round_) in zip(axes, shown, strict=True):
        table = points(run, round_)
        if not table:
            continue
        seen = np.isfinite(table["link"])
        u, reward, law, prompt = (table[k][seen] for k in ("u", "reward", "link", "prompt"))
        shift = law - centred(law, group=prompt.astype(int))
        moved = centred(reward, group=prompt.astype(int)) + shift
        for side, colour in (("expert", COLOURS[2]), ("own", COLOURS[1])):
            here = table["side"][seen] == side
            ax.plot(u[here], moved[here], ".", ms=3, alpha=0.5, color=colour, label=side)
        refined = table["predicted"][seen]
        good = np.isfinite(refined)
        if good.any() and not np.allclose(refined[good], law[good]):
            finer = centred(refined[good], group=prompt[good].astype(int)) + shift[good]
            ax.plot(u[good], finer, "x", ms=2.5, color=COLOURS[3], label="predicted, as trained")
        order = np.argsort(u)
        ax.plot(u[order], law[order], color="black", lw=1, label="R(u)")
        seed = run.settings.get("seed")
        ax.set_title(f"{group.label}, seed {seed}, round {round_}", fontsize=7)
        ax.set(xlabel="u = log p/π, nats", ylabel="reward, nats")
        ax.legend(fontsize=6, frameon=False)
    return figure


def training(groups: Sequence[Replicates]) -> Any:
    """Loss, gradient norm and direction against SFT over the steps of one seed of each group."""
    keys = (
        ("loss", "loss"),
        ("gradient_norm", "norm of the gradient"),
        ("cosine", "cosine to SFT"),
    )
    there = [
        (key, title)
        for key, title in keys
        if any(key in row for group in groups for row in group.runs[0].steps)
    ]
    if not there:
        return None
    figure, axes = _axes(len(there), len(there))
    for ax, (key, title) in zip(axes, there, strict=True):
        for group, colour in zip(groups, _colours(groups), strict=True):
            rows = [(i, row[key]) for i, row in enumerate(group.runs[0].steps) if key in row]
            if rows:
                x, y = np.array(rows).T
                style = {"marker": "o", "ms": 3} if key == "cosine" else {}
                ax.plot(x, y, color=colour, lw=0.8, **style)
        ax.set_title(title, fontsize=9)
        ax.set_xlabel("optimiser step")
    _legend(figure, groups)
    return figure


def _axes(count: int, columns: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    columns = max(1, min(columns, count))
    lines = max(1, -(-count // columns))
    figure = Figure(figsize=(3.6 * columns, 2.7 * lines + 0.5), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def _colours(groups: Sequence[Replicates]) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(groups))]


def _legend(figure: Any, groups: Sequence[Replicates]) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=c, label=f"{g.label} ({len(g.runs)} seeds)")
        for g, c in zip(groups, _colours(groups), strict=True)
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
