"""Files and folders to name in a command line, and command lines that are refused."""

import re
import shutil

import pytest
import torch
from typer.testing import CliRunner

from llm_scale import train as training
from llm_scale.__main__ import app
from llm_scale.models import byte_tokenizer, save, tiny
from tests.llm_scale.launch.refusals import GOOD, SMALL, TEXTS, contents

PROGRAMS = ("error", "none", "word", "three", "exits", "most", "numpy", "two")


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    """Files and folders that command lines name by a word in capitals."""
    root = tmp_path_factory.mktemp("bad")
    save(tiny(byte_tokenizer(TEXTS, 260), 0, torch.device("cpu"), width=16, layers=1), root / "m")
    shutil.copytree(root / "m", root / "plain")
    (root / "plain" / "chat_template.jinja").unlink()
    (root / "task.jsonl").write_text(GOOD)
    (root / "error.py").write_text("x = 1 / 0\n")
    (root / "none.py").write_text("x = 1\n")
    (root / "word.py").write_text("def f(prompt, response):\n    return 'x'\n")
    (root / "three.py").write_text("def f(prompt, first, second):\n    return 3\n")
    (root / "exits.py").write_text("def f(prompt, response):\n    raise SystemExit(3)\n")
    (root / "most.py").write_text("f = max\n")
    (root / "numpy.py").write_text(
        "import numpy\nfrom theory.objectives import Pairwise, register\n\n\n"
        "@register('np')\nclass Np(Pairwise):\n    citation = 'here'\n\n"
        "    def pair_loss(self, d):\n        return numpy.log1p(numpy.exp(-d))\n"
    )
    (root / "two.py").write_text(
        "from theory.objectives import register\nfrom theory.objectives.pairwise import Spin\n\n\n"
        "for name in ('first_of_two', 'second_of_two'):\n"
        "    register(name)(type(name, (Spin,), {'__module__': __name__}))\n"
    )
    (root / "typo.json").write_text('{"settings": {"bta": 1}}')
    (root / "kinds.json").write_text('{"settings": {"beta": "x"}}')
    (root / "list.json").write_text("[]")
    (root / "torn.json").write_text('{"settings": {"beta"')
    result = CliRunner().invoke(app, ["train", "--out", str(root / "run"), *SMALL])
    assert result.exit_code == 0, result.output
    names = {"MODEL": "m", "PLAIN": "plain", "TASK": "task.jsonl", "RUN": "run"}
    names |= {n.upper(): f"{n}.py" for n in PROGRAMS}
    names |= {n.upper(): f"{n}.json" for n in ("typo", "kinds", "list", "torn")}
    return root, {word: str(root / name) for word, name in names.items()}


@pytest.fixture
def refused(places, tmp_path, monkeypatch):
    """Run a command line; the problems it says, after checking that nothing else happened."""
    root, words = places
    monkeypatch.setattr(training, "train", None)  # that would be work

    def call(*arguments, out=None):
        named = [re.sub(r"\b[A-Z]{3,5}\b", lambda m: words.get(m[0], m[0]), a) for a in arguments]
        out = tmp_path / "out" if out is None else out
        before = contents(root), contents(tmp_path)
        other = named[:1] and named[0] in ("sft", "reproduce", "sweep")
        command = named if other else ["train", *SMALL, *named]
        result = CliRunner().invoke(app, [*command, "--out", str(out)])
        assert result.exit_code == 2, (result.output, result.exception)
        assert (contents(root), contents(tmp_path)) == before
        said = result.stderr.strip().splitlines()
        if said[0].startswith("Usage:"):
            return said[-1:]
        assert all(sentence.startswith("error: ") for sentence in said), result.stderr
        return [sentence.removeprefix("error: ") for sentence in said]

    return call
