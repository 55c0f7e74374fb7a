"""What cannot work is refused before any work, all of it at once, and nothing on disk changes."""

import dataclasses
import re

import pytest
import torch

from llm_scale import processes
from llm_scale.launch import sweep
from llm_scale.settings import Settings, resolve
from tests.llm_scale.launch.refusals import one
from theory.errors import InvalidInput

LINES = {
    "unknown option": (["--betta=1"], "No such option: --betta .*--beta"),
    "not a number": (["--lr=fast"], "Invalid value for '--lr'"),
    "not whole": (["--batch=1.5"], "Invalid value for '--batch'"),
    "no choice": (["--opponent=first"], "opponent='first'; needed is one of last, mixture, base"),
    "nothing before the colon": (["--objective=:spin"], "':spin': no file before the colon"),
    "objective typo": (["--objective=spni"], "unknown objective 'spni'. Did you mean 'spin'?"),
    "parameter": (["--objective=spif(d=1)"], "spif: unknown parameter 'd'; it takes c, alpha"),
    "parameter twice": (["--objective=spif(c=1,c=2)"], "c is there twice"),
    "parameter range": (["--objective=spif(c=-1)"], "spif: c=-1.0; needed is a number > 0"),
    "bracket": (["--objective=spif(c=1"], "needed is NAME, NAME"),
    "no loss (gail)": (["--objective=gail"], "'gail' has no loss to train: .*-inf"),
    "no loss (ipm)": (["--objective=ipm"], "'ipm' has no loss to train: .*no minimum"),
    "no oracle": (["--objective=sppo"], "needs preferences: set oracle to"),
    "no anchor": (["--objective=inpo"], "is anchored: set tau > 0"),
    "group of one": (["--objective=renyi"], "needs a group: own_samples >= 2$"),
    "group of two": (
        ["--objective=renyi", "--oracle=cyclic", "--own-samples=2"],
        "needs a group: own_samples >= 3$",
    ),
    "no ratio to anchor": (["--objective=tspin", "--tau=1"], "reference-free: tau must be 0"),
    "two opponents": (["--objective=alpha_spin", "--opponent=base"], "opponent of its own"),
    "file with an error": (["--objective=ERROR:x"], "error.py: ZeroDivisionError"),
    "file without any": (["--objective=NONE:x"], "none.py: registers no objective"),
    "which of a file": (
        ["--objective=TWO"], r"two\.py registers first_of_two, second_of_two; say .*/two\.py:NAME$"
    ),
    "file without any, unnamed": (["--objective=NONE"], "none.py: registers no objective"),
    "no file": (["--objective=/nowhere.py:x"], "nowhere.py: no such file; needed is a Python"),
    "oracle typo": (["--oracle=cyclc"], "needed is none, bradley-terry"),
    "oracle range": (["--oracle=cyclic(strength=2)", "--own-samples=2"], "> 0 and <= 1"),
    "oracle bracket": (["--oracle=cyclic(", "--own-samples=2"], "needed is none, bradley-terry"),
    "oracle of one": (["--oracle=cyclic"], "own_samples=1; needed is >= 2"),
    "oracle gives text": (["--oracle=WORD:f", "--own-samples=2"], "failed: ValueError.*'x'"),
    "objective of numpy": (["--objective=NUMPY:np"], "fails on torch tensors .*theory.xp"),
    "oracle that exits": (["--oracle=EXITS:f", "--own-samples=2"], "failed: SystemExit: 3"),
    "oracle unknown": (["--oracle=MOST:f", "--own-samples=2"], "takes any number of arguments"),
    "oracle beyond 1": (["--oracle=THREE:f", "--own-samples=2"], "gave 3; needed is within .0, 1"),
    "oracle and SFT": (["--oracle=cyclic", "--own-samples=2", "--objective=sft"], "oracle must be"),
    "comparisons": (["--comparisons=exact"], "is for an oracle"),
    "token mixture": (["--level=token", "--opponent=mixture"], "level must be sequence"),
    "phrases and a model": (["--model=MODEL"], "task='phrases' has its own words.*model='tiny'"),
    "phrases and a style": (["--prompt-style=plain"], "task='phrases' has its own format"),
    "task typo": (["--task=phrase"], "task='phrase': no such file; needed is .*'phrases'.*JSON li"),
    "task is a folder": (["--task=MODEL"], "a folder; needed is a file"),
    "hub name": (
        ["--model=some/model", "--task=TASK"],
        "model='some/model': no such directory here, and not to be had from the Hub.*hf download",
    ),
    "model typo": (["--model=tiyn", "--task=TASK"], "needed is 'tiny', a directory.*or ORG/NAME"),
    "width": (["--width=60", "--heads=8"], "width=60, heads=8; needed is a .*multiple of 2 heads"),
    "size of a model": (
        ["--model=MODEL", "--task=TASK", "--layers=3", "--width=8"],
        "width=8, layers=3: size of model='tiny'; another model has its own",
    ),
    "words of phrases": (["--vocabulary=600"], "vocabulary=600: task='phrases' has its own"),
    "chat without template": (
        ["--model=PLAIN", "--task=TASK", "--prompt-style=chat"],
        "prompt_style='chat': the tokenizer has no chat template",
    ),
    "two experts": (["--task=TASK", "--expert-samples=2"], "has 1 response to a prompt"),
    "horizon": (["--max-new-tokens=5000"], "beyond the model's context of 1024"),
    "batch": (["--batch=9"], "batch=9; a round has 8 prompts"),
    "preset typo": (["--preset=tiny-cpuu"], "unknown preset 'tiny-cpuu'; there are .*tiny-cpu"),
    "preset by path": (["--preset=../presets/tiny-cpu"], "unknown preset '../presets/tiny-cpu'"),
    "no GPU": (["--device=cuda"], "device='cuda': torch sees no CUDA device here; use auto or cpu"),
    "bfloat16": (["--dtype=bfloat16"], "dtype='bfloat16' is for CUDA; on the CPU use auto or flo"),
    "no SFT run": (["--sft-run=/nowhere"], "sft_run='/nowhere': not the folder of a finished run"),
    "SFT run of other words": (["--task=TASK", "--sft-run=RUN"], "its model has other tokens"),
    "unmeasured": (["--sft-run=RUN", "--held-out=0"], "set held_out > 0"),
    **{f"beyond {k}": ([f"--{k}={v + 1}"], f"{k}=.*; needed is >= 0 and <= {v}")
       for k, v in (("seed", 2**63 - 1), ("prompts", 10**7), ("rounds", 10**4))},
}  # fmt: skip
OTHERS = {
    "SFT by another name": (
        ["sft", "--objective=spin", "--beta=2"],
        ["objective: SFT", "beta: SFT"],
    ),
    "record with a typo": (["reproduce", "TYPO"], ["unknown setting 'bta'; there are"]),
    "record of other kinds": (["reproduce", "KINDS"], ["beta='x'; needed is a number"]),
    "record is a list": (["reproduce", "LIST"], ["not the record of a run"]),
    "record torn": (["reproduce", "TORN"], ["TORN|not the record of a run"]),
    "sweep": (
        ["sweep", "--seeds=0", "--objectives=gail,inpo", "--device=cuda", "--task=/no"],
        ["'gail' has no loss", "'inpo' is anchored", "device='cuda'", "task='/no'"],
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_flags_and_their_combinations(name, refused):
    if name == "no GPU" and torch.cuda.is_available():
        pytest.skip("there is one")
    arguments, expected = LINES[name]
    one(refused(*arguments), expected)


@pytest.mark.parametrize("more", ["", "(k=0.5)"])
def test_the_only_objective_of_a_file_needs_no_name(more, tmp_path):
    """The record has it, so that a run is the same by either word."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from theory.objectives import register\nfrom theory.objectives.pairwise import Spin\n\n\n"
        "@register('only')\nclass Only(Spin):\n    k: float = 1.0\n"
    )
    made = resolve("", {"objective": f"{file}{more}"})
    assert made == resolve("", {"objective": f"{file}:only{more}"})
    assert made.objective == f"{file}:only{more}"
    assert list(sweep.plan(resolve("", {}), [f"{file}{more}"], [0], [1.0])) == [
        sweep.slug(made.objective, 1.0, 0)
    ]


@pytest.mark.parametrize("name", OTHERS)
def test_other_commands(name, refused):
    arguments, expected = OTHERS[name]
    said = refused(*arguments)
    assert len(said) == len(expected), said
    for pattern in expected:
        assert any(re.search(pattern, sentence) for sentence in said), (pattern, said)


def flags(kind):
    return [f.name for f in dataclasses.fields(Settings) if type(f.default) is kind]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1"])
def test_every_number_is_checked_and_all_problems_are_said_at_once(value, refused):
    said = refused(*(f"--{name.replace('_', '-')}={value}" for name in flags(float)))
    expected = [f"{name}={float(value)!r}; needed is " for name in flags(float)]
    assert sorted(s.partition("needed is ")[0] for s in said) == sorted(
        e.partition("needed is ")[0] for e in expected
    )
    assert all(("a finite number" in s) == (value != "-1") for s in said)


def test_every_count_is_checked_and_all_problems_are_said_at_once(refused):
    said = refused(*(f"--{name.replace('_', '-')}=-1" for name in flags(int)))
    assert sorted(s.split("=")[0] for s in said) == sorted(flags(int))
    assert all(re.search(r"=-1; needed is >= \d+( and <= \d+)?$", s) for s in said)


def test_problems_of_all_kinds_are_said_at_once(refused):
    said = refused("--beta=-1", "--batch=0", "--level=tokn", "--objective=spni", "--oracle=cyclc")
    assert len(said) == 5
    said = refused(
        "--device=cuda", "--objective=inpo", "--sft-run=/no", "--model=/no", "--task=/no.jsonl"
    )  # each value is right by itself
    assert len(said) == 5
    places = ("objective=", "sft_run=", "device=", "task=", "model=")
    assert [s[: len(p)] for s, p in zip(said, places, strict=True)] == list(places)


def test_what_launchers_leave_in_the_environment(monkeypatch):
    for left in ("", " "):
        monkeypatch.setenv("WORLD_SIZE", left)
        assert processes.announced() == 1
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(InvalidInput, match="WORLD_SIZE='two' in the environment"):
        processes.announced()
