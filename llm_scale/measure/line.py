"""A run in lines for people: the pace of its steps, and a round, which says when it made the
model worse."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

Row = dict[str, Any]

WORSE_FROM = 2.0
"""A change for the worse of more standard errors than this is said aloud: beyond noise."""
PARTS = (
    ("kl_before", "KL(p|pi) {:.3f}"),
    ("kl", "-> {:.3f}"),
    ("reverse_kl", "KL(pi|p) {:.3f}"),
    ("link_slope", "link slope {:.2f}"),
    ("link_correlation", "corr {:.2f}"),
    ("predicted_slope", "predicted {:.2f}"),
    ("contraction", "contraction {:.2f}"),
    ("contraction_predicted", "({:.2f})"),
    ("token_predicted_slope", "token slope {:.2f}"),
    ("win_rate_base", "against pi_0 {:.3f}"),
    ("preference_slope", "slope on 2P-1 {:.2f}"),
    ("preference_slope_predicted", "({:.2f})"),
    ("validation_nll", "validation NLL {:.2f}"),
    ("given_accuracy", "given pairs {:.0%}"),
    ("given_margin", "by {:.2f}"),
    ("margin", "margin {:.2f}"),
    ("max_reward_other", "max|r| other {:.1f}"),
    ("gap", "gap <= {:.3f}"),
    ("dumped", "dumped {:.1%}"),
    ("cosine_start", "cos SFT {:.2f}"),
    ("cosine_end", "-> {:.2f}"),
    ("after_length_own", "length {:.1f}"),
    ("after_truncated_own", "cut {:.0%}"),
)
"""Numbers of a row and how they are written, after those that say better or worse."""
ALONE = {
    "kl": ("kl_before", "KL(p|pi) after {:.3f}"),
    "predicted_slope": ("link_slope", "predicted link slope {:.2f}"),
    "contraction_predicted": ("contraction", "predicted contraction {:.2f}"),
    "preference_slope_predicted": ("preference_slope", "predicted slope on 2P-1 {:.2f}"),
    "given_margin": ("given_accuracy", "given pairs by {:.2f}"),
    "cosine_end": ("cosine_start", "cos SFT at the end {:.2f}"),
}
"""Of numbers that are written as more of another: which, and how where that one is not known."""


class Pace:
    """How fast the steps of a round go, in words."""

    def __init__(self) -> None:
        self.first, self.tokens = time.monotonic(), 0

    def after(self, loss: float, tokens: int) -> str:
        """Of all tokens so far, these of the newest step among them."""
        self.tokens += tokens
        pace = self.tokens / max(time.monotonic() - self.first, 1e-9)
        return f"loss {loss:.4g}, {pace:,.0f} tokens/s"


def line(row: Row) -> str:
    """A round in one readable line: what changed and whether for the worse, then the rest."""
    parts = [f"round {row['round']}", *_quality(row)]
    for key, text in PARTS:
        first, alone = ALONE.get(key, (key, text))
        if _known(row, key):
            parts.append((text if _known(row, first) else alone).format(row[key]))
    return "  ".join(parts).replace("  ->", " ->").replace("  (", " (")


def worse(row: Row) -> list[str]:
    """In which respects the round made the model worse beyond noise, in words.

    The negative log-likelihood of held-out expert responses (its change is that of KL(p|pi) too),
    greedy matches, and where an oracle compares the responses the wins against pi_t in the place of
    the likelihood, which is then not what is trained. Each by more than `WORSE_FROM` standard
    errors of the change, paired by prompt. A change without a standard error (one prompt) says
    nothing; a likelihood that is no number does.
    """
    found = []
    if "win_rate" in row:
        found += _loss("than 1/2 ", 0.5 - row["win_rate"], row.get("win_rate_se", 0.0), 3, "")
    elif "nll_change" in row:
        found += _loss("", row["nll_change"], row.get("nll_change_se", 0.0), 2, " nats")
    if "match_greedy_change" in row:
        error = row.get("match_greedy_change_se", 0.0)
        found += _loss("", -row["match_greedy_change"], error, 3, " in greedy matches")
    return found


def _loss(than: str, lost: float, error: float, digits: int, unit: str) -> list[str]:
    if not np.isfinite(lost):
        return ["WORSE: not finite"]
    if not (error > 0 and lost > WORSE_FROM * error):
        return []
    return [f"WORSE {than}by {lost:.{digits}f}{unit} ({lost / error:.2g} se)"]


def _known(row: Row, name: str) -> bool:
    return bool(np.isfinite(row.get(name, np.nan)))


def _quality(row: Row) -> list[str]:
    out = []
    if "nll" in row and "nll_before" in row:
        text = f"NLL {row['nll_before']:.2f} -> {row['nll']:.2f}"
        out.append(text + _change(row, "nll_change", 2))
    if "match_greedy" in row:
        text = f"greedy match {row['match_greedy_before']:.3f} -> {row['match_greedy']:.3f}"
        out.append(text + _change(row, "match_greedy_change", 3))
    if "match_problem" in row:
        out.append(f"greedy match not measured: {row['match_problem']}")
    if "win_rate" in row:
        out.append(f"wins {row['win_rate']:.3f} (se {row.get('win_rate_se', 0.0):.3f})")
    return out + worse(row)


def _change(row: Row, name: str, digits: int) -> str:
    if name not in row:
        return ""
    error = row.get(f"{name}_se", 0.0)
    return f" (change {row[name]:+.{digits}f}, se {error:.{digits}f})"
