"""Cells of the experiment on the held-out game, and their means."""

import numpy as np

from toy_games.experiments import sgd
from toy_games.experiments.sgd import PLAYED, Settings
from toy_games.games.sgd_case import Case

HAVE_ROUND = [n for n in PLAYED if Case(n).has_round]
GAME = {"vocab": 2, "horizon": 3, "game": 11}


def run(part, spec, family="tokens", **given):
    """Table of one cell on the held-out game."""
    names = () if spec == "sft" else (spec,)
    chosen = Settings(parts=(part,), objectives=names or ("spin",), **{**GAME, **given})
    (cell,) = [
        c
        for c in sgd.cells(chosen)
        if (c.arguments.get("spec"), c.arguments.get("family")) == (spec, family)
    ]
    return cell.call(**cell.arguments, progress=False)


def errors(table, by, value):
    """Mean and standard error over the seeds of every group."""
    found = table.groupby(by, sort=False)[value]
    return found.mean(), found.std() / np.sqrt(found.size())
