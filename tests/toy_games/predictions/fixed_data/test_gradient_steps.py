"""T16: rounds of k gradient steps on one data set: floor, early stopping, path, cone."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import objectives
from toy_games.dynamics.self_play import Data, SelfPlay, kl_to_expert
from toy_games.engine import simulator
from toy_games.engine.policies import Softmax
from toy_games.engine.trainable import beta_at
from toy_games.predictions.fixed_data import (
    inner_angle,
    inner_cosine,
    inner_steps,
    kl_after,
    least_cosine,
    own_noise,
)
from toy_games.predictions.stability import breaking_distance

SPECTRUM = np.array([0.05, 0.15, 0.3, 0.5])


def spectrum(p):
    """Fisher's matrix of a softmax, its positive eigenvalues and their vectors."""
    fisher = np.diag(p) - np.outer(p, p)
    values, vectors = np.linalg.eigh(fisher)
    return fisher, values[1:], vectors[:, 1:]


@pytest.mark.claim("T16.inner_floor", regime="dynamics")
@pytest.mark.parametrize(
    ("name", "step", "rate", "k"), [("spif", 1.2, 2.0, 5), ("spin", 1.5, 3.0, 3)]
)
def test_the_floor_of_rounds_of_k_steps(claim, name, step, rate, k):
    """m own samples a round, exact gradients on them: sum s_i/(2-s_i)/2m over the directions."""
    m, seeds = 2000, 100
    _, values, _ = spectrum(SPECTRUM)
    beta = float(beta_at(objectives.get(name), step))
    rows = pd.DataFrame({"seed": np.arange(seeds), "beta": beta, "rate": rate})
    run = SelfPlay(
        Softmax(4), name, rows.assign(steps_per_round=k), SPECTRUM, np.log(SPECTRUM),
        Data(batch=None, own_samples=m), {"kl": kl_to_expert},
    )  # fmt: skip
    table = simulator.run(run, np.arange(30, 110, 4) * k, progress=False)
    each = table.groupby("seed").kl.mean().to_numpy()
    predicted = float(own_noise(inner_steps(step, rate, values, k)).sum() / (2 * m))
    error = each.std(ddof=1) / np.sqrt(seeds)
    what = "KL to the data's law: 4 standard errors and the next order"
    claim.close(each.mean(), predicted, 4 * error, rtol=0.01, what=what, because="sampling")
    solved = float(own_noise(step)) * 3 / (2 * m)
    claim.exhibits(solved / predicted, 1.3, what="floor of solved rounds over it")


@pytest.mark.claim("T16.inner_floor", regime="dynamics", drops="matched_slopes")
def test_nwjs_floor_is_another(claim):
    """Its own samples weigh |b'(0)| = 1/e of the expert's, and its loss has another step."""
    m, step, rate, k = 2000, 1.5, 3.0, 3
    _, values, _ = spectrum(SPECTRUM)
    beta = float(beta_at(objectives.get("nwj"), step))
    rows = pd.DataFrame({"seed": np.arange(40), "beta": beta, "rate": rate})
    run = SelfPlay(
        Softmax(4), "nwj", rows.assign(steps_per_round=k), SPECTRUM, np.log(SPECTRUM),
        Data(batch=None, own_samples=m), {"kl": kl_to_expert},
    )  # fmt: skip
    found = simulator.run(run, np.arange(30, 110, 4) * k, progress=False).kl.mean()
    predicted = own_noise(inner_steps(step, rate, values, k)).sum() / (2 * m)
    claim.exhibits(predicted / found, 2.0, what="floor for matched slopes over NWJ's")


