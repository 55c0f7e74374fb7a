"""Settings of a run of seconds, which tests of rounds change."""

from llm_scale.settings import Settings

SMALL = Settings(
    prompts=24, held_out=0, rounds=1, steps_per_round=10, batch=8, sft_steps=2, cosines=0,
    max_new_tokens=8,
    device="cpu",
)  # fmt: skip
