"""Where people watch numbers: TensorBoard and Weights & Biases, if asked for by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from theory.errors import InvalidInput

NONE = "none"
PACKAGES = ("tensorboard", "wandb")


class Board(Protocol):
    """Takes the numbers of a row; ``group`` is "step" or "round", ``at`` their number."""

    def write(self, group: str, at: int, numbers: dict[str, float]) -> None: ...


def problems(spec: str) -> list[str]:
    """What is wrong with a list of boards between commas: unknown names, one named twice."""
    names = _names(spec)
    needed = f"needed is {NONE}, or {' and '.join(PACKAGES)} between commas"
    if spec != NONE and (not names or set(names) - set(PACKAGES)):
        return [f"{spec!r}; {needed}"]
    return [f"{spec!r}; each may be named once"] if len(set(names)) < len(names) else []


def missing(spec: str) -> list[str]:
    """Packages of a list of boards that are not installed, in words."""
    return [
        f"log={spec!r}: the package {name} is not installed: pip install {name}, or "
        f"pip install -e '.[{name}]' in the checkout"
        for name in _names(spec)
        if find_spec(name) is None
    ]


def opened(spec: str, out: Path, settings: dict[str, Any]) -> Sequence[Board]:
    """The boards of a list for the run in a folder. InvalidInput: one that cannot be opened."""
    kinds: dict[str, Callable[[Path, dict[str, Any]], Board]]
    kinds = {"tensorboard": TensorBoard, "wandb": WandB}
    try:
        return tuple(kinds[name](out, settings) for name in _names(spec))
    except ImportError as error:
        raise InvalidInput(f"log={spec!r}: cannot be imported ({error})") from error


def _names(spec: str) -> list[str]:
    return [] if spec == NONE else [name.strip() for name in spec.split(",")]


class TensorBoard:
    """Events in ``tensorboard/steps`` and ``tensorboard/rounds``.

    Steps and rounds are counted apart, so each has a writer: what a process that was interrupted
    wrote after its checkpoint goes when the count comes there again.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.new, self.out = SummaryWriter, out / "tensorboard"
        self.writers: dict[str, Any] = {}

    def write(self, group: str, at: int, numbers: dict[str, float]) -> None:
        """Add a row's numbers."""
        if group not in self.writers:
            self.writers[group] = self.new(str(self.out / f"{group}s"), purge_step=at)
        for name, value in numbers.items():
            self.writers[group].add_scalar(f"{group}/{name}", value, at)
        self.writers[group].flush()


class WandB:
    """An offline run in ``wandb/``, to be sent with ``wandb sync`` by whoever wants that.

    A run that is resumed is another offline run with the same name and group.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        wandb: Any = importlib.import_module("wandb")
        out.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            mode="offline",
            dir=str(out),
            project="llm_scale",
            name=out.resolve().name,
            group=out.resolve().name,
            config=settings,
            reinit="finish_previous",  # of a sweep: the default would go on with the run before
            settings=wandb.Settings(silent=True, console="off"),
        )
        for group in ("step", "round"):
            self.run.define_metric(f"{group}/*", step_metric=f"{group}/number")

    def write(self, group: str, at: int, numbers: dict[str, float]) -> None:
        """Add a row's numbers over the number of their step or round."""
        rows = {f"{group}/{name}": value for name, value in numbers.items()}
        self.run.log(rows | {f"{group}/number": at})
