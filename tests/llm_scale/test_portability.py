"""The trainer where only its own dependencies are: no solver, no algebra, no plots, no tables."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.without import ABSENT, without

ROOT = Path(__file__).parents[2]
BLOCK = without(*ABSENT, "peft")


def python(code, *arguments):
    """Run code in a process of its own, warnings being errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Every module imported, a run trained, sampled from, evaluated and reported, all without."""
    out = tmp_path_factory.mktemp("bare")
    code = (
        BLOCK
        + """
import importlib, json, pathlib, runpy
for path in sorted(pathlib.Path("llm_scale").rglob("*.py")):
    if path.stem != "__main__":
        importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
codes = []
for line in json.loads(sys.argv[1]):
    sys.argv = ["llm_scale", *line]
    try:
        runpy.run_module("llm_scale", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        codes.append(stop.code)
print(json.dumps(codes))
"""
    )
    size = ["--prompts=16", "--held-out=8", "--rounds=1", "--steps-per-round=2", "--batch=8",
            "--sft-steps=2", "--device=cpu"]  # fmt: skip
    run = str(out / "run")
    lines = [
        ["train", "--out", run, *size, "--objective=ipo"],
        ["generate", run, "he", "--out", str(out / "samples.jsonl")],
        ["eval", run, "--out", str(out / "eval.json")],
        ["report", run, "--out", str(out / "report")],
    ]
    return out, python(code, json.dumps(lines))


def test_the_trainer_needs_its_own_dependencies_alone(bare):
    out, done = bare
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 0, 0, 0], done.stderr
    assert (out / "run" / "final" / "model.safetensors").exists()
    assert "link_slope" in json.loads((out / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert json.loads((out / "eval.json").read_text())["responses"] == 8


def test_sympy_is_torch_s_alone():
    """Torch cannot be loaded without it, so it cannot be left out above; nothing here asks."""
    for package in ("llm_scale", "theory"):
        for path in (ROOT / package).rglob("*.py"):
            assert not re.search(r"^\s*(import|from) sympy", path.read_text(encoding="utf-8"), re.M)


def test_a_report_without_its_plots_says_so(bare):
    report = bare[0] / "report"
    assert [p.name for p in report.iterdir()] == ["report.md"]
    text = (report / "report.md").read_text()
    assert "\nNo plots: matplotlib is not installed.\n" in text
    assert re.search(r"\| ipo\S* \| 0 \| 1 \|", text)


def test_help_is_quick_and_loads_no_model_library():
    code = """
import sys, time
sys.argv = ["llm_scale", "train", "--help"]
import runpy
try:
    runpy.run_module("llm_scale", run_name="__main__", alter_sys=True)
except SystemExit:
    pass
heavy = {"torch", "transformers", "tokenizers", "scipy.stats", "matplotlib"}
print(time.process_time(), *heavy & sys.modules.keys())
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "--steps-per-round" in done.stdout
    seconds, *heavy = done.stdout.splitlines()[-1].split()
    assert heavy == []
    assert float(seconds) < 3.0
