"""Code that hides packages from a process, as on a machine that does not have them."""

from __future__ import annotations

ABSENT = ("cvxpy", "clarabel", "matplotlib", "pandas", "joblib", "dask", "distributed",
          "hypothesis", "tensorboard", "trl", "datasets", "sacrebleu", "gguf", "accelerate",
          "toy_games", "figures")  # fmt: skip
"""What llm_scale has to do without where only a model is trained."""


def without(*absent: str) -> str:
    """Python to run first: these packages, and editable installs, are not found afterwards."""
    return f"""
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.partition(".")[0] in {absent!r}
        return None if absent else PathFinder.find_spec(name, path, target)

sys.meta_path = [Without if f is PathFinder else f for f in sys.meta_path]
sys.meta_path = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
"""
