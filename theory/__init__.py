"""Self-play fine-tuning as a regularised game: objectives, exact solvers, certificates, cards."""

from theory import objectives, preferences
from theory.card import TheoryCard, theory_card
from theory.check import check_objective
from theory.equilibria.solve import equilibrium, saddle_point
from theory.errors import InvalidInput, NotConverged, Unavailable
from theory.result import Solution
from theory.rounds.two_step import self_play
from theory.tokens.mdp import TokenMDP

__all__ = [
    "InvalidInput",
    "NotConverged",
    "Solution",
    "TheoryCard",
    "TokenMDP",
    "Unavailable",
    "check_objective",
    "equilibrium",
    "objectives",
    "preferences",
    "saddle_point",
    "self_play",
    "theory_card",
]
