"""Simulations that are interrupted before one of their steps."""

import pytest

from toy_games.engine import simulator


class Stopped:
    """A simulation that is interrupted before one of its steps."""

    def __init__(self, inner, at):
        self.inner, self.at = inner, at
        self.rows, self.identity = inner.rows, inner.identity
        self.start, self.measure = inner.start, inner.measure

    def advance(self, state, step):
        if step == self.at:
            raise KeyboardInterrupt
        return self.inner.advance(state, step)


def interrupt(run, at, record, path, monkeypatch):
    """Run up to the step; the checkpoint is one of the simulation that was stopped."""
    fingerprint = simulator.fingerprint
    monkeypatch.setattr(
        simulator, "fingerprint", lambda run, *rest: fingerprint(getattr(run, "inner", run), *rest)
    )
    with pytest.raises(KeyboardInterrupt):
        simulator.run(Stopped(run, at), record, path, False, every=0.0)
