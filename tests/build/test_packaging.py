"""What is installed, and that the lock covers all of it."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OWN = canonicalize_name(PROJECT["name"])


def lock() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins), "one exact pin a line"
    return {canonicalize_name(name): version for name, version in (p.split("==") for p in pins)}


def requirements() -> list[Requirement]:
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    lines = [*backend, *PROJECT["dependencies"], *(r for extra in EXTRAS.values() for r in extra)]
    return [r for r in map(Requirement, lines) if canonicalize_name(r.name) != OWN]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_requirement_is_pinned_inside_its_range(requirement):
    assert requirement.specifier.contains(lock()[canonicalize_name(requirement.name)])


def test_everything_the_requirements_bring_along_is_pinned():
    apart = ("transformers", "safetensors", "trl", "accelerate", "gguf")  # not installed everywhere
    apart += ("tensorboard", "wandb")
    todo, seen = [r for r in requirements() if r.name not in apart], set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        todo += map(Requirement, metadata.requires(name) or [])
    accelerator = re.compile("nvidia-|cuda-|triton")  # pinned exactly by torch where its wheel asks
    assert {name for name in seen - lock().keys() if not accelerator.match(name)} == set()


def test_the_ranges_admit_what_users_have():
    ranges = {r.name: r.specifier for r in requirements()}
    assert all(ranges["numpy"].contains(v) for v in ("2.4.0", "2.5.1"))
    assert all(ranges["transformers"].contains(v) for v in ("5.17.0", "5.23.9"))
    assert PROJECT["requires-python"] == ">=3.11"


def test_a_wheel_holds_the_four_packages_and_nothing_else(tmp_path):
    ours = "lab theory theory/inner toy_games llm_scale"
    for folder in f"{ours} tests tests/build figures benchmarks tools data".split():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tmp_path)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*build, "-w", "dist", "."], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    files = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert sorted(files) == sorted(f"{package}/__init__.py" for package in ours.split())
