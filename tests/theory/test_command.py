"""Failures of a command line are lines and exit codes, whatever the command."""

import os
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from theory.command import Program, program
from theory.errors import InvalidInput, NotConverged

LINES = "a\n  b\r\n\nc\u2028d"
app = Program("Fails as it is told.", failures=(ZeroDivisionError,))
FAILURES = {
    "input": InvalidInput(["first", "second"]),
    "lines": InvalidInput([f"of a user: {LINES}", f"x={np.eye(2)!r}"]),
    "slow": NotConverged("gap 0.1 above 1e-9"),
    "disk": OSError(28, "No space left on device"),
    "other": ZeroDivisionError("of another library"),
    "library": ZeroDivisionError(f"of a library: {LINES}"),
    "stop": KeyboardInterrupt(),
}


@app.command()
def fail(how: str = "") -> None:
    if how:
        raise FAILURES[how]


@app.command(resumes=True)
def work(out: str | None = None) -> None:
    raise KeyboardInterrupt


def call(*arguments, of=app):
    result = CliRunner().invoke(of, arguments)
    return result.exit_code, result.stderr.splitlines()


@pytest.mark.parametrize(
    ("how", "code", "lines"),
    [
        ("", 0, []),
        ("input", 2, ["error: first", "error: second"]),
        ("lines", 2, ["error: of a user: a b c d", "error: x=array([[1., 0.], [0., 1.]])"]),
        ("library", 1, ["error: of a library: a b c d"]),
        ("slow", 1, ["error: gap 0.1 above 1e-9"]),
        ("disk", 1, ["error: [Errno 28] No space left on device"]),
        ("other", 1, ["error: of another library"]),
        ("stop", 130, ["interrupted"]),
    ],
)
def test_a_failure_is_a_line_and_a_code(how, code, lines):
    assert call("fail", f"--how={how}") == (code, lines)


def test_a_command_that_resumes_says_so_if_there_is_something_to_resume():
    said = "interrupted; the same command goes on where it stopped"
    assert call("work", "--out=here") == (130, [said])
    assert call("work") == (130, ["interrupted"])


def test_bytes_that_are_no_text_are_refused_before_the_command_runs():
    bad = os.fsdecode(b"caf\xe9")
    assert call("fail", f"--how={bad}") == (2, ["error: argument '--how=caf\\udce9': not UTF-8"])


def test_a_program_of_one_command():
    one = program(fail)
    assert call("--how=input", of=one) == (2, ["error: first", "error: second"])
    assert call(of=one) == (0, [])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_behind_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "theory", "list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: [Errno 28] No space left on device"]
