"""Break the formulas of theory/ one by one; a test that stays green has not been watching.

`make mutate`, or `python -m tools.mutate [--module theory/x.py] [--max-per-module N]`. Works on
copies of the tree. An interrupted run goes on where it stopped, unless sources or tests changed.
Writes results/mutation.json; exit status 1 if a mutant that is not listed as equivalent survived.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import queue
import random
import shutil
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tools.mutants import Mutant, mutants

ROOT = Path(__file__).parents[1]
KILLED, SURVIVED, TIMEOUT = "killed", "survived", "timeout"
_BROKEN = 99  # exit status of a test process that could not even start pytest
_LEAVE = (".*", "__pycache__", "*.egg-info", "out", "build", "dist", "*.pdf")


@dataclass(frozen=True)
class Plan:
    """What is mutated and which tests watch it."""

    root: Path
    tests: dict[str, list[str]]  # module -> pytest arguments
    equivalent: list[dict[str, str]]
    preload: list[str]

    @classmethod
    def read(cls, root: Path) -> Plan:
        """Read tools/*.toml. ValueError on modules, tests or keys that do not exist."""
        table = tomllib.loads((root / "tools" / "mutate.toml").read_text(encoding="utf-8"))
        listed = tomllib.loads((root / "tools" / "equivalent_mutants.toml").read_text("utf-8"))
        modules = [p.relative_to(root).as_posix() for p in sorted((root / "theory").rglob("*.py"))]
        tests = {m: table["tests"].get(m, table["default"]) for m in modules}
        paths = [a.split("::")[0] for args in tests.values() for a in args if "tests" in a]
        wrong = [f"no module {m}" for m in table["tests"] if m not in tests]
        wrong += [f"no test file {p}" for p in sorted(set(paths)) if not (root / p).exists()]
        equivalent = listed.get("mutant", [])
        keys = {"module", "text", "mutation", "reason"}
        wrong += [f"equivalent mutant {e} needs {keys}" for e in equivalent if set(e) != keys]
        if wrong:
            raise ValueError("; ".join(wrong))
        tests = {m: args for m, args in tests.items() if m not in table["skip"]}
        return cls(root, tests, equivalent, table["preload"])

    def digest(self, module: str) -> str:
        """Changes with anything that can change a mutant's fate."""
        digest = hashlib.sha256(repr((module, self.tests[module])).encode())
        for folder in ("theory", "tests"):
            for path in sorted((self.root / folder).rglob("*.py")):
                digest.update(path.relative_to(self.root).as_posix().encode() + path.read_bytes())
        return digest.hexdigest()[:16]


def is_listed(mutant: Mutant, entry: dict[str, str]) -> bool:
    """Whether an entry of equivalent_mutants.toml means this mutant."""
    where = entry["module"] == mutant.module and entry["text"] == mutant.text
    return where and entry["mutation"] in ("*", mutant.mutation)


# --- one run of the tests -----------------------------------------------------------------------


def _child(copy: str, args: list[str], log: str) -> None:
    """In a process of its own: run pytest in a copy of the tree and exit with its status."""
    os.setsid()
    os.chdir(copy)
    sys.dont_write_bytecode = True
    here = {str(ROOT), "", os.getcwd()}
    sys.path[:] = [copy, *(p for p in sys.path if p not in here)]
    for name in [
        m for m in sys.modules if m.split(".")[0] in ("theory", "tests", "tools", "figures")
    ]:
        del sys.modules[name]
    os.environ.update(HYPOTHESIS_PROFILE="mutate", OMP_NUM_THREADS="1")
    with open(log, "w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            import pytest

            # Plain asserts: rewriting would warn about every module that is preloaded.
            quiet = "-x -q -p no:cacheprovider -p no:xdist --no-header --tb=line --assert=plain"
            status = int(pytest.main([*quiet.split(), *args]))
        except BaseException:
            traceback.print_exc()
            status = _BROKEN
    os._exit(status)


class Runner:
    """Runs test subsets on a copy of the tree; one runner per parallel process."""

    def __init__(self, plan: Plan, folder: Path, name: str) -> None:
        self.plan, self.copy, self.log = plan, folder / name, folder / f"{name}.log"
        shutil.copytree(plan.root, self.copy, ignore=shutil.ignore_patterns(*_LEAVE))
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(plan.preload)

    def run(self, module: str, source: bytes | None = None, limit: float = 600.0) -> str:
        """The fate of a module's tests when it has the given source."""
        path = self.copy / module
        original = path.read_bytes()
        try:
            if source is not None:
                path.write_bytes(source)
            args = (str(self.copy), self.plan.tests[module], str(self.log))
            process = self.context.Process(target=_child, args=args)
            process.start()
            process.join(limit)
            if process.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)  # type: ignore[arg-type]
                process.join()
                return TIMEOUT
        finally:
            path.write_bytes(original)
        if process.exitcode == 5:
            raise RuntimeError(f"{module}: pytest {' '.join(args[1])} has no tests")
        if process.exitcode == _BROKEN:
            raise RuntimeError(f"{module}: pytest did not run:\n{self.log.read_text()[-3000:]}")
        return SURVIVED if process.exitcode == 0 else KILLED


def baseline(runner: Runner, module: str) -> float:
    """Seconds that the tests of an unbroken module take; RuntimeError if they cannot watch it."""
    start = time.perf_counter()
    if runner.run(module) != SURVIVED:
        raise RuntimeError(f"{module}: its tests fail before anything is broken:\n"
                           + runner.log.read_text()[-3000:])  # fmt: skip
    seconds = time.perf_counter() - start
    if runner.run(module, b"raise RuntimeError('canary')\n") == SURVIVED:
        raise RuntimeError(f"{module}: its tests pass without it; they watch something else")
    return seconds


# --- all of them --------------------------------------------------------------------------------


def campaign(
    plan: Plan, chosen: dict[str, list[Mutant]], state: Path, jobs: int
) -> dict[Mutant, str]:
    """Fate of every chosen mutant, from the state file where it is known there."""
    digests = {module: plan.digest(module) for module in plan.tests}
    recorded = json.loads(state.read_text()) if state.exists() else {}
    known = {key: f for key, f in recorded.items() if key.split()[0] in digests.values()}
    keys = {
        m: f"{digests[m.module]} {m.module}:{m.start}:{m.mutation}"
        for ms in chosen.values()
        for m in ms
    }
    fates = {m: known[key] for m, key in keys.items() if key in known}
    todo = [m for m in keys if m not in fates]
    state.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder, ThreadPoolExecutor(jobs) as pool:
        idle: queue.SimpleQueue[Runner] = queue.SimpleQueue()
        for i in range(jobs):
            idle.put(Runner(plan, Path(folder), f"copy{i}"))
        limits: dict[str, float] = {}

        def borrow(work: Any) -> Any:
            runner = idle.get()
            try:
                return work(runner)
            finally:
                idle.put(runner)

        def one(mutant: Mutant) -> str:
            source = mutant.apply((plan.root / mutant.module).read_bytes())
            return str(borrow(lambda r: r.run(mutant.module, source, limits[mutant.module])))

        watched = sorted({m.module for m in todo})
        for module in tqdm(watched, desc="unbroken", unit="module", disable=not watched):
            limits[module] = 10.0 + 5.0 * borrow(lambda r, module=module: baseline(r, module))
        tasks = {pool.submit(one, mutant): mutant for mutant in todo}
        try:
            with tqdm(total=len(keys), initial=len(fates), desc="mutants", unit="mutant") as bar:
                for task in as_completed(tasks):
                    mutant = tasks[task]
                    fates[mutant] = known[keys[mutant]] = task.result()
                    if fates[mutant] == SURVIVED:
                        bar.write(f"survived {mutant.module}:{mutant.line}: {mutant.mutation}")
                    _write(state, known)
                    bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return fates


def summary(plan: Plan, fates: dict[Mutant, str], seed: int | None) -> dict[str, Any]:
    """The record: counts by module, the share killed, survivors, and the equivalent mutants."""
    equivalent = {m for m in fates if any(is_listed(m, e) for e in plan.equivalent)}
    modules = {}
    for module in sorted({m.module for m in fates}):
        modules[module] = _counts(
            {m: f for m, f in fates.items() if m.module == module}, equivalent
        )
    survivors = sorted(
        (m for m, fate in fates.items() if fate == SURVIVED and m not in equivalent),
        key=lambda m: (m.module, m.start, m.mutation),
    )
    return {
        "command": "make mutate",
        "sampled_with_seed": seed,
        "total": _counts(fates, equivalent),
        "modules": modules,
        "survivors": [
            {"module": m.module, "text": m.text, "mutation": m.mutation} for m in survivors
        ],
        "equivalent": plan.equivalent,
    }


def _counts(fates: dict[Mutant, str], equivalent: set[Mutant]) -> dict[str, Any]:
    rest = [fate for m, fate in fates.items() if m not in equivalent]
    killed = sum(fate != SURVIVED for fate in rest)
    return {
        "mutants": len(fates),
        "equivalent": len(fates) - len(rest),
        "killed": killed,
        "of_these_by_timeout": rest.count(TIMEOUT),
        "survived": len(rest) - killed,
        "share": round(killed / len(rest), 4) if rest else 1.0,
    }


def stale(plan: Plan, everything: Sequence[Mutant], fates: dict[Mutant, str]) -> list[str]:
    """Entries of the list of equivalent mutants that mean no mutant, or one that a test kills."""
    found = []
    for entry in plan.equivalent:
        meant = [m for m in everything if is_listed(m, entry)]
        where = f"{entry['module']}: {entry['text']!r}, {entry['mutation']}"
        if not meant:
            found.append(f"means no mutant: {where}")
        elif all(fates.get(m, SURVIVED) != SURVIVED for m in meant):
            found.append(f"was killed: {where}")
    return found


def _write(path: Path, content: Any) -> None:
    part = path.with_name(path.name + ".tmp")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """Run from the shell."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutate", description=__doc__)
    parser.add_argument("--module", action="append", help="only this one (may be repeated)")
    parser.add_argument("--max-per-module", type=int, help="a random sample of so many")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default 0)")
    parser.add_argument(
        "--survivors", action="store_true", help="only those the record says survived"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--list", action="store_true", help="show the mutants and stop")
    options = parser.parse_args(argv)
    plan = Plan.read(root)
    modules = options.module or list(plan.tests)
    if unknown := [m for m in modules if m not in plan.tests]:
        parser.error(f"no module {', '.join(unknown)}; there are: {', '.join(plan.tests)}")

    everything = {m: mutants(m, (root / m).read_bytes()) for m in plan.tests}
    chosen = {m: everything[m] for m in modules}
    record_path = root / "results" / "mutation.json"
    if options.survivors:
        left = {tuple(s.values()) for s in json.loads(record_path.read_text())["survivors"]}
        chosen = {n: [m for m in ms if (n, m.text, m.mutation) in left] for n, ms in chosen.items()}
    if options.max_per_module is not None:
        draw = random.Random(options.seed)
        chosen = {
            name: draw.sample(ms, min(options.max_per_module, len(ms)))
            for name, ms in chosen.items()
        }
    if options.list:
        for mutant in (m for ms in chosen.values() for m in ms):
            print(f"{mutant.module}:{mutant.line}: {mutant.mutation}")
        return 0

    fates = campaign(plan, chosen, root / ".mutate" / "state.json", options.jobs)
    sampled = options.max_per_module is not None
    record = summary(plan, fates, options.seed if sampled else None)
    for name, counts in record["modules"].items():
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in counts.items()))
    print("all: " + ", ".join(f"{key} {value}" for key, value in record["total"].items()))
    for line in stale(plan, [m for ms in everything.values() for m in ms], fates):
        print(f"stale entry in tools/equivalent_mutants.toml {line}")
    for survivor in record["survivors"]:
        print("survived: {module}: {mutation}   in: {text}".format(**survivor))
    if options.module or options.survivors:
        print("results/mutation.json is written by runs over all modules only")
    else:
        record_path.parent.mkdir(exist_ok=True)
        _write(record_path, record)
    return 1 if record["survivors"] else 0


if __name__ == "__main__":
    sys.exit(main())
