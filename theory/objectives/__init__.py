"""Registry of self-play objectives: ``names``, ``get``, ``of``, ``register``, ``load_file``."""

from theory.objectives import pointwise as _pointwise  # noqa: I001  (the order of registration)
from theory.objectives import pairwise as _pairwise
from theory.objectives import group as _group
from theory.objectives.base import Objective
from theory.objectives.forms import Group, Pairwise, Pointwise
from theory.objectives.registry import get, load_file, names, of, register

__all__ = [
    "Group",
    "Objective",
    "Pairwise",
    "Pointwise",
    "get",
    "load_file",
    "names",
    "of",
    "register",
]
del _pointwise, _pairwise, _group
