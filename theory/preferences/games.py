"""General preferences ``(..., n, n)``: what is accepted, examples, win rates, laws of pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from theory import arguments, laws, xp
from theory.errors import InvalidInput, refuse
from theory.result import FloatArray

TOLERANCE = 1e-9


def preference_problems(preference: Any, name: str = "P") -> list[str]:
    """List what keeps an array from being a general preference ``(..., n, n)``."""
    try:
        array = laws.as_numbers(preference)
    except (TypeError, ValueError) as error:
        return [f"{name}: not an array of numbers ({error})"]
    if array.ndim < 2 or array.shape[-1] != array.shape[-2] or array.shape[-1] == 0:
        return [f"{name}: shape {array.shape}; needed is (..., n, n) with n >= 1"]
    if not array.size:
        return [f"{name}: shape {array.shape} has no prompts; needed is (..., n, n), all >= 1"]
    finite = np.isfinite(array)
    filled = np.where(finite, array, 0.5)
    total = filled + np.swapaxes(filled, -1, -2)
    n = array.shape[-1]
    rounding = laws.rounding_of(preference, TOLERANCE)
    off_diagonal = np.abs(filled - 0.5) * np.eye(n) > rounding
    lopsided = (np.abs(total - 1.0) > rounding) & ~np.eye(n, dtype=bool)
    checks = (
        (~finite, array, "not finite", "a probability"),
        (finite & ((array < 0) | (array > 1)), array, "out of range", "a value in [0, 1]"),
        (off_diagonal, array, "diagonal", "1/2 against itself"),
        (lopsided, total, "P + P^T", "P(y > y') + P(y' > y) = 1"),
    )
    problems = []
    for bad, value, what, needed in checks:
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            seen = f"{value[where]:.9g}, {int(bad.sum())} in all"
            problems.append(f"{name}: {what} at {where} ({seen}); needed is {needed}")
    return problems


def check_preference(preference: Any) -> FloatArray:
    """Return a preference ``(..., n, n)`` as float64 with ``P + P^T = 1`` to rounding.

    An outcome that loses to all others (0 against each) serves as padding: no equilibrium and no
    gap depends on it.

    Raises:
        InvalidInput: entries outside [0, 1], ``P + P^T != 1`` or a diagonal other than 1/2 (beyond
            1e-9, or the rounding of a narrower type), all problems at once with the first index
            of each.
    """
    refuse(preference_problems(preference))
    array = laws.as_numbers(preference)
    return np.asarray(0.5 * (array + (1.0 - np.swapaxes(array, -1, -2))))


def check_game(preference: Any, **named: Any) -> tuple[FloatArray, ...]:
    """Return the preference and laws ``(..., n)`` over its outcomes, prompts broadcast."""
    problems = preference_problems(preference)
    if problems:
        for name, law in named.items():
            if not preference_problems(law):
                problems.insert(0, f"swapped? {name} is a preference; the preference comes first")
    n = None if problems else np.shape(preference)[-1]
    problems += [p for name, law in named.items() for p in laws.law_problems(law, name, n)]
    refuse(problems)
    array = check_preference(preference)
    given = {name: laws.check_laws(**{name: law})[0] for name, law in named.items()}
    try:
        shape = np.broadcast_shapes(array.shape[:-2], *(law.shape[:-1] for law in given.values()))
    except ValueError:
        raise InvalidInput(
            f"prompt axes do not broadcast: P {array.shape[:-2]}, "
            + ", ".join(f"{name} {law.shape[:-1]}" for name, law in given.items())
        ) from None
    n = array.shape[-1]
    full = (np.array(np.broadcast_to(law, (*shape, n))) for law in given.values())
    return np.broadcast_to(array, (*shape, n, n)), *full


def bradley_terry(scores: Any) -> FloatArray:
    """``P(y > y') = s(score(y) - score(y'))`` of scores ``(..., n)`` in nats: (..., n, n).

    Raises:
        InvalidInput: scores that are not finite numbers.
    """
    try:
        score = laws.as_numbers(scores)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"scores: not an array of numbers ({error})") from None
    if score.ndim == 0 or score.size == 0 or not np.all(np.isfinite(score)):
        raise InvalidInput(f"scores: shape {score.shape}; needed are finite numbers (..., n)")
    return np.asarray(xp.sigmoid(score[..., :, None] - score[..., None, :]))


def rock_paper_scissors(strength: Any = 1.0, n: Any = 3) -> FloatArray:
    """Cyclic preference of odd ``n``: each outcome beats the ``(n-1)/2`` before it.

    Args:
        strength: ``2P - 1`` of a win, in (0, 1]; 1 wins for sure.
        n: outcomes, odd and >= 3; 3 is rock (0), paper (1), scissors (2).

    Returns:
        ``P`` (n, n).

    Raises:
        InvalidInput: a strength or number out of range.

    >>> rock_paper_scissors().tolist()
    [[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]]
    """
    problems = []
    if not laws.is_real(strength) or not 0 < strength <= 1:
        problems.append(f"strength={strength!r}; needed is within (0, 1]")
    if not isinstance(n, (int, np.integer)) or n < 3 or n % 2 == 0:
        problems.append(f"n={n!r}; needed is an odd number >= 3")
    refuse(problems)
    ahead = (np.arange(n)[:, None] - np.arange(n)[None, :]) % n
    win = np.where(ahead == 0, 0.0, np.where(ahead <= (n - 1) // 2, 1.0, -1.0))
    return np.asarray(0.5 + 0.5 * strength * win)


def random_preference(
    rng: np.random.Generator, n: int, shape: tuple[int, ...] = (), strength: float = 1.0
) -> FloatArray:
    """Independent ``P(y > y')`` for each pair, uniform within ``1/2 +- strength/2``.

    Raises:
        InvalidInput: no generator, no outcomes, no shape, or a strength outside [0, 1].
    """
    problems = arguments.generator("rng", rng) + arguments.whole("n", n, 1)
    problems += arguments.shape("shape", shape)
    if not laws.is_real(strength) or not 0 <= strength <= 1:
        problems.append(f"strength={strength!r}; needed is within [0, 1]")
    refuse(problems)
    upper = np.triu(rng.uniform(-strength, strength, (*shape, n, n)), 1)
    return np.asarray(0.5 + 0.5 * (upper - np.swapaxes(upper, -1, -2)))


def low_rank(
    rng: np.random.Generator,
    n: int,
    rank: Any = 2,
    shape: tuple[int, ...] = (),
    spread: float = 1.0,
) -> FloatArray:
    """Preference ``s(S)`` with a random skew matrix ``S`` of even ``rank``: rank/2 cyclic planes.

    Rank 2 embeds each outcome in one plane and prefers by signed area.

    Raises:
        InvalidInput: no generator, no outcomes, another rank, no shape, or a spread that is no
            number >= 0.
    """
    problems = arguments.whole("n", n, 1) + arguments.number("spread", spread, 0.0)
    whole = isinstance(rank, (int, np.integer))
    if not problems and (not whole or rank < 2 or rank % 2 or rank > n):
        problems.append(f"rank={rank!r}; needed is an even number, 2 <= rank <= n = {n}")
    refuse(problems + arguments.generator("rng", rng) + arguments.shape("shape", shape))
    left, right = spread * rng.standard_normal((2, *shape, n, rank // 2))
    area = left @ np.swapaxes(right, -1, -2)
    return np.asarray(xp.sigmoid(area - np.swapaxes(area, -1, -2)))


def expected_win(preference: FloatArray, policy: FloatArray) -> FloatArray:
    """``P(y > pi)`` without checks; a sum of non-negative terms, so accurate when it is tiny."""
    return np.asarray((preference @ policy[..., None])[..., 0])


def win_rate(preference: Any, policy: Any) -> FloatArray:
    """``P(y > pi) = E_{y'~pi} P(y > y')`` of each outcome against the policy, shape (..., n).

    >>> win_rate(rock_paper_scissors(), [0.5, 0.25, 0.25]).tolist()
    [0.5, 0.625, 0.375]

    Args:
        preference: ``P`` (..., n, n).
        policy: probabilities (..., n).

    Raises:
        InvalidInput: a preference or law that is none, all problems at once.
    """
    checked, law = check_game(preference, policy=policy)
    return expected_win(checked, law)


def winner_loser(preference: Any, policy: Any) -> tuple[FloatArray, FloatArray]:
    """Winner and loser law of pairs ``y, y' ~ pi`` (reconstruction, section 4).

    ``p_w = 2 pi P(y > pi)`` and ``p_l = 2 pi (1 - P(y > pi))``; both sum to 1 as
    ``P(pi > pi) = 1/2``, and ``log p_w/p_l = logit P(y > pi)``.

    Returns:
        Two laws (..., n).

    Raises:
        InvalidInput: a preference or law that is none, all problems at once.
    """
    checked, law = check_game(preference, policy=policy)
    lose = expected_win(np.swapaxes(checked, -1, -2), law)
    return 2.0 * law * expected_win(checked, law), 2.0 * law * lose
