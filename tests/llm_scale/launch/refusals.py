"""A small run's command line and files, and what is said where it is refused."""

import json
import re

SMALL = ("--prompts=8", "--held-out=4", "--rounds=1", "--steps-per-round=1", "--batch=2",
         "--sft-steps=1", "--cosines=0", "--device=cpu")  # fmt: skip
TEXTS = ["thou art gone", "he said unto them", "and they went out"] * 3
PAIRS = [{"prompt": f"say {i}", "response": "thou art gone"} for i in range(6)]
GOOD = "".join(json.dumps(pair) + "\n" for pair in PAIRS)


def edited(path, name, edit):
    """Change a JSON file in place."""
    content = json.loads((path / name).read_text())
    edit(content)
    (path / name).write_text(json.dumps(content))


def contents(folder):
    """Every path of a folder with its bytes."""
    paths = sorted(folder.rglob("*"))
    return {p: p.read_bytes() if p.is_file() else None for p in paths}


def one(said, expected):
    """Exactly one problem, and it says this."""
    assert len(said) == 1, said
    assert re.search(expected, said[0]), said
