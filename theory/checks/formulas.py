"""Quick checks: an objective's formulas against each other.

Each check is a generator ``check(obj)`` of sentences, one for each thing that is wrong; ``QUICK``
names them and says why one does not apply to an objective.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from theory import laws
from theory.certificate import require_potential
from theory.errors import Unavailable
from theory.objectives import Objective, derivatives, risk_response
from theory.objectives.base import PREFERENCE
from theory.result import FloatArray

REWARDS = np.sinh(np.linspace(-7.6, 7.6, 305))
"""Rewards (nats) within +-1000 at which payoffs and pair losses are looked at; 0 among them."""
RATIOS = np.array([-12.0, -4.0, -1.5, -0.5, -0.1, 0.1, 0.5, 1.5, 4.0, 12.0])
EXPERT = np.array([[0.4, 0.3, 0.2, 0.1], [0.05, 0.15, 0.3, 0.5], [0.6, 0.3, 0.0999, 0.0001]])
OWN = np.array([[0.1, 0.35, 0.15, 0.4], [0.25, 0.25, 0.3, 0.2], [0.01, 0.1, 0.29, 0.6]])
XP = "write it with the functions of theory.xp, which take numpy and torch alike"


def _parts(obj: Objective) -> Iterator[str]:
    """There is something to play or to train with."""
    if obj.missing("risk") and obj.missing("reward"):
        yield f"it has neither a loss nor a best response: {obj.missing('risk')}"
    if obj.link_without_limit:
        yield obj.link_without_limit


def _formulas(obj: Objective) -> Iterator[str]:
    """Every formula takes numpy and torch, keeps shape, dtype and gradient, and is no NaN."""
    import torch

    # 0 as well: rewards and log-ratios are 0 where training starts
    rewards = _within(obj, np.append(np.linspace(-30.0, 30.0, 13) + 0.1, 0.0))
    near = _within(obj, np.append(np.linspace(-2.0, 2.0, 9) + 0.05, 0.0))
    for name, formula, at in _given(obj, rewards, near):
        found: dict[str, Any] = {}
        for kind, x in (
            ("numpy arrays", at),
            ("torch tensors", torch.tensor(at, requires_grad=True)),
            ("torch tensors", torch.tensor(at, dtype=torch.float32, requires_grad=True)),
        ):
            try:
                value = formula(x)
            except NotImplementedError:
                raise
            except Exception as error:
                said = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                yield f"{name} fails on {kind} ({said}); {XP}"
                return
            if not isinstance(value, type(x)) and not isinstance(value, np.generic):
                yield f"{name} returns {type(value).__name__} for {kind}; {XP}"
                return
            if kind[0] == "t" and value.dtype not in (x.dtype, torch.float64):
                yield f"{name} turns {x.dtype} into {value.dtype}"
            found.setdefault(kind, value)
        ours, theirs = (np.asarray(_detached(found[k])) for k in ("numpy arrays", "torch tensors"))
        wanted = np.shape(at) if name != "group_risk" else np.shape(at)[:-1]
        if ours.shape != wanted:
            yield f"{name} returns shape {ours.shape} where {wanted} is needed"
        if np.isnan(ours).any():
            where = f" at {at[np.isnan(ours)][0]:.3g}" if ours.shape == at.shape else ""
            yield (
                f"{name} is NaN{where}; where it is undefined, say so: reward_domain, and absent = "
                "{'loss': reason}"
            )
        if not np.allclose(ours, theirs, rtol=1e-9, atol=1e-9, equal_nan=True):
            yield f"{name} has other values in numpy than in torch"
        if (
            np.ptp(ours, axis=-1).max(initial=0.0) > 1e-9
            and not found["torch tensors"].requires_grad
        ):
            yield f"{name} loses the gradient in torch; {XP}"
        gradient = derivatives.derivative(formula, at)
        if np.isnan(gradient).any():
            yield (
                f"{name} has a gradient of NaN at {at[np.isnan(gradient)][0]:.3g} in torch: a root "
                "of 0, or the side of a where that is not taken, has none"
            )


def _given(
    obj: Objective, rewards: FloatArray, near: FloatArray
) -> Iterator[tuple[str, Callable[[Any], Any], FloatArray]]:
    """The formulas of one array that a definition writes: name, function, where to look."""
    if obj.writes("link_formula") or obj.has_gain:
        yield (
            "link_formula" if not obj.has_gain else "gain",
            obj.link_at_equal_laws,
            np.append(RATIOS, 0.0),
        )
    if obj.form == "pointwise" and obj.writes("a", "b"):
        yield from (("a", obj.a, rewards), ("b", obj.b, rewards))
    if not obj.missing("risk"):
        table = np.stack([near, near[::-1]])
        extras = _extras(obj)
        if obj.missing("loss"):
            yield "group_risk", lambda r: obj.reward_risk(r, 0.5 * r), table
        elif "history" in obj.needs:
            yield "reward_loss", lambda r: obj.reward_loss(r, 0.5 * r, r_history=0.1 * r), near
        elif obj.form == "pairwise":
            yield "pair_loss", lambda d: obj.reward_loss(d, 0.0 * d), rewards
        else:
            yield "the loss", lambda r: obj.reward_loss(r, 0.5 * r, **extras), near


def _rewarded(obj: Objective) -> Iterator[str]:
    """Expert responses are rewarded, not own ones."""
    if obj.rewards_expert:
        return
    slope = "" if obj.missing("risk") else " (its slope in the expert's reward at the start is "
    slope += "" if obj.missing("risk") else f"{obj.gradient_at_start[0]:.3g}, needed is one < 0)"
    yield f"the loss rewards own responses, or does not reward expert ones{slope}; check its sign"


def _payoffs(obj: Objective) -> Iterator[str]:
    """``a`` increases and ``b`` decreases somewhere, both are concave, and not both linear."""
    r = _within(obj, REWARDS)
    r = r[np.isfinite(np.asarray(obj.a(r))) & np.isfinite(np.asarray(obj.b(r)))]
    slopes = [derivatives.derivative(f, r) for f in (obj.a, obj.b)]
    bends = [derivatives.derivative(f, r, 2) for f in (obj.a, obj.b)]
    if not ((slopes[0] > 0) & (slopes[1] < 0)).any():
        yield "no reward at which a increases and b decreases: check their signs"
        return
    bounded = np.isfinite(obj.reward_domain).all()
    linear = [np.all(np.abs(b) <= 1e-12 * np.abs(s)) for b, s in zip(bends, slopes, strict=True)]
    if not bounded and all(linear):
        yield (
            "a and b are linear, so no reward is a best response; add a penalty, or bound the "
            "rewards by reward_domain"
        )
        return
    inner = derivatives.derivative(obj.concave_in, r)
    curved = derivatives.derivative(obj.concave_in, r, 2)
    if not np.all(inner[np.isfinite(inner)] >= 0):
        yield "concave_in does not increase"
    for name, slope, bend in zip("ab", slopes, bends, strict=True):
        # second derivative in s(r), times s'^2: f'' - f' s''/s'
        bend = bend - slope * np.where(inner > 0, curved / np.where(inner > 0, inner, 1.0), 0.0)
        rises = bend > 1e-9 * (np.abs(slope) + np.abs(bend).max() * 1e-6)
        rises &= np.isfinite(bend) & np.isfinite(slope)
        if rises.any():
            yield (
                f"{name} is not concave at reward {r[rises][0]:.3g}: there may be no best response;"
                " where it is concave in an increasing function of r, define concave_in(r)"
            )


def _best_response_to_payoffs(obj: Objective) -> Iterator[str]:
    """No reward pays more than that of the link, and the payoffs balance there."""
    p, q = (1.0 / (1.0 + np.exp(-sign * RATIOS)) for sign in (1.0, -1.0))
    reward = np.asarray(obj.link(RATIOS))
    low, high = obj.reward_domain
    written = "the link contradicts a and b" if obj.writes("link_formula") else "check a and b"
    if np.any((reward < low) | (reward > high)) or np.isnan(reward).any():
        yield f"the link gives {reward[0]:.3g} ... {reward[-1]:.3g}, outside of reward_domain"
        return
    other = np.concatenate(
        [_within(obj, REWARDS), reward, [x for x in (low, high) if abs(x) < 1e9]]
    )

    def payoff(r: FloatArray) -> FloatArray:
        value = p[:, None] * np.asarray(obj.a(r)) + q[:, None] * np.asarray(obj.b(r))
        return np.where(np.isnan(value), -np.inf, value)

    ours, theirs = np.diag(payoff(reward[None, :] * np.ones((len(p), 1)))), payoff(other[None, :])
    usual = np.nanmedian(np.where(np.isfinite(theirs), np.abs(theirs), np.nan), axis=-1)
    better = theirs.max(-1) > ours + 1e-9 * (usual + np.abs(ours))
    if better.any():
        k = int(np.argmax(better))
        best = other[int(theirs[k].argmax())]
        yield (
            f"at log-ratio {RATIOS[k]:g} the reward of the link is {reward[k]:.4g}, but reward "
            f"{best:.4g} pays more: {written}"
        )
        return
    up, down = (w * derivatives.derivative(f, reward) for w, f in ((p, obj.a), (q, obj.b)))
    inside = (reward > low) & (reward < high)
    forces = np.abs(up) + np.abs(down)
    rounding = 1e-6 * forces + 1e-12 * np.median(forces)
    beside = 1e-7 * (np.median(np.abs(reward)) + np.abs(reward))
    left, right = (
        sum(w * derivatives.derivative(f, at) for w, f in ((p, obj.a), (q, obj.b)))
        for at in (reward - beside, reward + beside)
    )
    peak = (left >= -rounding) & (right <= rounding)  # of payoffs with a corner
    off = inside & (np.abs(up + down) > rounding) & ~peak
    if off.any():
        k = int(np.argmax(off))
        yield (
            f"at log-ratio {RATIOS[k]:g} the payoffs do not balance at the link's reward "
            f"{reward[k]:.4g}: {written}"
        )


def _pair_loss(obj: Objective) -> Iterator[str]:
    """Convex, not linear, and not falling forever at a slope."""
    slope = derivatives.derivative(obj.pair_loss, REWARDS)  # type: ignore[attr-defined]
    far = float(derivatives.derivative(obj.pair_loss, 1e8))  # type: ignore[attr-defined]
    finite = np.isfinite(slope)
    d, slope = REWARDS[finite], slope[finite]
    at_zero = abs(float(derivatives.derivative(obj.pair_loss, 0.0)))  # type: ignore[attr-defined]
    falls = np.diff(slope) < -1e-9 * (np.abs(slope[1:]) + at_zero)
    if falls.any():
        yield f"pair_loss is not convex near d = {d[1:][falls][0]:.3g}"
    elif np.ptp(slope) <= 1e-12 * at_zero:
        yield "pair_loss is linear, so no rewards minimise it"
    elif far < -1e-6 * at_zero:
        yield "pair_loss falls without bound: for laws far apart no rewards minimise it"


def _best_response_to_risk(obj: Objective) -> Iterator[str]:
    """The reward is a stationary point of the risk, and no other reward has a lower one."""
    import torch

    reward = obj.reward(EXPERT, OWN)
    source = "link_formula" if obj.has_link else "the risk"
    if not np.isfinite(reward).all():
        yield f"the best response is not finite: {reward.ravel()[:4]}"
        return
    _, on_expert, on_own = risk_response.risk_gradient(obj.reward_risk, reward, EXPERT, OWN)
    size = (np.abs(on_expert) + np.abs(on_own)).max()
    if not np.all(np.abs(on_expert + on_own) <= 1e-7 * size):
        yield f"the best response of {source} does not minimise the risk: its gradient is not 0"
        return
    rng, weights = np.random.default_rng(0), (torch.tensor(EXPERT), torch.tensor(OWN))

    def risk(r: FloatArray) -> FloatArray:
        return np.asarray(obj.reward_risk(torch.tensor(r), torch.tensor(r), *weights))

    for scale in (0.01, 0.3, 3.0, 30.0):
        other = reward + scale * rng.standard_normal(reward.shape)
        ours, theirs = risk(reward), risk(other)
        if np.any(theirs < ours - 1e-9 * (np.abs(ours) + np.abs(theirs))):
            yield f"another reward has a lower risk than the best response of {source}"
            return


def _trained(obj: Objective) -> Iterator[str]:
    """The loss that is trained is the one whose best response is solved."""
    x, y = _within(obj, np.linspace(-2.0, 2.0, 9) + 0.05), _within(obj, np.linspace(-3.0, 3.0, 7))
    pairs = x[:, None], y[None, :]
    trained = np.asarray(obj.reward_loss(*pairs)) + 0.0 * (pairs[0] + pairs[1])
    size = 1e-9 * np.abs(trained).max()
    if obj.form == "pairwise":
        solved, said = obj.pair_loss(pairs[0] - pairs[1]), "pair_loss"  # type: ignore[attr-defined]
    else:
        solved, said = -(np.asarray(obj.a(pairs[0])) + np.asarray(obj.b(pairs[1]))), "-a(r) - b(r')"
    if np.ptp(trained - np.asarray(solved)) > size:
        yield f"the loss that is trained is not {said}, of which the best response is solved"
    mean = float(np.asarray(obj.reward_risk(x, y)))
    if not abs(mean - trained.mean()) <= size:
        yield f"reward_risk of groups is {mean:.6g} where the mean loss is {trained.mean():.6g}"


def _opponent(obj: Objective) -> Iterator[str]:
    """Own responses come from a law."""
    current, initial, base = np.log(np.stack([EXPERT, OWN, OWN[::-1]]))
    log_law = np.asarray(obj.opponent(current, initial, base))
    if log_law.shape != current.shape:
        yield f"opponent returns shape {log_law.shape} where {current.shape} is needed"
    elif not np.allclose(np.exp(log_law).sum(-1), 1.0, rtol=0.0, atol=1e-9):
        yield "opponent is no law: its probabilities do not sum to 1; end with xp.log_normalise"


def _weights(obj: Objective) -> Iterator[str]:
    """The risk reads its weights: a response listed twice with half its weight is the same one."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, *EXPERT.shape))
    once = np.asarray(obj.reward_risk(x, y, EXPERT, OWN))
    first = [np.concatenate([0.5 * w[:, :1], 0.5 * w[:, :1], w[:, 1:]], -1) for w in (EXPERT, OWN)]
    again = [np.concatenate([r[:, :1], r], -1) for r in (x, y)]
    if not np.allclose(np.asarray(obj.reward_risk(*again, *first)), once, rtol=1e-9, atol=1e-9):
        yield (
            "the risk changes when a response is listed twice with half its weight each: use the "
            "weights (xp.weighted_mean), and no correction for the number of responses"
        )
    even, ones = obj.reward_risk(x, y), np.ones_like(x)
    if not np.allclose(np.asarray(obj.reward_risk(x, y, ones, ones)), even, rtol=1e-9, atol=1e-9):
        yield "the risk without weights is not that of equal weights"


