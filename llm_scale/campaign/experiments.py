"""Every experiment of the campaign: its runs, for the seeds of a size. Nothing here trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lab.specs import objective_of
from llm_scale.campaign.plan import (
    ARMS,
    AUTHOR,
    BEST_LENGTH_STUDY,
    BEST_RATE_STUDY,
    BEST_STEP_STUDY,
    BEST_STUDY,
    CHECKED,
    DISTANCE_STUDY,
    END_RATE,
    END_ROUNDS,
    END_STUDY,
    FAR,
    FEW_STUDY,
    FRESH_RATE_STUDY,
    FRESH_STUDY,
    FULL,
    LONGER_STUDY,
    MANY_STUDY,
    PUBLISHED_BETA,
    RATE,
    RATES,
    REAL,
    REALISABLE,
    REALISABLE_RATE_STUDY,
    REALISABLE_STUDY,
    SHORT,
    Run,
    Size,
)

PAIRED = ("spin", "ipo", "spif")
SEE_DIFFERENCES = ("spin", "ipo", "centred_spif")
"""Losses of differences of rewards: SPIN's are without bounds, those of the other two with."""
SEE_LEVELS = ("spif", "space", "nwj")
"""Pointwise losses: SPIF's rewards have bounds, those of the other two SPIN's link and none."""
PER_TOKEN = ("spin, per token", "spif, per token")
SLOW = RATE / 10
"""So small a rate that gradients stay what they are when the round begins."""
STEPS = (0.25, 2.5, 10.0)
LENGTHS = (0.5, 4.0)
SHARES = (0.0, 0.25, 1.0)
HORIZONS = (1, 4, 32)
"""Tokens that are left of a response: the distance to the expert grows with them."""
RECIPE_STUDY = "recipe"
RECIPES: tuple[tuple[str, float, tuple[dict[str, Any], ...]], ...] = (
    (AUTHOR, RATE,
     ({}, {"own_temperature": 0.7}, {"own_temperature": 0.0}, {"own_cut": "ended"})),
    ("spin", SLOW, ({}, {"own_temperature": 0.7}, {"own_cut": "ended"})),
)  # fmt: skip
"""Arms at beta 0.1, their rates, and what is done to own responses; SPIN at one that it bears."""
JUDGED = ("sppo", "spif", "ipo", "dpo")
"""Losses of winners and losers."""
ORACLE = "bradley-terry(scale=1)"
"""By the expert's mean log-probability of a response's tokens."""
COSINES = 4
"""Gradients of a round that are compared with SFT's, in study "destination"."""
CYCLIC, CYCLIC_ROUNDS = "cyclic(strength=1)", 12
"""Classes by a response's first token: each of three beats one other and loses to the third."""
ROUNDS, FRESH_ROUNDS = 6, 4
SFT_SETTINGS: tuple[tuple[float, int, tuple[tuple[str, Any], ...]], ...] = (
    (4, ROUNDS, ()), (8, 1, ()), (12, 1, ()), (8, 1, (("label_smoothing", 0.02),)),
    (8, 1, (("lr", RATES[2]),)),
)  # fmt: skip
"""Passes a round, rounds and more: the schedule of self-play, and longer ones; a larger rate."""
POOLED_SETTINGS = ((4, RATE), (2, RATES[2]), (4, RATES[2]))
"""Passes over all responses at once, and the rate."""
FEW, MANY, MANY_ROUNDS, LONGER_ROUNDS = 512, 4 * FULL.prompts, 4, 12
"""Responses, the same in every round: a sixth and four times of what other experiments have."""
OTHERS = ("space", "spif, per token", "spin, per token")
DIFFERENCES = ("spin", "ipo")
"""They break at the least rate of others, and have a third of it."""
TAKEN_APART = ("author, expert term", "author, own of the start")


def rates(seeds: Sequence[int]) -> Iterator[Run]:
    """Learning rates at effective step 1, one epoch."""
    for seed in seeds:
        for rate in RATES:
            for arm in ("sft", *SEE_DIFFERENCES, *SEE_LEVELS, *PER_TOKEN):
                yield Run("rate", arm, seed, given=(("lr", rate),))
        for arm in ("sft", *SEE_DIFFERENCES, "spif"):
            yield Run("rate", arm, seed, given=(("lr", SLOW),))
        yield Run("rate", "tspin", seed, given=(("lr", RATE),))


