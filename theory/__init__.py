"""Self-play fine-tuning as a regularised game: objectives, exact solvers, certificates, cards."""

from theory import objectives

__all__ = ["objectives"]
