"""Classes of a cyclic preference: how often each is given, and how far that is exploited."""

import numpy as np
import torch

from llm_scale.campaign.cells import exploited
from llm_scale.data.items import Item
from llm_scale.data.oracles import CLASSES, Cyclic
from llm_scale.measure.preferences import class_shares, exploitability
from tests.llm_scale import tiny_game


def test_shares_are_those_of_the_first_token() -> None:
    who = tiny_game.player(tiny_game.settings())
    items = tiny_game.task(who.settings).held_out()
    found = class_shares(who, items, "_before")
    each = []
    for item in items:
        logits = who.language.model(torch.tensor([item.prompt])).logits[0, -1]
        law = logits.double().softmax(-1).detach().numpy()
        each.append([law[k::CLASSES].sum() for k in range(CLASSES)])
    np.testing.assert_allclose(
        [found[f"class_{k}_before"] for k in range(CLASSES)], np.mean(each, 0), atol=1e-6
    )
    np.testing.assert_allclose(sum(found[f"class_{k}_before"] for k in range(CLASSES)), 1.0)
    error = np.std(each, axis=0, ddof=1) / len(items) ** 0.5
    assert abs(found["class_1_before_se"] - error[1]) < 1e-6


def test_exploited_is_what_one_class_wins_at_the_most() -> None:
    shares = np.array([[0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3], [0.0, 0.0, 1.0]])
    item, of_class = Item(0, (1,), ()), [(3,), (4,), (5,)]
    for strength in (1.0, 0.4):
        won = Cyclic(strength).compare(item, of_class) @ shares.T  # (3 rivals, games)
        np.testing.assert_allclose(exploitability(shares, strength), won.max(0) - 0.5, atol=1e-12)
    np.testing.assert_allclose(exploitability(shares), [0.15, 0.0, 0.5], atol=1e-12)


def test_the_average_is_of_the_rounds_so_far() -> None:
    """Three rounds that each give one class alone: each is beaten always, their mean is not."""
    rows = []
    for t in range(3):
        now = {f"class_{k}": float(k == t) for k in range(3)}
        was = {f"class_{k}_before": 1 / 3 if t == 0 else float(k == t - 1) for k in range(3)}
        rows.append({"round": t, **now, **was})
    found = exploited(rows)
    np.testing.assert_allclose([r["exploitability"] for r in found], 0.5)
    np.testing.assert_allclose([r["exploitability_before"] for r in found], [0, 0.5, 0.5])
    average = [r["exploitability_average"] for r in found]
    np.testing.assert_allclose(average, [0.5, 0.25, 0.0], atol=1e-12)
    assert exploited([{"round": 0}]) == [{"round": 0}]
