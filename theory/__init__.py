"""Self-play fine-tuning as a regularised game: objectives, exact solvers, certificates, cards."""

from importlib.metadata import PackageNotFoundError, version

from theory import objectives, preferences
from theory.card import TheoryCard, theory_card
from theory.check import check_objective
from theory.equilibria.path import solve_path
from theory.equilibria.solve import equilibrium, saddle_point
from theory.errors import InvalidInput, NotConverged, Unavailable
from theory.result import Outcome, Solution
from theory.rounds.one_step_path import one_step_path
from theory.rounds.two_step import self_play
from theory.tokens.mdp import TokenMDP

try:
    __version__ = version("selfplay-theory")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "0+unknown"

__all__ = [
    "InvalidInput",
    "NotConverged",
    "Outcome",
    "Solution",
    "TheoryCard",
    "TokenMDP",
    "Unavailable",
    "__version__",
    "check_objective",
    "equilibrium",
    "objectives",
    "one_step_path",
    "preferences",
    "saddle_point",
    "self_play",
    "solve_path",
    "theory_card",
]
