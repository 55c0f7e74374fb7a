"""Rows that follow from the recorded ones: what validation chose, and what stands beside it."""

import numpy as np
import pandas as pd

from figures.report.rows import (
    at_each_other,
    beside_sft,
    of_two_settings,
    on_one_schedule,
    since_first,
    with_own_link,
)


def test_on_one_schedule_sft_has_the_rounds_of_self_play():
    """Its longer runs, larger rate and smoothing are left out, and losses of other rates."""
    same = {"study": "best", "epochs": 4.0, "lr": 0.001, "prompts": 3072}
    nll = {"sft, in rounds": (5.0, 3.0, 4.0), "space": (6.0, 7.0, 2.0)}
    table = [
        same | {"arm": arm, "method": arm.split(",")[0], "seed": 0, "round": t,
                "validation_nll": value, "kl": 10.0 * value}
        for arm, values in nll.items() for t, value in enumerate(values)
    ]  # fmt: skip
    others = [
        ("sft", "sft", {"epochs": 8.0}), ("sft", "sft", {}), ("spin", "spin", {"lr": 0.0003}),
        ("sft, 0.02 smoothing", "sft", {}), ("space", "space", {"study": "many"}),
    ]  # fmt: skip
    table += [
        same | {"arm": arm, "method": method, "seed": 0, "round": 0, "validation_nll": 0.1, "kl": 1}
        | given for arm, method, given in others
    ]  # fmt: skip
    found = on_one_schedule(pd.DataFrame(table)).set_index("arm").kl
    assert found.to_dict() == {"sft": 30.0, "space": 20.0}


def test_of_two_settings_both_methods_choose_of_all_their_rounds():
    """Of what was run at one rate alone nothing is said."""
    same = {"seed": 0, "round": 0, "epochs": 4.0, "prompts": 3072, "study": "best", "lr": 0.001}
    table = pd.DataFrame([
        same | {"method": method, "arm": arm, "validation_nll": nll, "kl": nll} | given
        for method, arm, nll, given in [
            ("sft", "sft, in rounds", 5.0, {}), ("sft", "sft", 4.0, {"lr": 0.003}),
            ("a", "a", 7.0, {}), ("a", "a", 6.0, {"study": "best, larger rate", "lr": 0.003}),
            ("a", "a", 1.0, {"study": "many"}), ("space", "space", 2.0, {}),
        ]
    ])  # fmt: skip
    (found,) = of_two_settings(table)
    assert found.set_index("arm").kl.to_dict() == {"sft": 4.0, "a": 6.0}
    assert of_two_settings(table[table.study == "best"]) == []
    heated = [
        same | {"method": method, "arm": method, "study": study, "kl": kl,
                "validation_kl": kl, "validation_reverse_kl": reverse}
        for method, study, kl, reverse in [
            ("sft", "temperature", 5.0, 4.0), ("sft", "temperature", 4.0, 6.0),
            ("a", "best, larger rate temperature", 3.0, 1.0), ("a", "temperature", 2.0, 3.0),
        ]
    ]  # fmt: skip
    _, both = of_two_settings(pd.concat([table, pd.DataFrame(heated)], ignore_index=True))
    assert both.set_index("arm").kl.to_dict() == {"sft": 5.0, "a": 3.0}


def test_at_each_others_step_the_rate_is_one_and_sft_has_what_it_has():
    same = {"seed": 0, "round": 0, "epochs": 4.0, "prompts": 3072, "lr": 0.003}
    table = pd.DataFrame([
        same | {"method": method, "arm": method, "study": study, "validation_nll": nll,
                "kl": nll, "effective_step": step} | given
        for method, study, nll, step, given in [
            ("sft", "best", 4.0, np.nan, {}), ("ipo", "best", 0.0, 1.0, {}),
            ("space", "best", 3.0, 1.0, {"lr": 0.001}),
            ("space", "best, larger rate", 7.0, 1.0, {}),
            ("space", "best, other step", 6.0, 2.5, {}),
            ("space", "best, other step", 5.0, 2.5, {"round": 1}),
            ("space", "many", 1.0, 1.0, {}),
        ]
    ])  # fmt: skip
    one, three = at_each_other(table)
    assert one.set_index("effective_step").kl.to_dict() == {1.0: 7.0, 2.5: 5.0}
    assert three.set_index("arm").kl.to_dict() == {"sft": 4.0, "space": 3.0}
    assert at_each_other(table[table.study == "best"]) == []


def test_what_sft_changed_stands_beside_the_runs_on_the_same_data():
    base = {"study": "rate", "seed": 1, "epochs": 1.0, "round": 0, "kl_before": 30.0}
    rows = [
        base | {"arm": "sft", "lr": 0.1, "kl": 28.0},
        base | {"arm": "spin", "lr": 0.1, "kl": 29.0},
        base | {"arm": "spin", "lr": 0.2, "kl": 31.0},
        *(base | {"arm": "sft", "lr": 0.3, "kl": kl} for kl in (27.0, 26.0)),
    ]
    found = beside_sft(pd.DataFrame(rows))
    assert len(found) == len(rows), "two ways of SFT double no row"
    found = found.set_index(["arm", "lr"]).sft_change
    assert found["spin", 0.1].item() == found["sft", 0.1].item() == -2.0
    assert np.isnan(found["spin", 0.2].item())
    assert found["sft", 0.3].isna().all()


def test_a_reward_is_compared_with_its_own_link_and_with_the_rivals():
    rows = pd.DataFrame(
        {"arm": ["spin", "spif", "ipo"], "linear_correlation": [0.9, 0.7, np.nan],
         "bounded_correlation": [0.8, 0.9, np.nan]}
    )  # fmt: skip
    np.testing.assert_allclose(with_own_link(rows).own_less_rival, [0.1, 0.2, np.nan])
    assert "own_less_rival" not in with_own_link(rows[["arm"]])


def test_rounds_are_compared_with_the_first_one_of_their_own_run():
    rows = pd.DataFrame(
        {
            "study": ["destination"] * 4 + ["rate"], "arm": ["spin"] * 5, "lr": [1e-3] * 5,
            "seed": [0, 0, 1, 1, 0], "round": [0, 1, 0, 1, 0], "kl_step": [1.0, 2.0, 3.0, 4.0, 9.0],
            "kl_to_sft": [5.0, 6.0, 7.0, 8.0, np.nan], "kl_before": [0.5, 0.4, 0.7, 0.6, 0.5],
        }
    )  # fmt: skip
    found = since_first(rows)
    np.testing.assert_allclose(found.kl_step_first, [1.0, 1.0, 3.0, 3.0, np.nan])
    np.testing.assert_allclose(found.kl_to_sft_first, [5.0, 5.0, 7.0, 7.0, np.nan])
    np.testing.assert_allclose(found.kl_before_first, [0.5, 0.5, 0.7, 0.7, np.nan])
    assert "kl_step_first" not in since_first(rows.drop(columns="kl_to_sft"))