def _link_shape(obj: Objective) -> Iterator[str]:
    """The link increases."""
    u = np.linspace(-30.0, 30.0, 241)
    r = np.asarray(obj.link(u, 0.5))
    if np.isnan(r).any():
        yield f"the link is NaN at log-ratio {u[np.isnan(r)][0]:.3g}"
    elif np.any(np.diff(r) < -1e-9 * (1.0 + np.abs(r[1:]))):
        yield "the link does not increase"


def _density_link(obj: Objective) -> Iterator[str]:
    """The link from densities, which large laws use, is that from log-ratios."""
    delta = laws.triangular(EXPERT, OWN)[..., None]
    wanted = np.asarray(obj.link(laws.log_ratio(EXPERT, OWN), delta))
    if not np.allclose(obj.density_link(EXPERT, OWN, delta), wanted, rtol=1e-9, atol=0.0):
        yield "density_link is not the link at log expert/policy"


def _potential(obj: Objective) -> Iterator[str]:
    """The written potential is the integral of the link."""
    try:
        require_potential(obj)
    except Unavailable as error:
        yield str(error).removeprefix(f"{obj.name}: ")


def _slope_range(obj: Objective) -> Iterator[str]:
    """The written range of the slope is that of the link."""
    written, exact = obj.slope_range(), derivatives.slope_range(obj.link_at_equal_laws)
    if np.isfinite(obj.slope_at_zero) and not np.allclose(written, exact, rtol=1e-6, atol=1e-9):
        yield f"slope_range is {written} where the link's is {exact}"


