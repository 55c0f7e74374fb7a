"""Right answers and temperatures: greedy is the argmax, samples say what they are."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from llm_scale.launch.run_folder import run
from llm_scale.models.sample import generate
from tests.llm_scale.commands import call, metrics


def next_law(language, tokens):
    with torch.no_grad():
        return language.model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)


def test_temperature_zero_takes_the_likeliest_tokens(language, prompts):
    none = np.zeros(4)
    drawn, log_probs = generate(
        [language.model], prompts[:6], lambda i: none, 4, language.ends, temperature=0.0
    )
    for prompt, response, log_prob in zip(prompts[:6], drawn, log_probs, strict=True):
        tokens, total = list(prompt), 0.0
        for token in response.tokens:
            law = next_law(language, tokens)
            assert token == int(law.argmax())
            tokens, total = [*tokens, token], total + float(law[token])
        assert log_prob == pytest.approx(total, abs=1e-4)


def test_another_temperature_draws_from_a_power_of_the_law(language, prompts):
    """Inversion of ``p^2 / sum p^2`` at temperature 1/2; the log-probability is that of p."""
    prompt = tuple(prompts[0])
    law = next_law(language, list(prompt)).double()
    cdf = (2 * law).softmax(-1).cumsum(-1).numpy()
    numbers = (np.arange(40) + 0.5) / 40
    drawn, log_probs = generate(
        [language.model], [prompt] * 40, lambda i: numbers[i : i + 1], 1, (-1,), temperature=0.5
    )
    tokens = [r.tokens[0] for r in drawn]
    assert tokens == np.searchsorted(cdf, numbers, side="right").tolist()
    assert log_probs == pytest.approx(law[tokens].tolist(), abs=1e-4)


@pytest.fixture(scope="module")
def done(tmp_path_factory, settings):
    """A run that measures matches in its second round only."""
    out = tmp_path_factory.mktemp("match") / "run"
    said = []
    run(dataclasses.replace(settings, match="exact", eval_every=2, lr=1e-2), out, said.append)
    lines = [text for text in said if text.startswith("round")]
    return out, [row for row in metrics(out) if "round" in row], lines


def test_a_round_measures_greedy_matches_as_often_as_asked(done):
    _, (first, second), lines = done
    assert not [name for name in first if name.startswith("match")]
    change = second["match_greedy"] - second["match_greedy_before"]
    assert second["match_greedy_change"] == pytest.approx(change)
    assert "greedy match" not in lines[0]
    text = f"greedy match {second['match_greedy_before']:.3f} -> {second['match_greedy']:.3f}"
    assert f"{text} (change {change:+.3f}, se " in lines[1]


def test_eval_of_the_run_has_the_greedy_matches_that_it_measured(done):
    out, (_, second), _ = done
    result = call("eval", out, "--match=exact")
    row = json.loads(result.stdout)
    assert row["match_greedy"] == second["match_greedy"]
    assert row["match_greedy_se"] == pytest.approx(second["match_greedy_se"])
    assert (row["match"], row["match_prompts"], row["temperature"]) == ("exact", 16, 1.0)
    assert 0.0 <= row["match_sampled"] <= 1.0
    assert "match_sampled_se" in row
    assert result.stderr == ""
    greedy = call("eval", out, "--match=exact", "--temperature=0")
    assert "temperature 0: the likeliest token each time, not a sample of pi" in greedy.stderr
    only = json.loads(greedy.stdout)
    assert only["match_greedy"] == row["match_greedy"]
    assert "match_sampled" not in only


def test_the_samples_of_a_round_are_a_table_of_texts(done):
    out, (first, second), _ = done
    tables = [
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in sorted((out / "samples").iterdir())
    ]
    assert [p.name for p in sorted((out / "samples").iterdir())] == [
        "round-000.jsonl", "round-001.jsonl"
    ]  # fmt: skip
    assert [len(table) for table in tables] == [16, 16]
    for one, next_ in zip(*tables, strict=True):
        assert one["prompt"] == next_["prompt"]
        assert one["expert"] == next_["expert"]
        assert one["after"] == next_["before"], "pi_1 leaves round 0 and enters round 1"
    right = np.mean([r["greedy_after"] == r["expert"] for r in tables[1]])
    assert right == second["match_greedy"]
    assert "greedy_after" not in tables[0][0]
    assert np.mean(["after" in r["cut"] for r in tables[0]]) == first["after_truncated_own"]


def test_eval_of_a_file_by_a_users_function(done, tmp_path):
    """The function sees the prompt and the reference as they are written in the file."""
    out = done[0]
    (tmp_path / "pairs.jsonl").write_text(
        "".join(json.dumps({"prompt": p, "response": "he said"}) + "\n" for p in ("he", "and"))
    )
    (tmp_path / "mine.py").write_text(
        "def f(prompt, response, reference):\n"
        "    assert reference == 'he said' and prompt in ('he', 'and')\n"
        "    return 1.0 if prompt == 'he' else 0.5\n"
        "def bad(prompt, response, reference): return 1 / (len(response) - 7)\n"
    )
    flags = ("eval", out, "--data", tmp_path / "pairs.jsonl")
    row = json.loads(call(*flags, f"--match={tmp_path / 'mine.py'}:f").stdout)
    assert (row["match_greedy"], row["match_sampled"], row["match_prompts"]) == (0.75, 0.75, 2)
    assert row["match_greedy_se"] == pytest.approx(0.25)
    said = call(*flags, f"--match={tmp_path / 'mine.py'}:bad", code=2).stderr
    assert "ZeroDivisionError" in said
    assert said.count("\n") == 1


def test_a_function_that_fails_later_leaves_the_round_and_says_so(tmp_path, settings):
    (tmp_path / "mine.py").write_text(
        "seen = []\n"
        "def f(prompt, response, reference):\n"
        "    seen.append(response)\n"
        "    return 1 / (len(seen) < 9)\n"
    )
    short = dataclasses.replace(settings, rounds=1, match=f"{tmp_path / 'mine.py'}:f")
    lines = []
    run(short, tmp_path / "run", lines.append)
    row = metrics(tmp_path / "run")[-1]
    assert "ZeroDivisionError" in row["match_problem"]
    assert "match_greedy" not in row
    assert "greedy match not measured: match=" in lines[-1]
    assert (tmp_path / "run" / "final" / "config.json").is_file()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--match=exact", "--held-out=0"], "match='exact' is of held-out prompts"),
        (["--eval-every=3"], "eval_every=3 is for match; set one"),
        (["--match=number"], "of 64 references have no number"),
        (["--match=close"], "match: 'close'; needed is"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused_before_work(tmp_path, flags, said):
    result = call("train", "--out", tmp_path / "run", *flags, code=2)
    assert said in result.output
    assert not (tmp_path / "run").exists()


def test_temperatures_of_generate_are_said_aloud(done):
    out = done[0]
    plain, warm = (call("generate", out, "he", f"--temperature={t}") for t in (1, 0.5))
    assert plain.stderr == ""
    assert "temperature" not in json.loads(plain.stdout)
    assert "temperature 0.5: not a sample of pi" in warm.stderr
    assert json.loads(warm.stdout)["temperature"] == 0.5
    for flags, said in (
        (["--temperature=-1"], "needed is a finite number >= 0"),
        (["--temperature=nan"], "needed is a finite number >= 0"),
        (["--temperature=0", "--count=2"], "has one response to a prompt"),
    ):
        assert said in call("generate", out, "he", *flags, code=2).output
    assert "say --match" in call("eval", out, "--temperature=0.5", code=2).output