def steps(seeds: Sequence[int]) -> Iterator[Run]:
    """Effective steps, and the published constants at one beta."""
    for seed in seeds:
        for step in STEPS:
            for arm in (*PAIRED, PER_TOKEN[1]):
                yield Run("step", arm, seed, effective_step=step)
        for arm in (AUTHOR, "author, a=1"):
            yield Run("constants", arm, seed, beta=PUBLISHED_BETA)


def lengths(seeds: Sequence[int]) -> Iterator[Run]:
    """Half an epoch a round, and four."""
    for seed in seeds:
        for epochs in LENGTHS:
            for arm in ("sft", *PAIRED, PER_TOKEN[1]):
                yield Run("length", arm, seed, epochs=epochs)


def history(seeds: Sequence[int]) -> Iterator[Run]:
    """Shares of the previous opponent's responses, three rounds beyond the local threshold."""
    for seed in seeds:
        for arm in ("spin", "spif"):
            for share in SHARES:
                old = (("history", share),)
                yield Run("history", arm, seed, rounds=3, effective_step=2.5, given=old)


def best(seeds: Sequence[int]) -> Iterator[Run]:
    """SFT's settings and rounds of the first author's loss, of which validation chooses."""
    for seed in seeds:
        for epochs, rounds, given in SFT_SETTINGS:
            yield Run(BEST_STUDY, "sft", seed, epochs, rounds, given=given)
        yield Run(BEST_STUDY, AUTHOR, seed, 4, ROUNDS, beta=PUBLISHED_BETA)


def best_rate(seeds: Sequence[int]) -> Iterator[Run]:
    """Its rounds at the larger rate that SFT has in "best", so that both have two."""
    for seed in seeds:
        given = (("lr", RATES[2]),)
        yield Run(BEST_RATE_STUDY, AUTHOR, seed, 4, ROUNDS, beta=PUBLISHED_BETA, given=given)


def best_rate_sft(seeds: Sequence[int]) -> Iterator[Run]:
    """SFT's rounds at that rate, so that its rounds too have two."""
    for seed in seeds:
        yield Run(BEST_RATE_STUDY, "sft", seed, 4, ROUNDS, given=(("lr", RATES[2]),))


def best_rate_others(seeds: Sequence[int]) -> Iterator[Run]:
    """The rounds of "best_others" at that rate: those of the losses that bear the lesser one."""
    for seed in seeds:
        for arm in OTHERS:
            yield Run(BEST_RATE_STUDY, arm, seed, 4, ROUNDS, given=(("lr", RATES[2]),))


def best_others(seeds: Sequence[int]) -> Iterator[Run]:
    """Other methods at their best; those that break at its rate have a third, and an epoch."""
    for seed in seeds:
        for arm in OTHERS:
            yield Run(BEST_STUDY, arm, seed, 4, ROUNDS)
        for arm in DIFFERENCES:
            yield Run(BEST_STUDY, arm, seed, rounds=ROUNDS, given=(("lr", RATES[0]),))


def best_lengths(seeds: Sequence[int]) -> Iterator[Run]:
    """Those that break in rounds as long as the others', so that they too have two settings."""
    for seed in seeds:
        for arm in DIFFERENCES:
            yield Run(BEST_LENGTH_STUDY, arm, seed, 4, ROUNDS, given=(("lr", RATES[0]),))


def best_steps(seeds: Sequence[int]) -> Iterator[Run]:
    """At the larger rate SPACE and the first author's loss, each at the other's effective step."""
    given = (("lr", RATES[2]),)
    for seed in seeds:
        yield Run(BEST_STEP_STUDY, "space", seed, 4, ROUNDS, published_step(), given=given)
        yield Run(BEST_STEP_STUDY, AUTHOR, seed, 4, ROUNDS, given=given)


def ablations(seeds: Sequence[int]) -> Iterator[Run]:
    """The first author's loss without its own responses, and with the start's in all rounds."""
    for seed in seeds:
        for arm in TAKEN_APART:
            yield Run(BEST_STUDY, arm, seed, epochs=4, rounds=ROUNDS, beta=PUBLISHED_BETA)


def fresh(seeds: Sequence[int]) -> Iterator[Run]:
    """Rounds on new expert responses each, beside SFT in such rounds and on as many at once."""
    new = (("round_data", "fresh"),)
    for seed in seeds:
        for arm in ("sft", "spif, per token"):
            yield Run(FRESH_STUDY, arm, seed, 4, FRESH_ROUNDS, given=new)
        yield Run(FRESH_STUDY, AUTHOR, seed, 4, FRESH_ROUNDS, beta=PUBLISHED_BETA, given=new)
        for epochs, rate in POOLED_SETTINGS:
            many = FRESH_ROUNDS * FULL.prompts
            yield Run(FRESH_STUDY, "sft", seed, epochs, given=(("lr", rate),), prompts=many)


