"""Break the formulas one by one; a test that stays green has not been watching.

`make mutate`, or `python -m tools.mutate [--module theory/laws.py] [--sample N]`: mutmut, with the
mutants of formula_mutants.py, on a copy of the tree in .mutate/. What is known is not tried again
unless its function changed; survivors are, since tests may be new. Writes results/mutation.json,
module by module; exit status 1 if a mutant survived that is not listed as equivalent.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import fnmatch
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import random
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import mutmut.__main__ as mutmut
from mutmut import configuration
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.state import state
from mutmut.stats import status_by_exit_code
from mutmut.workers.isolation import ForkServerRunner

from tools import formula_mutants

ROOT = Path(__file__).parents[1]


def groups(root: Path) -> dict[str, dict[str, list[str]]]:
    """Modules and the tests that watch them, of tools/mutate.toml; ValueError where one is not."""
    table = tomllib.loads((root / "tools" / "mutate.toml").read_text(encoding="utf-8"))
    for name, group in table.items():
        paths = [p.relative_to(root).as_posix() for g in group["modules"] for p in root.glob(g)]
        group["modules"] = sorted(p for p in paths if p not in group.pop("skip", []))
        absent = [t for t in group["tests"] if not (root / t).exists()]
        if absent or not group["modules"]:
            raise ValueError(f"tools/mutate.toml, {name}: no {', '.join(absent) or 'modules'}")
    return table


def _copy(root: Path, to: Path) -> None:
    """Bring a copy of the tree up to date; files that did not change keep their time."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=root, text=True
    )
    for name in listed.splitlines():
        source, target = root / name, to / name
        if source.is_file() and not (target.exists() and _same(source, target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    for path in [p for p in to.rglob("*.py") if "mutants" not in p.relative_to(to).parts]:
        if not (root / path.relative_to(to)).exists():
            path.unlink()
            (to / "mutants" / path.relative_to(to)).unlink(missing_ok=True)


def _same(a: Path, b: Path) -> bool:
    return a.stat().st_size == b.stat().st_size and a.read_bytes() == b.read_bytes()


def _with_whole_files(*args: Any, **options: Any) -> None:
    """A mutant's tests: those that reach its function, then the others of the same files.

    What one test computes and keeps for another is recorded for the first of them only.
    """
    _load_stats(*args, **options)
    known = state()
    by_file: dict[str, list[str]] = {}
    for test in sorted(known.duration_by_test, key=lambda t: known.duration_by_test[t]):
        by_file.setdefault(test.split("::")[0], []).append(test)
    for function, tests in known.tests_by_mangled_function_name.items():
        first = sorted(tests, key=lambda t: known.duration_by_test[t])
        rest = [t for f in sorted({t.split("::")[0] for t in tests}) for t in by_file[f]]
        known.tests_by_mangled_function_name[function] = list(dict.fromkeys(first + rest))  # type: ignore[assignment]


_load_stats = mutmut.collect_or_load_stats


def _run(
    folder: Path, group: dict[str, list[str]], modules: list[str], sample: int | None, seed: int,
    jobs: int,
) -> None:  # fmt: skip
    """In a process of its own: let mutmut work on what is asked for and not yet known."""
    os.chdir(folder)
    os.environ.update(HYPOTHESIS_PROFILE="mutate", OMP_NUM_THREADS="1", PYTHONPATH="")
    configuration._config = dataclasses.replace(
        configuration._load_config(),
        only_mutate=group["modules"],
        pytest_add_cli_args_test_selection=group["tests"],
    )
    formula_mutants.install()
    mutmut.collect_or_load_stats = _with_whole_files
    ForkServerRunner.run_clean_tests = lambda self, tests: 0  # type: ignore[method-assign]  # done
    mutmut.copy_src_dir()
    mutmut.create_mutants(jobs)
    todo = [
        name
        for module in modules
        for name, code in chosen(Path(), module, sample, seed).items()
        if status_by_exit_code[code] not in ("killed", "timeout")
    ]
    if todo:
        mutmut._run(tuple(todo), jobs)


def chosen(folder: Path, module: str, sample: int | None, seed: int) -> dict[str, int | None]:
    """Exit status by mutant, of all of a module or of a sample that is the same every time."""
    data = json.loads((folder / "mutants" / f"{module}.meta").read_text(encoding="utf-8"))
    fates: dict[str, int | None] = data["exit_code_by_key"]
    if sample is None or sample >= len(fates):
        return fates
    return {name: fates[name] for name in random.Random(seed).sample(sorted(fates), sample)}


def _change(folder: Path, module: str, name: str) -> dict[str, str]:
    """Which function a mutant is in, the line as it was and as it became."""
    os.chdir(folder)
    lines = get_diff_for_mutant(name, path=module).splitlines()[3:]
    was, becomes = (" ".join(s[1:].strip() for s in lines if s[0] == sign) for sign in "-+")
    function = name.rpartition("__mutmut_")[0].rpartition(".")[2]
    function = function.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    return {"module": module, "function": function, "was": was, "becomes": becomes}


def count(
    folder: Path, root: Path, module: str, fates: dict[str, int | None]
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The record of a module."""
    statuses = {name: status_by_exit_code[code] for name, code in fates.items()}
    statuses = {n: "survived" if s == "no tests" else s for n, s in statuses.items()}
    left = {name: _change(folder, module, name) for name, s in statuses.items() if s == "survived"}
    listed = tomllib.loads((root / "tools" / "equivalent_mutants.toml").read_text("utf-8"))
    reasons = {_key(entry): entry["reason"] for entry in listed.get("mutant", [])}
    survivors = [c for c in left.values() if _key(c) not in reasons]
    counts = Counter(statuses.values())
    equivalent = len(left) - len(survivors)
    killed = counts["killed"] + counts["timeout"] + counts["segfault"]
    everything = json.loads((folder / "mutants" / f"{module}.meta").read_text(encoding="utf-8"))
    return {
        "source": hashlib.sha256((folder / module).read_bytes()).hexdigest()[:12],
        "date": datetime.date.today().isoformat(),
        "mutants": len(everything["exit_code_by_key"]),
        "tried": len(fates),
        "killed": killed,
        "by timeout": counts["timeout"],
        "equivalent": equivalent,
        "survived": len(survivors),
        "undecided": len(fates) - killed - len(left),
    }, survivors


def _key(change: dict[str, str]) -> tuple[str, ...]:
    return tuple(change[k] for k in ("module", "function", "was", "becomes"))


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """Run from the shell."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutate", description=__doc__)
    parser.add_argument("--module", action="append", help="only this one, or a pattern; repeatable")
    parser.add_argument("--sample", type=int, help="at most so many mutants a module, at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--record-only", action="store_true", help="count what is known, try none")
    options = parser.parse_args(argv)
    table = groups(root)
    patterns = options.module or ["*"]
    path = root / "results" / "mutation.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"modules": {}}
    left = []
    for name, group in table.items():
        modules = [m for m in group["modules"] if any(fnmatch.fnmatch(m, p) for p in patterns)]
        folder = root / ".mutate" / name
        if not modules:
            continue
        if not options.record_only:
            _copy(root, folder)
            arguments = (folder, group, modules, options.sample, options.seed, options.jobs)
            worker = multiprocessing.get_context("fork").Process(target=_run, args=arguments)
            worker.start()
            worker.join()
        for module in modules:
            if not (folder / "mutants" / f"{module}.meta").exists():
                continue
            fates = chosen(folder, module, options.sample, options.seed)
            counts, survivors = count(folder, root, module, fates)
            record["modules"][module] = counts | {"survivors": survivors}
            left += survivors
            print(f"{module}: " + ", ".join(f"{k} {v}" for k, v in counts.items()))
    for survivor in left:
        print("survived: {module}, {function}: {was}   ->   {becomes}".format(**survivor))
    _write(path, record)
    return 1 if left else 0


def _write(path: Path, record: dict[str, Any]) -> None:
    names = ("mutants", "tried", "killed", "by timeout", "equivalent", "survived", "undecided")
    modules = dict(sorted(record["modules"].items()))
    record = {
        "command": "make mutate",
        "tool": f"mutmut {importlib.metadata.version('mutmut')}",
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "total": {name: sum(m[name] for m in modules.values()) for name in names},
        "modules": modules,
    }
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(path.name + ".tmp")
    part.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
