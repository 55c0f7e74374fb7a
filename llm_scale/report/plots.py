"""Plots of a report: measures over rounds, rewards against the link, the course of training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np

from lab.stats import LEAST_SEEDS, centred, interval
from llm_scale.report.groups import Replicates
from llm_scale.store.read import points

COLOURS = (  # colour-blind safe, the last two lightest
    "#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F",
)  # fmt: skip
LINES = ("-", "--", ":", "-.")
PANELS: tuple[tuple[str, str, str], ...] = (
    ("kl", "KL(p‖π), nats", "kl_before"),
    ("nll", "NLL of the expert, nats", "nll_before"),
    ("reverse_kl", "KL(π‖p), nats", "reverse_kl_before"),
    ("match_greedy", "share of greedy matches", "match_greedy_before"),
    ("win_rate_base", "wins against π₀, share", ""),
    ("link_slope", "slope of rewards on R(u)", ""),
    ("predicted_slope", "slope on the prediction", ""),
    ("predicted_correlation", "correlation with it", ""),
    ("contraction", "contraction of log p/π, factor", ""),
    ("reward_range", "range of rewards, nats", ""),
    ("dumped", "dumped mass, share", ""),
    ("log_prob_own_after", "log π of own responses, nats", "log_prob_own_before"),
    ("cosine_end", "cosine to SFT, last step", ""),
    ("after_length_own", "length of responses, tokens", ""),
)
"""Measure, its name with its unit, and the measure before the first round, if there is one."""
PANEL = (3.6, 2.7)
"""Size of a panel in inches."""
LETTER = 0.075
"""Width of a letter of `LEGEND_SIZE` in inches, a wide one."""
LEGEND_SIZE = 8
LARGEST_LINK = 6
"""Groups shown in the plot of the link."""


def draw(groups: Sequence[Replicates], out: Path) -> list[Path]:
    """Write the plots as PNG and PDF into a folder; those without data are left out."""
    out.mkdir(parents=True, exist_ok=True)
    made = {"rounds": rounds(groups), "link": link(groups), "training": training(groups)}
    paths = []
    for name, figure in made.items():
        if figure is not None:
            for kind, when in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
                paths.append(out / f"{name}.{kind}")
                figure.savefig(paths[-1], dpi=130, metadata=when)
    return paths


def rounds(groups: Sequence[Replicates]) -> Any:
    """Every measure after every round; bars are 95 % Student intervals over seeds, from three on.

    None without any measure.
    """
    there = [p for p in PANELS if any(g.values(p[0], r) for g in groups for r in g.rounds)]
    if not there:
        return None
    figure, axes = _axes(len(there), 3, groups)
    for ax, (key, title, start) in zip(axes, there, strict=True):
        for group, style in zip(groups, _styles(groups), strict=True):
            table = _series(group, key, start)
            if not len(table):
                continue
            x, y, half = table.T
            bars = {} if np.isnan(half).all() else {"yerr": np.nan_to_num(half), "capsize": 2}
            ax.errorbar(x, y, **bars, **style._asdict(), marker="o", ms=3, lw=1.2)
            if key == "reward_range":
                bound = [v for r in group.rounds for v in group.values("reward_range_bound", r)]
                if bound:
                    ax.axhline(bound[0], color=style.color, ls=":", lw=1)
        ax.set_ylabel(title, fontsize=9)
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
    figure, axes = _axes(len(shown), 2, ())
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
        _title(ax, f"{group.label}, seed {seed}, round {round_}")
        ax.set(xlabel="u = log p/π, nats", ylabel="reward, nats")
        ax.legend(fontsize=6, frameon=False)
    return figure


def training(groups: Sequence[Replicates]) -> Any:
    """Loss, gradient norm and direction against SFT over the steps of one seed of each group."""
    keys = (
        ("loss", "loss a prompt"),
        ("gradient_norm", "norm of the gradient, before clipping"),
        ("cosine", "cosine to SFT"),
    )
    there = [
        (key, title)
        for key, title in keys
        if any(key in row for group in groups for row in group.runs[0].steps)
    ]
    if not there:
        return None
    figure, axes = _axes(len(there), len(there), groups)
    for ax, (key, title) in zip(axes, there, strict=True):
        for group, style in zip(groups, _styles(groups), strict=True):
            rows = [(i, row[key]) for i, row in enumerate(group.runs[0].steps) if key in row]
            if rows:
                x, y = np.array(rows).T
                dots = {"marker": "o", "ms": 3} if key == "cosine" else {}
                ax.plot(x, y, lw=0.8, **style._asdict(), **dots)
        ax.set_ylabel(title, fontsize=9)
        ax.set_xlabel("optimiser step")
    _legend(figure, groups, "first seed")
    return figure


class Style(NamedTuple):
    """How a group is drawn."""

    color: str
    ls: str


def _axes(count: int, columns: int, groups: Sequence[Replicates]) -> tuple[Any, list[Any]]:
    """Panels, with room below them for the legend of groups."""
    from matplotlib.figure import Figure

    columns = max(1, min(columns, count))
    lines = max(1, -(-count // columns))
    width, height = PANEL[0] * columns, PANEL[1] * lines
    below = sum(text.count("\n") + 1 for text in _legend_texts(groups, width))
    figure = Figure(figsize=(width, height + 0.3 + 0.19 * below), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def _styles(groups: Sequence[Replicates]) -> list[Style]:
    """All colours in one kind of line, then in the next."""
    kinds = [Style(colour, line) for line, colour in product(LINES, COLOURS)]
    return [kinds[i % len(kinds)] for i in range(len(groups))]


def _title(ax: Any, text: str) -> None:
    ax.set_title("\n".join(wrap(text, int(PANEL[0] / LETTER))), fontsize=LEGEND_SIZE)


def _legend(figure: Any, groups: Sequence[Replicates], what: str = "") -> None:
    """Below the panels, an entry a line, long ones on several."""
    from matplotlib.lines import Line2D

    texts = _legend_texts(groups, figure.get_figwidth(), what)
    lines = [
        Line2D([], [], **style._asdict(), label=text)
        for style, text in zip(_styles(groups), texts, strict=True)
    ]
    figure.legend(handles=lines, loc="outside lower center", frameon=False, fontsize=LEGEND_SIZE)


def _legend_texts(groups: Sequence[Replicates], width: float, what: str = "") -> list[str]:
    """Label, name if that says more, and what bars or the line are, wrapped to inches."""
    out = []
    for group in groups:
        text = group.label + (f": {group.name}" if group.name not in ("", group.label) else "")
        bars = ", bars 95 %" if len(group.runs) >= LEAST_SEEDS else ", no interval"
        text += f" ({what or group.seeds + bars})"
        out.append("\n".join(wrap(text, int((width - 0.8) / LETTER))))
    return out
