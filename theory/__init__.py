"""Self-play fine-tuning as a regularised game: objectives, exact solvers, certificates, cards."""

from theory import objectives, preferences
from theory.card import TheoryCard, theory_card
from theory.equilibria import equilibrium, saddle_point
from theory.errors import InvalidInput, NotConverged, Unavailable
from theory.result import Solution
from theory.rounds import self_play
from theory.token_mdp import TokenMDP

__all__ = [
    "InvalidInput",
    "NotConverged",
    "Solution",
    "TheoryCard",
    "TokenMDP",
    "Unavailable",
    "equilibrium",
    "objectives",
    "preferences",
    "saddle_point",
    "self_play",
    "theory_card",
]