def fresh_rate(seeds: Sequence[int]) -> Iterator[Run]:
    """Its rounds, SFT's too, at the larger rate that SFT has on all at once."""
    given = (("lr", RATES[2]), ("round_data", "fresh"))
    for seed in seeds:
        for arm, beta in (("sft", 0.0), (AUTHOR, PUBLISHED_BETA), ("spif, per token", 0.0)):
            yield Run(FRESH_RATE_STUDY, arm, seed, 4, FRESH_ROUNDS, beta=beta, given=given)


def few(seeds: Sequence[int]) -> Iterator[Run]:
    """Few responses, which are soon learned by heart: one grid for all, validation chooses."""
    for seed in seeds:
        for arm, beta in (("sft", 0.0), (AUTHOR, PUBLISHED_BETA), ("spif, per token", 0.0)):
            for rate in (RATES[0], RATE):
                given = (("lr", rate),)
                yield Run(FEW_STUDY, arm, seed, 1, ROUNDS, beta=beta, given=given, prompts=FEW)


def many(seeds: Sequence[int]) -> Iterator[Run]:
    """Four times the responses, the same in every round: one grid for all."""
    for seed in seeds:
        for arm, beta in (("sft", 0.0), (AUTHOR, PUBLISHED_BETA)):
            for rate in (RATE, RATES[2]):
                given = (("lr", rate),)
                yield Run(
                    MANY_STUDY, arm, seed, 1, MANY_ROUNDS, beta=beta, given=given, prompts=MANY
                )


def longer(seeds: Sequence[int]) -> Iterator[Run]:
    """As many responses, three times the passes, at the rate that "many" chose for both."""
    given = (("lr", RATES[2]),)
    for seed in seeds:
        for arm, beta in (("sft", 0.0), (AUTHOR, PUBLISHED_BETA)):
            yield Run(
                LONGER_STUDY, arm, seed, 1, LONGER_ROUNDS, beta=beta, given=given, prompts=MANY
            )


def realisable(seeds: Sequence[int]) -> Iterator[Run]:
    """The grid of "best" where the learner can be the expert."""
    for seed in seeds:
        for epochs, rounds, given in SFT_SETTINGS:
            yield Run(REALISABLE_STUDY, "sft", seed, epochs, rounds, given=given)
        yield Run(REALISABLE_STUDY, AUTHOR, seed, 4, ROUNDS, beta=PUBLISHED_BETA)
        yield Run(REALISABLE_STUDY, "spif, per token", seed, 4, ROUNDS)


def realisable_rate(seeds: Sequence[int]) -> Iterator[Run]:
    """Its rounds, SFT's too, at the larger rate that SFT has there."""
    given = (("lr", RATES[2]),)
    for seed in seeds:
        for arm, beta in (("sft", 0.0), (AUTHOR, PUBLISHED_BETA), ("spif, per token", 0.0)):
            yield Run(REALISABLE_RATE_STUDY, arm, seed, 4, ROUNDS, beta=beta, given=given)


def distance(seeds: Sequence[int]) -> Iterator[Run]:
    """A round of many responses cut after a token, four and 32: by how far the expert is."""
    for seed in seeds:
        for tokens in HORIZONS:
            cut = (("max_new_tokens", tokens),)
            for arm in ("sft", *PAIRED):
                yield Run(DISTANCE_STUDY, arm, seed, 2, given=cut, prompts=4 * FULL.prompts)


def destination(seeds: Sequence[int]) -> Iterator[Run]:
    """A dozen rounds, measured from the end of SFT's training."""
    given = (("lr", END_RATE), ("cosines", COSINES))
    for seed in seeds:
        for arm in ("sft", *PAIRED, PER_TOKEN[1]):
            yield Run(END_STUDY, arm, seed, rounds=END_ROUNDS, given=given)
        yield Run(END_STUDY, AUTHOR, seed, rounds=END_ROUNDS, beta=PUBLISHED_BETA, given=given)


def preferences(seeds: Sequence[int]) -> Iterator[Run]:
    """Rounds on two own responses to a prompt, of which an oracle draws the winner."""
    given = (("oracle", ORACLE), ("own_samples", 2))
    for seed in seeds:
        for arm in JUDGED:
            yield Run("preferences", arm, seed, rounds=3, given=given)


