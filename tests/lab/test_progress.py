"""Progress in a log: a line now and then, nothing of a short call."""

import sys
import time

from lab import progress as module
from lab.progress import progress


def test_a_log_gets_whole_lines_at_intervals(monkeypatch, capsys):
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.05)
    for _ in progress(range(4), what="round 1"):
        time.sleep(0.06)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("round 1: 1 of 4 parts in 00:00, ")
    assert len(lines) == 4


def test_a_short_call_and_one_that_is_not_shown_say_nothing(monkeypatch, capsys):
    for _ in progress(range(4)):
        pass
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.0)
    with progress(total=2, show=False) as bar:
        bar.update()
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = progress(range(4))
    assert bar.delay == 3.0
    assert bar.fp is not None
    assert not isinstance(bar.fp, module._Lines)
