"""Who may know whom: packages, layers within them, no circles, nothing private, no type switch."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "theory": set(),
    "lab": {"theory"},
    "toy_games": {"theory", "lab"},
    "llm_scale": {"theory", "lab"},
    "figures": {"theory", "lab", "toy_games", "llm_scale"},
    "benchmarks": {"theory", "lab", "toy_games", "llm_scale"},
    "tools": {"theory", "lab", "llm_scale"},
}
# Each part (module or folder) imports from itself and from parts before it.
LAYERS = {
    "theory": "errors files user_file result laws xp arguments objectives certificate tokens rounds"
    " equilibria occupancy preferences worst_case card"
    " checks check command __init__ __main__",
    "lab": "files progress streams stats specs settings command sweep evidence evidence_plugin",
    "toy_games": "engine dynamics predictions estimators games experiments launch __main__",
    "llm_scale": "oracle_spec matching boards settings processes data models rounds measure store"
    " train launch study campaign report __main__",
    "figures": "sizes style tidy draw catalogue recorded theory toy_games llm_scale runner report"
    " __main__",
    "benchmarks": "probe timing llm_round bench_* __main__",
    "tools": "*",
}
OF_THEORY_IN_LAB = {"theory.errors", "theory.files", "theory.objectives"}
LATE = {  # what only some installations have, or what is slow to load
    "PEPit", "cvxpy", "datasets", "gguf", "huggingface_hub", "joblib", "matplotlib", "pandas",
    "peft", "pytest", "sacrebleu", "safetensors", "scipy", "tokenizers", "torch", "transformers",
    "trl", "wandb",
}  # fmt: skip
MOST_MODULES = 14
OBJECTIVES = "theory.objectives."
OF_OBJECTIVE = re.compile(r"(has|get)attr\((\w+\.)*_?obj(ective)?, '")
OBJECTIVES_NAME = re.compile(r"\b_?obj(ective)?\.name (==|!=|in|not in) ")


class Import(NamedTuple):
    """An import statement's name, resolved to a module of the project where it is one."""

    module: str
    target: str
    name: str
    late: bool
    for_types: bool

    @property
    def project(self) -> bool:
        return self.target.partition(".")[0] in MAY_IMPORT


class Project:
    """All modules by dotted name; a package's own is ``package.__init__``."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.trees = {name: ast.parse(text) for name, text in sources.items()}
        self.imports = {name: list(self._of(name)) for name in sources}

    @classmethod
    def there(cls) -> "Project":
        paths = (p for package in MAY_IMPORT for p in sorted((ROOT / package).rglob("*.py")))
        return cls(
            {
                ".".join(p.relative_to(ROOT).with_suffix("").parts): p.read_text(encoding="utf-8")
                for p in paths
            }
        )

    def _of(self, module: str) -> Iterator[Import]:
        def walk(node: ast.AST, late: bool, types: bool) -> Iterator[Import]:
            for child in ast.iter_child_nodes(node):
                inner = late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                checked = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                if isinstance(child, ast.Import):
                    for alias in child.names:
                        yield Import(module, self.known(alias.name), "", late, types)
                elif isinstance(child, ast.ImportFrom):
                    assert child.level == 0, f"{module}: relative import"
                    for alias in child.names:
                        full = self.known(f"{child.module}.{alias.name}")
                        there = full.removesuffix(".__init__") in self.names()
                        target = full if there else self.known(child.module or "")
                        yield Import(module, target, alias.name, late, types)
                else:
                    yield from walk(child, inner, types or checked)

        return walk(self.trees[module], False, False)

    def names(self) -> set[str]:
        return {name.removesuffix(".__init__") for name in self.trees}

    def known(self, name: str) -> str:
        return f"{name}.__init__" if f"{name}.__init__" in self.trees else name

    def every(self) -> Iterator[Import]:
        for found in self.imports.values():
            yield from (i for i in found if i.project)

    def is_protocol(self, found: Import) -> bool:
        classes = (n for n in ast.walk(self.trees[found.target]) if isinstance(n, ast.ClassDef))
        bases = [ast.unparse(b) for c in classes if c.name == found.name for b in c.bases]
        return any(base.partition("[")[0] == "Protocol" for base in bases)


# -- the rules: each gives its violations --------------------------------------------------------


def against_the_packages(project: Project) -> list[str]:
    out = []
    for found in project.every():
        own, other = found.module.partition(".")[0], found.target.partition(".")[0]
        if other != own and other not in MAY_IMPORT[own]:
            out.append(f"{found.module} imports {found.target}")
        of_theory = ".".join(found.target.split(".")[:2])
        if own == "lab" and other == "theory" and of_theory not in OF_THEORY_IN_LAB:
            out.append(
                f"{found.module} imports {found.target}; of theory lab takes errors and files"
            )
    return out


def against_the_layers(project: Project) -> list[str]:
    def layer(module: str) -> int:
        package, _, inner = module.partition(".")
        order, named = LAYERS[package].split(), (inner, inner.partition(".")[0])
        return next((i for n in named for i, p in enumerate(order) if fnmatch(n, p)), -1)

    out = [f"{m}: no layer of LAYERS" for m in project.trees if layer(m) < 0 and "__init_" not in m]
    for found in project.every():
        same = found.target.partition(".")[0] == found.module.partition(".")[0]
        if same and layer(found.target) > layer(found.module) >= 0:
            out.append(f"{found.module} imports {found.target}, which is above it")
    return out


def circles(project: Project) -> list[str]:
    """Imports in functions count; those for types too, but of protocols."""
    graph: dict[str, set[str]] = {name: set() for name in project.trees}
    for found in project.every():
        if found.target in graph and not (found.for_types and project.is_protocol(found)):
            graph[found.module].add(found.target)
    state: dict[str, int] = {}
    out = []

    def visit(name: str, path: list[str]) -> None:
        state[name] = 1
        for other in sorted(graph[name]):
            if state.get(other) == 1:
                out.append(" -> ".join([*path[path.index(other) :], other]))
            elif other not in state:
                visit(other, [*path, other])
        state[name] = 2

    for name in sorted(graph):
        if name not in state:
            visit(name, [name])
    return out


def private_names(project: Project) -> list[str]:
    """``from module import _name``, and ``module._name`` of a module of the project."""
    out = [
        f"{found.module} imports {found.target}.{found.name}"
        for found in project.every()
        if found.name.startswith("_") and not found.name.startswith("__")
    ]
    for module, tree in project.trees.items():
        modules = {
            i.name
            for i in project.imports[module]
            if i.project and i.target.removesuffix(".__init__").endswith(f".{i.name}")
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                private = node.attr.startswith("_") and not node.attr.startswith("__")
                if private and node.value.id in modules:
                    out.append(f"{module} uses {node.value.id}.{node.attr}")
    return out


def late_imports(project: Project) -> list[str]:
    """In functions only what `LATE` names; a command line also its own package, to start fast."""
    out = []
    for module, found in project.imports.items():
        for each in found:
            command = module.endswith(".__main__") and each.project
            top = each.target.partition(".")[0]
            if each.late and not command and top not in LATE:
                out.append(f"{module} imports {each.target} in a function")
    return out


def type_switches(project: Project) -> list[str]:
    """What depends on an objective's kind is declared by it, in `theory.objectives`."""
    out = []
    for module, tree in project.trees.items():
        if module.startswith("theory.objectives."):
            continue
        kinds = {i.name for i in project.imports[module] if i.target.startswith(OBJECTIVES)}
        for node in ast.walk(tree):
            text = ast.unparse(node) if isinstance(node, ast.Call | ast.Compare) else ""
            asks = (
                (isinstance(node, ast.Call) and OF_OBJECTIVE.match(text) is not None)
                or (isinstance(node, ast.Compare) and OBJECTIVES_NAME.search(text) is not None)
                or (
                    text.startswith("isinstance(")
                    and any(word in kinds - {"Objective"} for word in re.findall(r"\w+", text))
                )
            )
            if asks:
                out.append(f"{module}: {text}")
    return out


