"""What all command lines here share: a failure is a line that says why, and an exit code.

2: the input cannot be used; 1: the call failed (not converged, a full disk); 130: interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

from theory.errors import InvalidInput, NotConverged, in_one_line

GOES_ON = "interrupted; the same command goes on where it stopped"


class Program(typer.Typer):
    """Commands of one module: ``app = Program(__doc__)``, then ``@app.command()`` and ``app()``."""

    def __init__(
        self, text: str | None, failures: tuple[type[Exception], ...] = (), **more: Any
    ) -> None:
        """Of a help text, errors that are failures beside `OSError`, and options of typer."""
        self.failures = (OSError, *failures)
        plain = {
            "add_completion": False,
            "no_args_is_help": True,
            "pretty_exceptions_enable": False,
        }
        super().__init__(help=text, **{**plain, **more})

    def command(self, name: str | None = None, *, resumes: bool = False, **more: Any) -> Any:
        """Add a command; one that ``resumes`` (what is in ``--out``) says so if interrupted."""
        kind = type("Command", (_Command,), {"resumes": resumes, "failures": self.failures})
        return super().command(name, cls=kind, **more)


def program(call: Callable[..., None], resumes: bool = False) -> Program:
    """A program of one command."""
    app = Program(None, no_args_is_help=False)
    app.command(resumes=resumes)(call)
    return app


class _Command(TyperCommand):
    resumes = False
    failures: tuple[type[Exception], ...] = (OSError,)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse bytes that are no text here, before anything is done with them."""
        wrong = [a for a in args if any("\ud800" <= c <= "\udfff" for c in a)]
        for argument in wrong:
            typer.echo(f"error: argument {argument!a}: not UTF-8", err=True)
        if wrong:
            raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; failures that are foreseen become a line each and an exit code."""
        try:
            made = super().invoke(ctx)
            sys.stdout.flush()
            return made
        except InvalidInput as error:
            _say(*error.problems)
            code = 2
        except NotConverged as error:
            _say(str(error))
            code = 1
        except KeyboardInterrupt:
            goes_on = self.resumes and ctx.params.get("out", True) is not None
            typer.echo(GOES_ON if goes_on else "interrupted", err=True)
            code = 130
        except self.failures as error:
            if isinstance(error, BrokenPipeError):  # whoever reads has enough
                raise
            _say(str(error))
            _close_output()
            code = 1
        raise typer.Exit(code)


def _say(*problems: str) -> None:
    for problem in problems:
        typer.echo(f"error: {in_one_line(problem)}", err=True)


def _close_output() -> None:
    """What could not be written is not tried again when Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
