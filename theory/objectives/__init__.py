"""Registry of self-play objectives: ``names``, ``get``, ``register``, ``load_file``."""

from theory.objectives import pairwise as _relative
from theory.objectives import pointwise as _pointwise
from theory.objectives.base import Objective
from theory.objectives.forms import Group, Pairwise, Pointwise
from theory.objectives.registry import get, load_file, names, register

__all__ = [
    "Group",
    "Objective",
    "Pairwise",
    "Pointwise",
    "get",
    "load_file",
    "names",
    "register",
]
del _pointwise, _relative
