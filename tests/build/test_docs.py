"""The tutorial runs and is what its page shows; the API reference renders; names exist."""

import importlib
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
API = re.search(r"^API = (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
EVALUATED = "Error parsing type annotation"  # what is imported for types only


def python(*words, home, **given):
    """Run a module of this Python outside the clone, without the user's own Jupyter."""
    names = ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    env = os.environ | {name: str(home / name) for name in names}
    env |= {"PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1"} | given
    done = subprocess.run(
        [sys.executable, *words], cwd=home, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def printed(notebook):
    """Sources and printed outputs of all cells; of a picture, that there is one.

    What goes to standard error is the machine's: Matplotlib says there that it lists the fonts.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        outputs = cell.get("outputs", [])
        streams = (o for o in outputs if o.get("name") == "stdout")
        text = "".join("".join(stream["text"]) for stream in streams)
        yield "".join(cell["source"]), text, sum("image/png" in o.get("data", {}) for o in outputs)


def test_the_tutorial_prints_what_is_committed(tmp_path):
    shutil.copy(DOCS / "tutorial.ipynb", tmp_path)
    execute = ("--to", "notebook", "--execute", "--inplace", "tutorial.ipynb")
    backend = "module://matplotlib_inline.backend_inline"  # make's own draws nothing in a notebook
    python("-m", "nbconvert", *execute, home=tmp_path, MPLBACKEND=backend)
    committed = list(printed(DOCS / "tutorial.ipynb"))
    assert list(printed(tmp_path / "tutorial.ipynb")) == committed
    assert sum(pictures for *_, pictures in committed) == 1


def test_the_page_is_the_notebook(tmp_path):
    shutil.copy(DOCS / "tutorial.ipynb", tmp_path)
    python("-m", "nbconvert", "--to", "markdown", "tutorial.ipynb", home=tmp_path)
    page = (tmp_path / "tutorial.md").read_text(encoding="utf-8")
    assert page == (DOCS / "tutorial.md").read_text(encoding="utf-8"), "run: make tutorial"
    for picture in re.findall(r"!\[\w+\]\((.*?)\)", page):
        assert (DOCS / picture).read_bytes() == (tmp_path / picture).read_bytes()


@pytest.mark.parametrize("page", ["tutorial.md", "which_solver.md"])
def test_the_files_that_a_page_links_exist(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)[)#]", text)
    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []


def test_the_functions_that_are_named_exist_and_are_in_the_reference():
    named = set(re.findall(r"`(theory\.[\w.]+)`", (DOCS / "which_solver.md").read_text()))
    assert len(named) >= 10
    for name in named:
        home, _, attribute = name.rpartition(".")
        pkgutil.resolve_name(f"{home}:{attribute}")
        assert home in API or home.rpartition(".")[0] in API, f"{name}: add {home} to the Makefile"


def unrendered(html):
    """What is left of a docstring's markup where it should be gone, code and headings aside."""
    html = re.sub(r"<(pre|code|style|script|h\d)\b.*?</\1>", "", html, flags=re.S)
    lines = re.sub(r"<[^>]+>", "", html).splitlines()
    left = re.compile(r"`|:(func|class|meth|mod|data):|^\s*(Args|Returns|Raises|Attributes):")
    return [line.strip() for line in lines if left.search(line)]


def test_the_reference_renders(tmp_path):
    options = ("-W", "error", "-W", f"ignore:{EVALUATED}", "-m", "pdoc", "--docformat", "google")
    python(*options, "-o", "api", *API, home=tmp_path)
    pages = list((tmp_path / "api").rglob("*.html"))
    assert len(pages) > len(API)
    bad = {str(page.relative_to(tmp_path)): unrendered(page.read_text()) for page in pages}
    assert {page: lines for page, lines in bad.items() if lines} == {}


def test_markup_that_is_left_is_seen():
    assert len(unrendered("<p>see :func:`x`</p>\n<p>Args:\n x</p><code>`</code>")) == 2


def test_every_public_name_is_documented():
    from pdoc import doc

    bare = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", EVALUATED)
        todo = [doc.Module(importlib.import_module(name)) for name in API]
        while todo:
            for member in todo.pop().members.values():
                if isinstance(member, doc.Module | doc.Class):
                    todo.append(member)
                if member.name.startswith("_") or isinstance(member, doc.Variable):
                    continue
                if not member.docstring.strip():
                    bare.append(member.fullname)
    assert bare == []