def _within(obj: Objective, rewards: FloatArray) -> FloatArray:
    """Those of the rewards that lie inside the objective's domain, or as many of them squeezed."""
    low, high = obj.reward_domain
    inside = rewards[(rewards > low) & (rewards < high)]
    if len(inside) >= 3:
        return inside
    return np.asarray(np.linspace(low, high, len(rewards) + 2)[1:-1])


def _extras(obj: Objective) -> dict[str, float]:
    return dict(zip(PREFERENCE, (1.0, 0.0), strict=True)) if "preference" in obj.needs else {}


def _detached(x: Any) -> Any:
    return x.detach() if hasattr(x, "detach") else x


def _pairs_or_groups(obj: Objective) -> str | None:
    return "its best response is per outcome" if obj.form == "pointwise" else obj.missing("reward")


def _own_payoffs(obj: Objective) -> str | None:
    payoffs = obj.form == "pointwise" and obj.writes("a", "b")
    return None if payoffs else "no payoffs a and b of its own"


def _solved_from(obj: Objective) -> str | None:
    if obj.missing("loss") or obj.needs & {"preference", "history"} or obj.reference_free:
        return "no loss of two responses alone"
    if obj.form == "pairwise":
        return None if obj.writes("pair_loss") else "no pair_loss"
    return None if obj.writes("a", "b") else "no payoffs a and b"