def cyclic(seeds: Sequence[int]) -> Iterator[Run]:
    """Rounds on a preference that has no best response, without and with an anchor."""
    given = (("oracle", CYCLIC), ("own_samples", 4), ("max_new_tokens", HORIZONS[0]))
    for seed in seeds:
        for tau in (0.0, PUBLISHED_BETA):
            told = (*given, ("tau", tau)) if tau else given
            yield Run("cyclic", "sppo", seed, 2, CYCLIC_ROUNDS, beta=PUBLISHED_BETA, given=told)


def recipes(seeds: Sequence[int]) -> Iterator[Run]:
    """Published constants, and own responses that are not what the game is of."""
    for seed in seeds:
        for arm, rate, errors in RECIPES:
            for error in errors:
                given = (("lr", rate), *error.items())
                yield Run(RECIPE_STUDY, arm, seed, rounds=2, beta=PUBLISHED_BETA, given=given)


def recipes_others(seeds: Sequence[int]) -> Iterator[Run]:
    """Own responses after another prompt, and margins divided by lengths."""
    cut = (("own_prompt", "cut"),)
    for seed in seeds:
        for arm, rate, _ in RECIPES:
            given = (("lr", rate), *cut)
            yield Run(RECIPE_STUDY, arm, seed, rounds=2, beta=PUBLISHED_BETA, given=given)
        for arm in ("ipo", "ipo, by length", "spif", "spif, by length"):
            yield Run(RECIPE_STUDY, arm, seed, rounds=2, given=(("lr", RATES[0]),))


def real(seeds: Sequence[int]) -> Iterator[Run]:
    """A pretrained model on verses: an epoch of SFT and of self-play from one SFT start."""
    for seed in seeds:
        for arm in ("sft", "spin"):
            yield Run("real", arm, seed)
        yield Run("real", AUTHOR, seed, beta=PUBLISHED_BETA)


def checked(seeds: Sequence[int]) -> Iterator[Run]:
    """The same model where an answer is right or wrong, and at the rate of its start."""
    for seed in seeds:
        for arm in ("sft", "spin", PER_TOKEN[1]):
            yield Run("checked", arm, seed)
        for arm in ("sft", "spin"):
            yield Run("checked", arm, seed, given=(("lr", CHECKED.start_rate),))


EXPERIMENTS = {
    "rates": rates, "steps": steps, "lengths": lengths, "history": history, "best": best,
    "best_rate": best_rate, "best_rate_sft": best_rate_sft,
    "best_rate_others": best_rate_others, "best_others": best_others,
    "best_lengths": best_lengths, "best_steps": best_steps, "ablations": ablations,
    "fresh": fresh, "fresh_rate": fresh_rate, "few": few, "many": many, "longer": longer,
    "realisable": realisable, "realisable_rate": realisable_rate,
    "distance": distance, "destination": destination, "preferences": preferences,
    "cyclic": cyclic, "recipes": recipes, "recipes_others": recipes_others, "real": real,
    "checked": checked,
}  # fmt: skip
"""Runs of seeds by the experiment's name; each is recorded in a file of its own."""
SIZES = {
    "realisable": REALISABLE, "realisable_rate": REALISABLE, "distance": FAR, "real": REAL,
    "checked": CHECKED,
}  # fmt: skip
"""Of the experiments that are not of the full size of the text game."""


def published_step() -> float:
    """Effective step of the first author's loss at its beta."""
    loss = objective_of(ARMS[AUTHOR]["objective"])
    assert loss is not None
    return float(loss.slope_at_zero / PUBLISHED_BETA)


def size_of(experiment: str, full: bool = True) -> Size:
    """Of the record of an experiment, or of its short version."""
    return SIZES.get(experiment, FULL) if full else SHORT


def runs(experiment: str, size: Size) -> list[Run]:
    """All runs of an experiment, the longest first."""
    found = [
        r for r in EXPERIMENTS[experiment](size.seeds) if r.study in (size.studies or (r.study,))
    ]
    return sorted(found, key=lambda run: -_cost(run))


def _cost(run: Run) -> float:
    own = ARMS[run.arm].get("own_samples", 0 if run.arm == "sft" else 1)
    return run.rounds * (1.0 + run.epochs) * (1 + own) * (run.prompts / FULL.prompts or 1.0)
