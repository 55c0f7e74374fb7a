"""The result type: outcomes, values on demand, tables, files."""

from __future__ import annotations

import dataclasses
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import theory
from theory import TokenMDP, laws, objectives, saddle_point, self_play, xp
from theory.errors import InvalidInput
from theory.objectives import Pairwise
from theory.result import Later, Outcome, Solution

P, Q = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]), np.array([0.2, 0.3, 0.5])


def test_values_are_computed_when_they_are_read() -> None:
    count = 0

    def gap() -> float:
        nonlocal count
        count += 1
        return 0.25

    one = Solution(P, P, P, P, Later(gap), Outcome.MOVING, "moving", 3)  # type: ignore[arg-type]
    assert count == 0
    assert (one.gap, one.gap, count) == (0.25, 0.25, 1)
    assert not one.converged
    again = pickle.loads(pickle.dumps(self_play(P, Q, "spif", 1.0, 3)))
    assert not any(isinstance(v, Later) for v in vars(again).values())
    assert dataclasses.replace(again, iterations=7).iterations == 7


def test_saved_and_loaded(tmp_path: Path) -> None:
    for found in (
        self_play(P, Q, "spif", 1.0, 3, one_step=True),
        saddle_point(P, Q, "spif", 0.2),
        self_play(P, P, "spif", 1.0, 0),
    ):
        path = found.save(tmp_path / "one.npz")
        back = Solution.load(path)
        for field in dataclasses.fields(Solution):
            mine, other = getattr(found, field.name), getattr(back, field.name)
            if field.name == "details":
                assert mine.keys() == other.keys()
                for name, value in mine.items():
                    np.testing.assert_array_equal(other[name], value)
            else:
                np.testing.assert_array_equal(other, mine)
    assert [file.name for file in tmp_path.iterdir()] == ["one.npz"]
    with pytest.raises(InvalidInput, match="no saved solution"):
        Solution.load(tmp_path / "two.npz")
    odd = dataclasses.replace(found, details={"what": object()})
    with pytest.raises(InvalidInput, match="details: "):
        odd.save(tmp_path / "one.npz")
    assert Solution.load(tmp_path / "one.npz").iterations == 0


def test_tables() -> None:
    path = self_play(P, Q, "spif", 1.0, 4)
    table = path.to_frame()
    assert list(table.columns) == ["round", "prompt", "kl", "max_logratio"]
    np.testing.assert_array_equal(table.kl, path.details["kl"].ravel())
    np.testing.assert_array_equal(table["round"], np.repeat(np.arange(5), 2))
    np.testing.assert_array_equal(table.prompt, np.tile([0, 1], 5))
    plain = self_play(P[0], Q, "spif", 1.0, 4).to_frame()
    assert list(plain.columns) == ["round", "kl", "max_logratio"]
    point = saddle_point(P, Q, "spif", 0.3)
    wide = point.to_frame()
    assert list(wide.columns) == ["outcome", "prompt", "policy", "reward"]
    np.testing.assert_array_equal(wide[wide.prompt == 1].policy, point.policy[1])


def test_a_table_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InvalidInput, match="to_frame needs pandas"):
        saddle_point(P, Q, "spif", 0.3).to_frame()


def test_measurements_have_the_shape_of_the_laws() -> None:
    """One number a round, and a prompt where the laws have prompts."""
    game = TokenMDP.random(3, 2, prompts=2)
    of_game = self_play(game.expert, game.uniform_policy(), "spif", 1.0, 4, game=game)
    for found, shape in (
        (self_play(P[0], Q, "spif", 1.0, 4), (5,)),
        (self_play(P, Q, "spif", 1.0, 4), (5, 2)),
        (of_game, (5, 2)),
    ):
        assert found.details["kl"].shape == found.details["max_logratio"].shape == shape
        assert found.policies is not None
        assert len(found.policies) == 5


def test_a_result_does_not_follow_the_callers_arrays() -> None:
    p, q = P.copy(), np.array(P[::-1])
    path = self_play(p, q, "spif", 1.0, 3)
    expected = self_play(P, P[::-1], "spif", 1.0, 3)
    p[:], q[:] = 0.0, 0.0
    np.testing.assert_array_equal(path.gap, expected.gap)
    np.testing.assert_array_equal(path.policies, expected.policies)


@pytest.mark.parametrize(
    ("beta", "rounds", "outcome", "said"),
    [
        (1.0, 80, Outcome.CONVERGED, r"converged: the last round moved \S+ in total .*\(beta 1\)"),
        (1.0, 3, Outcome.MOVING, "moving: the last round moved"),
        (0.2, 600, Outcome.CYCLE, "cycle of period two, "),
        (1.0, 0, Outcome.NO_ROUNDS, "no rounds were asked for"),
    ],
)
def test_how_a_path_ends(beta: float, rounds: int, outcome: Outcome, said: str) -> None:
    path = self_play([0.6, 0.4], [0.5, 0.5], "spif", beta, rounds)
    assert path.outcome is outcome
    assert path.converged == (outcome is Outcome.CONVERGED)
    assert path.status.startswith(outcome.value)
    assert re.match(said, path.status)


def test_a_step_is_said() -> None:
    path = self_play(P, Q, "spif", effective_step=[0.5, 1.0], rounds=2)
    same = self_play(P, Q, objectives.get("spif"), [1.0, 0.5], 2)
    np.testing.assert_array_equal(path.policies, same.policies)
    assert path.status.endswith("(beta 0.5 to 1 (effective step 0.5 to 1))")


def test_a_collapse_is_no_convergence() -> None:
    """SPIN below its threshold jumps to and fro; far outcomes that still travel are not at rest."""
    away = self_play([0.7, 0.2, 0.1], [0.2, 0.3, 0.5], "spin", 0.1, 30)
    assert away.outcome is Outcome.DIVERGED
    assert away.details["kl"][-1] > 1e10
    tiny = 1e-250
    travels = self_play([0.5, 0.5], [1.0 - tiny, tiny], "spif", 1.0, 20)
    assert travels.outcome is Outcome.MOVING
    assert travels.status.startswith("moving: KL(expert||policy) went from")


def test_a_loss_that_rewards_own_responses_diverges() -> None:
    class Flipped(Pairwise):
        name = "flipped"

        def pair_loss(self, d):
            return xp.softplus(d)

        def link_formula(self, u, delta):
            return -u

    path = self_play([0.7, 0.2, 0.1], [0.2, 0.3, 0.5], Flipped(), 1.0, 40)
    assert path.outcome is Outcome.DIVERGED
    assert "collapsed" in path.status
    assert path.details["kl"][-1] > path.details["kl"][0]


def test_laws_from_torch() -> None:
    import torch

    logits = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    law = torch.softmax(logits, 0)
    expected = self_play(law.detach().numpy(), [1 / 3] * 3, "spif", 1.0, 2)
    found = self_play(law, [1 / 3] * 3, "spif", 1.0, 2)
    np.testing.assert_array_equal(found.policy, expected.policy)
    narrow = torch.softmax(torch.zeros(300, dtype=torch.bfloat16), 0)
    np.testing.assert_allclose(laws.check_laws(law=narrow)[0].sum(), 1.0, rtol=1e-12)


def test_the_version_is_said() -> None:
    assert theory.__version__.count(".") >= 1