def _unless(written: str, part: str) -> Callable[[Objective], str | None]:
    return lambda o: o.missing(part) or (None if o.writes(written) else f"no {written}")


QUICK: dict[str, tuple[Callable[[Objective], Iterator[str]], Callable[[Objective], str | None]]] = {
    "parts": (_parts, lambda o: None),
    "formulas": (_formulas, lambda o: None),
    "payoffs": (_payoffs, _own_payoffs),
    "pair loss": (
        _pair_loss,
        lambda o: None if o.form == "pairwise" and not o.missing("loss") else "no pair_loss",
    ),
    "who is rewarded": (_rewarded, lambda o: None),
    "link shape": (_link_shape, lambda o: o.missing("link")),
    "density link": (_density_link, _unless("density_link", "link")),
    "link and payoffs": (_best_response_to_payoffs, lambda o: _own_payoffs(o) or o.missing("link")),
    "loss": (_trained, _solved_from),
    "opponent": (_opponent, lambda o: None if o.writes("opponent") else "it is pi_t"),
    "weights": (_weights, lambda o: None if o.form == "group" else "its risk is a plain mean"),
    "best response": (_best_response_to_risk, _pairs_or_groups),
    "potential": (_potential, _unless("potential_formula", "potential")),
    "slope range": (_slope_range, _unless("slope_range", "link")),
}
"""Every quick check, and why it does not apply to an objective (None if it does)."""
DECISIVE = ("parts", "formulas", "payoffs", "pair loss", "who is rewarded")
"""Checks without which the later ones mean nothing."""
