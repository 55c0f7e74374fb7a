"""Break the formulas one by one; a test that stays green has not been watching.

`make mutate`, or `python -m tools.mutate [--module theory/laws.py] [--sample N]`: mutmut, with the
mutants of formula_mutants.py, on a copy of the tree in .mutate/. What is known is not tried again
unless its function changed; survivors are, since tests may be new. Writes results/mutation.json
and .md, module by module; exit status 1 if a mutant survived that is not listed as equivalent.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import fnmatch
import functools
import hashlib
import importlib.metadata
import io
import itertools
import json
import math
import multiprocessing
import os
import platform
import random
import shutil
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mutmut.__main__ as mutmut
from mutmut import configuration
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.state import reset_state, state
from mutmut.stats import status_by_exit_code
from mutmut.workers.isolation import ForkServerRunner

from tools import formula_mutants

ROOT = Path(__file__).parents[1]
SURVIVED = ("survived", "no tests")


def groups(root: Path) -> dict[str, dict[str, list[str]]]:
    """Modules and the tests that watch them, of tools/mutate.toml; ValueError where one is not."""
    table = tomllib.loads((root / "tools" / "mutate.toml").read_text(encoding="utf-8"))
    for name, group in table.items():
        paths = [p.relative_to(root).as_posix() for g in group["modules"] for p in root.glob(g)]
        skipped = group.pop("skip", [])
        group["modules"] = sorted(p for p in paths if p not in skipped)
        absent = [t for t in group["tests"] if not (root / t).exists()]
        if absent or not group["modules"]:
            raise ValueError(f"tools/mutate.toml, {name}: no {', '.join(absent) or 'modules'}")
    return table


def _order_tests(seconds: float, *args: Any, **options: Any) -> None:
    """A mutant's tests: those that reach its function, then the others of the same files.

    What one test computes and keeps for another is recorded for the first of them only. Of each
    test function the fastest case comes first, then the second of each, until the time is over.
    """
    _load_stats(*args, **options)
    duration = state().duration_by_test
    by_file: dict[str, list[str]] = {}
    turn: Counter[str] = Counter()
    for test in sorted(duration, key=lambda t: duration[t]):
        turn[test] = turn[test.split("[")[0]]
        turn[test.split("[")[0]] += 1
        by_file.setdefault(test.split("::")[0], []).append(test)
    for function, tests in state().tests_by_mangled_function_name.items():
        same_files = {t for f in {t.split("::")[0] for t in tests} for t in by_file[f]}
        ordered = sorted(same_files, key=lambda t: (t not in tests, turn[t], duration[t], t))
        spent = itertools.accumulate((duration[t] for t in ordered), initial=0.0)
        ordered = [t for t, before in zip(ordered, spent, strict=False) if before < seconds]
        state().tests_by_mangled_function_name[function] = ordered  # type: ignore[assignment]


_load_stats = mutmut.collect_or_load_stats


def _run(
    folder: Path, group: dict[str, list[str]], modules: list[str], options: argparse.Namespace
) -> None:
    """In a process of its own: let mutmut work on what is asked for and not yet known."""
    os.chdir(folder)
    shutil.rmtree("mutants/tests", ignore_errors=True)  # some may be gone since
    os.environ.update(HYPOTHESIS_PROFILE="mutate", OMP_NUM_THREADS="1", PYTHONPATH="")
    configuration._config = dataclasses.replace(
        configuration._load_config(),
        only_mutate=group["modules"],
        pytest_add_cli_args_test_selection=group["tests"],
    )
    formula_mutants.install()
    mutmut.collect_or_load_stats = functools.partial(_order_tests, options.seconds)
    ForkServerRunner.run_clean_tests = lambda self, tests: 0  # type: ignore[method-assign]  # done
    for module in group["modules"]:  # half written by a run that was stopped
        if not Path("mutants", f"{module}.meta").exists():
            Path("mutants", module).unlink(missing_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        mutmut.copy_src_dir()
        mutmut.create_mutants(options.jobs)
    if mutmut.load_stats():  # other tests or options make results void, before we count them
        mutmut._apply_config_change_invalidation({})
    reset_state()
    known = equivalent(options.root)
    todo = []
    for module in modules:
        fates = verdicts(Path(), module)
        order = sorted(fates)
        random.Random(options.seed).shuffle(order)  # a larger sample holds the smaller ones
        left = [n for n, code in fates.items() if status_by_exit_code[code] in SURVIVED]
        todo += [n for n in order[: options.sample] if fates[n] is None]
        todo += [n for n in left if _key(_change(Path(), module, n)) not in known]
    if todo and not options.record_only:
        mutmut._run(tuple(todo), options.jobs)


def verdicts(folder: Path, module: str) -> dict[str, int | None]:
    """Exit status of the tests by mutant, None where it was not tried."""
    data = json.loads((folder / "mutants" / f"{module}.meta").read_text(encoding="utf-8"))
    return dict(data["exit_code_by_key"])


def equivalent(root: Path) -> dict[tuple[str, ...], str]:
    """Reason of every mutant that is listed as one that no test can notice."""
    listed = tomllib.loads((root / "tools" / "equivalent_mutants.toml").read_text("utf-8"))
    return {_key(entry): entry["reason"] for entry in listed.get("mutant", [])}


def _change(folder: Path, module: str, name: str) -> dict[str, str]:
    """Which function a mutant is in, the line as it was and as it became."""
    os.chdir(folder)  # mutmut looks for it from here
    lines = get_diff_for_mutant(name, path=module).splitlines()[3:]
    was, becomes = (" ".join(s[1:].strip() for s in lines if s[0] == sign) for sign in "-+")
    function = name.rpartition("__mutmut_")[0].rpartition(".")[2]
    function = function.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    return {"module": module, "function": function, "was": was, "becomes": becomes}


def count(folder: Path, root: Path, module: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The record of a module, and its survivors."""
    fates = verdicts(folder, module)
    statuses = {name: status_by_exit_code[code] for name, code in fates.items() if code is not None}
    left = [_change(folder, module, name) for name, s in statuses.items() if s in SURVIVED]
    known = equivalent(root)
    survivors = [change for change in left if _key(change) not in known]
    counts = Counter(statuses.values())
    killed = counts["killed"] + counts["timeout"] + counts["segfault"]
    return {
        "source": hashlib.sha256((root / module).read_bytes()).hexdigest()[:12],
        "date": datetime.date.today().isoformat(),
        "mutants": len(fates),
        "tried": len(statuses),
        "killed": killed,
        "by timeout": counts["timeout"],
        "equivalent": len(left) - len(survivors),
        "survived": len(survivors),
        "undecided": len(statuses) - killed - len(left),
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
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="of tests a mutant, fast ones first"
    )
    parser.add_argument(
        "--record-only", action="store_true", help="count the verdicts that stand, try no mutant"
    )
    options = parser.parse_args(argv)
    options.root = root
    table = groups(root)
    patterns = options.module or ["*"]
    path = root / "results" / "mutation.json"
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"modules": {}}
    record["modules"] = {m: n for m, n in record["modules"].items() if (root / m).exists()}
    left: list[dict[str, str]] = []
    failed: list[str] = []
    for name, group in table.items():
        modules = [m for m in group["modules"] if any(fnmatch.fnmatch(m, p) for p in patterns)]
        folder = root / ".mutate" / name
        if not modules:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for entry in root.iterdir():
            if not (entry.name.startswith(".") or (folder / entry.name).exists()):
                (folder / entry.name).symlink_to(entry)
        worker = multiprocessing.get_context("fork").Process(
            target=_run, args=(folder, group, modules, options)
        )
        worker.start()
        worker.join()
        if worker.exitcode:
            failed.append(name)
        for module in modules:
            if not (folder / "mutants" / f"{module}.meta").exists():
                continue
            counts, survivors = count(folder, root, module)
            record["modules"][module] = counts | {"survivors": survivors}
            left += survivors
            text = " ".join((root / module).read_text(encoding="utf-8").split())
            for key in equivalent(root):
                if key[0] == module and " ".join(key[2].split()) not in text:
                    print(f"listed as equivalent, but gone: {', '.join(key)}")
            print(f"{module}: " + ", ".join(f"{k} {v}" for k, v in counts.items()))
    for survivor in left:
        print("survived: {module}, {function}: {was}   ->   {becomes}".format(**survivor))
    _write(path, record)
    if failed:
        print(f"mutmut stopped early (see above) in: {', '.join(failed)}")
    return 2 if failed else bool(left)