@pytest.mark.claim("T16.early_stop", "T16.inner_floor", regime="dynamics")
@pytest.mark.parametrize(("name", "step", "own", "rate", "k"), [("spif", 0.5, 1, 0.7, 3)])
def test_rounds_of_k_steps_on_one_data_set_stop_early_direction_by_direction(
    claim, name, step, own, rate, k
):
    n, seeds, record = 2000, 250, np.array([1, 3, 8, 16])
    _, values, vectors = spectrum(SPECTRUM)
    off = np.array([0.06, -0.05, 0.04, -0.03])
    parts = 0.5 * values * (off @ vectors) ** 2  # KL of the start, by direction
    data = np.random.default_rng(8).multinomial(n, SPECTRUM, seeds)[:, None] / n
    rows = pd.DataFrame({"seed": np.arange(seeds), "steps_per_round": k, "rate": rate})
    run = SelfPlay(
        Softmax(4), name, rows.assign(beta=float(beta_at(objectives.get(name), step))),
        SPECTRUM, np.log(SPECTRUM) + off, Data(batch=None, own_samples=n * own),
        {"kl": kl_to_expert}, given={"data": data},
    )  # fmt: skip
    table = simulator.run(run, record * k, progress=False)
    kl = table.pivot(index="step", columns="seed", values="kl").to_numpy()
    steps = inner_steps(step, rate, values, k)
    predicted = kl_after(record, steps, n, own, parts)
    error = kl.std(-1, ddof=1) / np.sqrt(seeds)
    what = "mean KL after 1, 3, 8, 16 rounds: 4 standard errors and the next order"
    claim.close(kl.mean(-1), predicted, 4 * error, rtol=0.03, what=what, because="sampling")
    alike = kl_after(record, np.full(3, step), n, own, parts)
    what = "formula of solved rounds off it, in its standard errors, after 3 rounds"
    claim.exhibits(abs(kl.mean(-1) - alike)[1] / error[1], 8.0, what=what)


def moved(name, step, rate, k, first):
    """Parameters (5, N) that SFT's first gradient moves and that k steps of a round do, near p."""
    off = 1e-5 * np.random.default_rng(first).standard_normal((5, 4))
    obj = None if name == "sft" else objectives.get(name)
    rows = pd.DataFrame({"seed": range(5), "beta": float(beta_at(obj, step)), "rate": rate})
    run = SelfPlay(
        Softmax(4), obj, rows.assign(steps_per_round=10**6), SPECTRUM, np.log(SPECTRUM) + off,
        Data(batch=None),
    )  # fmt: skip
    state = run.start()
    begun = state["theta"].numpy().copy()
    for i in range(k):
        state = run.advance(state, i)
    return off, state["theta"].numpy() - begun


@pytest.mark.claim("T16.inner_path", regime="dynamics")
@settings(max_examples=8)
@given(
    st.sampled_from(["spin", "spif", "centred_spif", "ipo", "iq_learn", "exponential"]),
    st.floats(0.3, 6.0),
    st.integers(2, 20),
    st.floats(0.1, 0.9),
)
def test_within_a_round_directions_go_their_own_shares(claim, name, step, k, share):
    """Exact gradients: share 1 - rho^k a direction, the cosine with SFT's, SFT at s = 1."""
    fisher, values, vectors = spectrum(SPECTRUM)
    rate = share * step / values[-1]
    off, path = moved(name, step, rate, k, 2)
    gradient = -(off @ fisher) @ vectors
    steps = inner_steps(step, rate, values, k)
    size = np.abs(path).max()
    what = "way of a round of k steps in Fisher's eigenbasis"
    claim.close(path @ vectors / size, steps * gradient / values / size, 1e-3,
                what=what, because="expansion")  # fmt: skip
    found = (gradient * (path @ vectors)).sum(-1)
    found /= np.linalg.norm(gradient, axis=-1) * np.linalg.norm(path, axis=-1)
    claim.close(found, inner_cosine(values, gradient, steps), 1e-3,
                what="cosine with SFT's first gradient", because="expansion")  # fmt: skip
    _, sft = moved("sft", 1.0, share / values[-1], k, 2)
    at_one = moved(name, 1.0, share / values[-1], k, 2)[1]
    claim.close(at_one / np.abs(sft).max(), sft / np.abs(sft).max(), 1e-3,
                what="at s = 1: k steps of SFT", because="expansion")  # fmt: skip


@pytest.mark.claim("T16.inner_path", regime="tabular")
def test_a_round_leaves_sfts_direction_where_k_rate_lambda_reaches_its_step(claim):
    """The angle is (k-1) rate/2s times the spread of lambda, while that is small."""
    _, values, _ = spectrum(SPECTRUM)
    rng = np.random.default_rng(0)
    gradient = rng.standard_normal((20, 3)) * np.sqrt(values)
    for step in (0.3, 1.0, 8.0):
        rate = 2e-3 * step
        angle = np.arccos(inner_cosine(values, gradient, inner_steps(step, rate, values, 41)))
        predicted = inner_angle(step, rate, values, gradient, 41)
        claim.close(angle / predicted, 1.0, 0.05, what="angle over its first order",
                    because="expansion")  # fmt: skip
    end = np.arccos(inner_cosine(values, gradient, inner_steps(1.0, 1.0, values, 10**4)))
    solved = np.arccos(inner_cosine(values, gradient, np.ones(3)))
    claim.close(end, solved, 1e-6, what="a solved round's angle is the best response's")


@pytest.mark.claim("T16.inner_cone", regime="tabular")
@settings(max_examples=50)
@given(st.floats(0.2, 20.0), st.floats(0.01, 0.99), st.integers(2, 200), st.integers(0, 10**6))
def test_no_gradient_leaves_the_cone_and_two_directions_reach_its_edge(claim, step, share, k, seed):
    rng = np.random.default_rng(seed)
    values = np.sort(rng.uniform(0.001, 0.5, 6))
    rate = share * step / values[-1]
    steps = inner_steps(step, rate, values, k)
    least = float(least_cosine(step, rate, values, k))
    gradient = rng.standard_normal((200, 6)) * rng.exponential(1.0, (200, 6))
    found = inner_cosine(values, gradient, steps)
    claim.below(least, found.min(), what="least cosine, seen", atol=1e-12)
    way = (steps / values)[[0, -1]]
    edge = np.zeros(6)
    edge[[0, -1]] = np.sqrt(way[::-1] / way.sum())
    claim.close(inner_cosine(values, edge, steps), least, 1e-9, what="cosine at the edge")


@pytest.mark.claim("T16.inner_cone", regime="tabular")
@pytest.mark.parametrize(("step", "degrees"), [(10.0, 3.2), (3.0, 14.2)])
def test_rounds_that_hold_stay_near_sfts_direction(claim, step, degrees):
    """At the breaking distance in small steps, over spectra down to eigenvalue 0."""
    inner = 1e-4
    k = float(breaking_distance(step, inner)) / inner
    least = least_cosine(step, inner, np.array([1e-6, 0.1, 1.0]), k)
    angle = float(np.degrees(np.arccos(least)))
    claim.close(angle, degrees, 0.1, what="largest angle, degrees", because="theory")
    share = 2.0 / float(breaking_distance(step))
    bound = np.degrees(np.arccos(2.0 * np.sqrt(share) / (1.0 + share)))
    claim.close(angle, bound, 0.01, what="against its closed form", because="expansion")


@pytest.mark.claim("T16.inner_cone", regime="dynamics", drops="near_expert")
def test_from_afar_a_round_leaves_the_cone(claim):
    """A start on a response that the expert hardly gives: the loss is curved otherwise there."""
    expert = np.array([0.9, 0.05, 0.03, 0.02])
    _, values, _ = spectrum(expert)
    step, k = 1.0, 60
    rate = 0.05 / values[-1]
    beta = float(beta_at(objectives.get("spif"), step))
    rows = pd.DataFrame({"seed": [0], "beta": beta, "rate": rate, "steps_per_round": k})
    begun = np.log([1e-4, 0.9799, 0.018, 0.002])
    run = SelfPlay(Softmax(4), "spif", rows, expert, begun, Data(batch=None))
    state = run.start()
    path = [state["theta"].numpy()[0]]
    for i in range(k):
        state = run.advance(state, i)
        path.append(state["theta"].numpy()[0])
    first, way = path[1] - path[0], path[-1] - path[0]
    cosine = first @ way / np.linalg.norm(first) / np.linalg.norm(way)
    angles = np.degrees(np.arccos([cosine, float(least_cosine(step, rate, values, k))]))
    claim.exhibits(angles[0] / angles[1], 1.5, what="angle over the cone's")


@pytest.mark.claim("T16.inner_path", regime="dynamics", drops="matched_slopes")
def test_nwjs_round_bends_as_another_step(claim):
    """Its loss's own step is 1/(beta/e + 1 - 1/e) where its link's is 1/beta."""
    fisher, values, vectors = spectrum(SPECTRUM)
    step, rate, k = 4.0, 1.0, 12
    off, path = moved("nwj", step, rate, k, 5)
    gradient = -(off @ fisher) @ vectors
    predicted = inner_steps(step, rate, values, k) * gradient / values
    wrong = np.abs(path @ vectors - predicted).max() / np.abs(predicted).max()
    claim.exhibits(wrong, 0.1, what="way of k steps off the matched slopes', share of it")
    own = 1.0 / (1.0 / (step * np.e) + 1.0 - 1.0 / np.e)
    path_own = inner_steps(own, rate, values, k) * gradient / values
    claim.close(path @ vectors / np.abs(path_own).max(), path_own / np.abs(path_own).max(), 1e-3,
                what="way at the loss's own step", because="expansion")  # fmt: skip
