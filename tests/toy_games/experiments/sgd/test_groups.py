"""SGD with finite groups: where it goes, and the effective step of their limit."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from tests.toy_games.experiments.sgd.cells import errors, run
from theory.objectives.finite_groups import centred_local_gain, finite_group_link, renyi_local_gain
from toy_games.games.sgd_case import Case
from toy_games.predictions.linearised import distance


@pytest.mark.claim("T17.finite_groups", regime="dynamics")
@pytest.mark.parametrize("name", ["centred_spif", "renyi"])
def test_sgd_with_groups_goes_where_their_expected_risk_is_least(claim, name):
    table = run(
        "floor", name, seeds=12, steps=150, group=2, floor_batches=(128,), floor_rates=(0.1,)
    )
    mean, error = errors(table, "batch", "from_limit")
    claim.close(mean, table.predicted.iloc[0], 4.0 * float(error.iloc[0]), rtol=0.05,
                what="E D^2 to the groups' own limit", because="sampling")  # fmt: skip


@pytest.mark.claim("T3.descent_reaches_it", regime="dynamics", drops="exact_baseline")
@pytest.mark.parametrize("name", ["centred_spif", "renyi"])
def test_groups_of_two_do_not_find_the_exact_round(claim, name):
    table = run(
        "floor", name, seeds=6, steps=100, group=2, floor_batches=(128,), floor_rates=(0.1,)
    )
    claim.exhibits(table.from_exact / table.predicted, 2.0, what="E D^2 to the exact round / floor")


@pytest.mark.claim("T17.finite_groups", regime="tabular")
@given(
    group=st.integers(1, 3),
    step=st.floats(0.2, 3.0),
    seed=st.integers(0, 10**6),
)
@profile(max_examples=5)
def test_the_enumerated_limit_of_groups_is_t17s(claim, group, step, seed):
    case = Case("centred_spif", seed=seed)
    log_q = case.log_law(case.start())
    own = case.round(log_q, step, group)
    found = case.log_law(own.minimise(case.start()))
    link = finite_group_link(case.expert.numpy(), log_q.exp().numpy(), 1.0, group, group)
    expected = (log_q + torch.from_numpy(link.reward) / case.beta(step)).log_softmax(-1)
    claim.close(distance(found, expected), 0.0, 1e-7, what="distance to the finite-group link")


@pytest.mark.claim("T17.longer_step", regime="tabular")
@pytest.mark.parametrize("group", [2, 3, 5])
def test_groups_lengthen_the_effective_step(claim, group):
    gains = {"centred_spif": 2 * group / (2 * group - 1), "renyi": group / (group - 1)}
    assert centred_local_gain(group, group) == pytest.approx(gains["centred_spif"], rel=1e-14)
    assert renyi_local_gain(0.5, group, group) == pytest.approx(gains["renyi"], rel=1e-14)
    for name, gain in gains.items():
        found = Case(name, seed=11).local_factor(0.6, group)
        claim.close(found, 1.0 - 0.6 * gain, 1e-4, what="local factor of a round with groups",
                    because="solver")  # fmt: skip


@pytest.mark.claim("T6.local_rate", regime="dynamics", drops="exact_laws")
def test_groups_of_four_make_renyi_unstable_below_effective_step_two(claim):
    table = run("contraction", "renyi", effective=(1.7,), seeds=6, steps=100, reach=0.2, rounds=1)
    claim.exhibits(table.unlimited, -0.8, what="factor with exact laws: stable")
    mean, error = errors(table, "effective", "measured")
    claim.exhibits(-(mean + 4.0 * error), 1.0, what="minus the factor with groups of 4",
                   because="theory")  # fmt: skip