def _write(path: Path, record: dict[str, Any]) -> None:
    names = ("mutants", "tried", "killed", "by timeout", "equivalent", "survived", "undecided")
    modules = {m: n for m, n in sorted(record["modules"].items()) if n["tried"]}
    record = {
        "command": "make mutate",
        "tool": f"mutmut {importlib.metadata.version('mutmut')}",
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "total": {name: sum(m[name] for m in modules.values()) for name in names},
        "modules": modules,
    }
    path.parent.mkdir(exist_ok=True)
    for file, text in (
        (path, json.dumps(record, indent=1, ensure_ascii=False) + "\n"),
        (path.with_suffix(".md"), _table(record, names)),
    ):
        part = file.with_name(file.name + ".tmp")
        part.write_text(text, encoding="utf-8")
        part.replace(file)


def _table(record: dict[str, Any], names: Sequence[str]) -> str:
    """The record to read: a row a module, then the survivors."""
    lines = [
        "# How sharp the tests are",
        f"Made by `{record['command']}` ({record['tool']}, {record['machine']}): formulas are "
        "broken one at a time, and the tests that reach them run. Where fewer are tried than there "
        "are, they were drawn at random; modules not named were not tried. Mutants that change "
        "nothing that can be observed are in tools/equivalent_mutants.toml, with reasons; share: "
        "killed of the others that were decided.",
        "\n".join(
            [
                f"| module | {' | '.join(names)} | share |",
                "|---|" + "---:|" * (len(names) + 1),
                *(_row(name, counts, names) for name, counts in record["modules"].items()),
                _row("all", record["total"], names),
            ]
        ),
    ]
    survivors = [s for counts in record["modules"].values() for s in counts["survivors"]]
    if survivors:
        lines.append("## Survivors")
        lines.append(
            "\n".join(
                "- {module}, {function}: `{was}` → `{becomes}`".format(**s) for s in survivors
            )
        )
    return "\n\n".join(lines) + "\n"


def _row(name: str, counts: dict[str, Any], names: Sequence[str]) -> str:
    decided = counts["killed"] + counts["survived"]
    share = f"{100 * counts['killed'] / decided:.1f} %" if decided else ""
    return f"| {name} | {' | '.join(str(counts[n]) for n in names)} | {share} |"


if __name__ == "__main__":
    sys.exit(main())