def misnamed(project: Project) -> list[str]:
    parts = {part: m for m in project.trees for part in m.split(".")[1:]}
    wrong = parts.keys() & sys.stdlib_module_names
    return [f"{parts[part]}: {part} is a module of Python" for part in sorted(wrong)]


def crowded(project: Project) -> list[str]:
    folders: dict[str, int] = {}
    for module in project.trees:
        folder, _, name = module.rpartition(".")
        folders[folder] = folders.get(folder, 0) + (not name.startswith("__"))
    return [
        f"{f}: {n} modules, {MOST_MODULES} at most" for f, n in folders.items() if n > MOST_MODULES
    ]


RULES = (
    against_the_packages, against_the_layers, circles, private_names, late_imports, type_switches,
    misnamed, crowded,
)  # fmt: skip


@pytest.fixture(scope="module")
def project():
    return Project.there()


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.__name__)
def test_the_project_keeps_the_rule(project, rule):
    found = rule(project)
    if found:
        pytest.fail("\n".join(found), pytrace=False)


BROKEN = {
    against_the_packages: {"theory.card": "from lab import files", "lab.files": ""},
    against_the_layers: {"theory.laws": "from theory.card import x", "theory.card": ""},
    circles: {
        "lab.files": "def f():\n    from lab import stats",
        "lab.stats": "if TYPE_CHECKING:\n    from lab.files import A",
    },
    private_names: {"lab.files": "", "lab.stats": "from lab import files\nfiles._sync(1)"},
    late_imports: {"lab.files": "def f():\n    import json"},
    type_switches: {"theory.card": "def f(obj):\n    return hasattr(obj, 'kappa')"},
    misnamed: {"lab.statistics": ""},
    crowded: {f"lab.m{i}": "" for i in range(15)},
}


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.__name__)
def test_a_project_that_breaks_the_rule_is_seen(rule):
    assert len(rule(Project(BROKEN[rule]))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "getattr(game.objective, 'bound', 1.0)",
        "objective.name == 'centred_spif'",
        "self.obj.name in ('ipo', 'spin')",
        "isinstance(obj, (int, SquaredMargin))",
    ],
)
def test_each_kind_of_type_switch_is_seen(line):
    head = "from theory.objectives.pairwise import SquaredMargin\n"
    assert len(type_switches(Project({"theory.card": head + line}))) == 1


def test_a_protocol_may_be_imported_for_its_type():
    sources = BROKEN[circles] | {"lab.files": "from lab import stats\nclass A(Protocol): pass"}
    assert circles(Project(sources)) == []


def test_theory_is_light_to_import():
    heavy = ("cvxpy", "matplotlib", "pandas", "sympy", "torch")
    code = f"import sys, theory; print(*(name for name in {heavy} if name in sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []
