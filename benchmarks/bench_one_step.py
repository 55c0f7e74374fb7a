"""One-step rounds and their path in beta against scipy on the same loss, and a sampled gap.

The peers get exact derivatives and, along the path, the last law as their start. What they do not
give: where the near branch ends, that no other law has less risk, an interval that knows its bias.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import minimize, root

from benchmarks.timing import timed
from theory import laws, objectives, one_step_path
from theory.equilibria.sampled import sampled_gap
from theory.result import FloatArray
from theory.rounds.one_step import one_step_round

BETAS = np.geomspace(4.0, 2.0, 40)
BETA = 0.6
STARTS = 20
TAU, RESAMPLES = 0.5, 1000


def run(full: bool) -> list[dict[str, Any]]:
    """Paths at n = 20, 200, 1000, a global branch at n = 50, a gap from 10^4 responses a side."""
    del full
    return [*map(_path_row, (20, 200, 1000)), _global_row(50), _gap_row(10_000)]


def instance(n: int) -> tuple[FloatArray, FloatArray]:
    """Expert and policy of n outcomes."""
    rng = np.random.default_rng(n)
    return laws.random_law(rng, (n,), 1.0), laws.random_law(rng, (n,), 1.0)


class Loss:
    """SPIF's (c = 1) one-step loss of log-laws x at beta: ``(p + q) r^2/2 - (p - q) r``, summed."""

    def __init__(self, p: FloatArray, q: FloatArray, beta: float) -> None:
        self.both, self.apart, self.log_q, self.beta = p + q, p - q, np.log(q), beta

    def slopes(self, x: FloatArray) -> FloatArray:
        """By outcome, in x."""
        return self.beta * (self.both * self.beta * (x - self.log_q) - self.apart)

    def of_logits(self, z: FloatArray) -> tuple[float, FloatArray]:
        """Loss and gradient."""
        x = z - np.logaddexp.reduce(z)
        r, slopes = self.beta * (x - self.log_q), self.slopes(x)
        value = (0.5 * self.both * r * r - self.apart * r).sum()
        return float(value), slopes - np.exp(x) * slopes.sum()

    def stationary(self, y: FloatArray) -> FloatArray:
        """``f' = lambda pi`` and ``sum pi = 1`` of (x, lambda)."""
        pi = np.exp(y[:-1])
        return np.append(self.slopes(y[:-1]) - y[-1] * pi, pi.sum() - 1.0)

    def jacobian(self, y: FloatArray) -> FloatArray:
        """Of :meth:`stationary`."""
        pi = np.exp(y[:-1])
        found = np.zeros((len(y), len(y)))
        found[:-1, :-1] = np.diag(self.beta**2 * self.both - y[-1] * pi)
        found[:-1, -1], found[-1, :-1] = -pi, pi
        return found


def _continued(p: FloatArray, q: FloatArray) -> FloatArray:
    """Laws at all betas by scipy's root, each from the last."""
    y, found = np.append(np.log(q), 0.0), []
    for beta in BETAS:
        loss = Loss(p, q, beta)
        y = root(loss.stationary, y, jac=loss.jacobian, tol=1e-12).x
        found.append(np.exp(y[:-1]))
    return np.array(found)


def _path_row(n: int) -> dict[str, Any]:
    p, q = instance(n)
    seconds, path = timed(lambda: one_step_path(p, q, "spif", BETAS))
    peer_s, laws_ = timed(partial(_continued, p, q))
    apart = np.abs(path.policies - laws_).sum(-1).max() / 2
    return {
        "name": f"one-step rounds, SPIF, {len(BETAS)} beta from {BETAS[0]:g} to {BETAS[-1]:g}",
        "size": n,
        "ours_s": seconds,
        "peer": "scipy root, exact Jacobian, warm starts",
        "peer_s": peer_s,
        "aim": None,
        "note": f"laws within {apart:.0e} in total variation; ours also looks for a fold, "
        f"of which there is {'one' if path.folds else 'none'}",
    }


def _searched(p: FloatArray, q: FloatArray) -> float:
    """Least loss of L-BFGS from the policy, the expert, and next to vertices."""
    loss, n = Loss(p, q, BETA), len(p)
    rng = np.random.default_rng(0)
    starts = [np.log(q), np.log(p)]
    vertices = rng.permutation(n)[: STARTS - 2]
    starts += [np.log(0.05 / n + 0.95 * np.eye(n)[j]) for j in vertices]
    options = {"ftol": 0.0, "gtol": 1e-12, "maxiter": 2000}
    return min(
        float(minimize(loss.of_logits, z, jac=True, method="L-BFGS-B", options=options).fun)
        for z in starts
    )


def _global_row(n: int) -> dict[str, Any]:
    p, q = instance(n)
    seconds, ours = timed(lambda: one_step_round(p, q, "spif", BETA, branch="global"))
    peer_s, risk = timed(partial(_searched, p, q), 1)
    at = Loss(p, q, BETA).of_logits(np.log(ours.policy))[0]
    return {
        "name": f"global branch of a one-step round, SPIF, beta = {BETA:g}",
        "size": n,
        "ours_s": seconds,
        "peer": f"scipy L-BFGS, {STARTS} starts",
        "peer_s": peer_s,
        "aim": None,
        "note": f"the peer's risk less ours {risk - at:.1e}; certified: {bool(ours.certified)}",
    }


def _gap_row(n: int) -> dict[str, Any]:
    p, q = instance(50)
    ref, rng = instance(51)[0][:50], np.random.default_rng(0)
    ref, spif = ref / ref.sum(), objectives.get("spif")
    r, log_ratio = spif.reward(p, q), np.log(q / ref)
    own, base = (rng.choice(50, n, p=law) for law in (q, ref))
    ours = partial(sampled_gap, spif, TAU, r[own], log_ratio[own], r[base])
    paid, weight = spif.b(r)[own] + TAU * log_ratio[own], np.exp(-spif.b(r)[base] / TAU)

    def bootstrap() -> FloatArray:
        again = np.random.default_rng(1)
        gaps = [
            paid[again.integers(n, size=n)].mean()
            + TAU * np.log(weight[again.integers(n, size=n)].mean())
            for _ in range(RESAMPLES)
        ]
        return np.array(gaps)

    seconds, found = timed(ours)
    peer_s, gaps = timed(bootstrap, 1)
    error = float(found.gap.standard_error)
    return {
        "name": f"duality gap from samples, SPIF, tau = {TAU:g}",
        "size": n,
        "ours_s": seconds,
        "peer": f"bootstrap, {RESAMPLES} resamples",
        "peer_s": peer_s,
        "aim": None,
        "note": f"gap {float(found.gap.value):.3f}, standard error {error:.4f}, "
        f"the bootstrap's {gaps.std():.4f}",
    }
