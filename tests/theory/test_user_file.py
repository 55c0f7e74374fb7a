"""What a user's file imports from beside it: found by its import statements, and its alone."""

import os
import sys
from pathlib import Path

import pytest

from theory import user_file
from theory.errors import InvalidInput

FILES = {
    "mine.py": "import one, json\nfrom two import K\nfrom pack import inner\nimport wide.far\n"
    "def f():\n    import late\n    from theory import xp\n",
    "one.py": "import three\nK = 1\n",
    "two.py": "from one import *\nimport mine\n",
    "three.py": "import one\n",
    "late.py": "",
    "other.py": "",
    "pack/__init__.py": "from . import sibling\nfrom .deep.below import L\n",
    "pack/inner.py": "from .. import out\n",
    "pack/sibling.py": "import four\n",
    "pack/deep/__init__.py": "",
    "pack/deep/below.py": "from ..cousin import C\nL = C\n",
    "pack/cousin.py": "C = 2\n",
    "pack/unread.py": "",
    "four.py": "",
    "wide/far.py": "",
    "wide/near.py": "",
}
FOUND = {
    "one.py", "two.py", "three.py", "late.py", "four.py", "wide/far.py", "pack/__init__.py",
    "pack/inner.py", "pack/sibling.py", "pack/cousin.py", "pack/deep/__init__.py",
    "pack/deep/below.py",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "of" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "of"


def test_imports_from_beside_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In functions and packages too, and those of what is imported; not the others there."""
    found = user_file.beside(folder / "mine.py")
    assert {p.relative_to(folder).as_posix() for p in found} == FOUND
    assert found == sorted(found)
    monkeypatch.chdir(folder)
    relative = user_file.beside(Path("mine.py"))
    assert {p.as_posix() for p in relative} == FOUND


def test_imports_stand_beside_the_file_that_a_link_leads_to(folder: Path) -> None:
    (folder / "links").mkdir()
    (folder / "links" / "one.py").write_text("")
    os.symlink(folder / "mine.py", folder / "links" / "link.py")
    assert user_file.beside(folder / "links" / "link.py") == user_file.beside(folder / "mine.py")


@pytest.mark.parametrize(
    "text", ["import one, (", "from .... import one", "", b"\xff\xfe", "import numpy.linalg"]
)
def test_files_without_imports_of_their_own(folder: Path, text: str | bytes) -> None:
    (folder / "bare.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert user_file.beside(folder / "bare.py") == []
    assert user_file.beside(folder / "nowhere.py") == []


def test_packages_of_this_project_are_none_of_a_users(folder: Path) -> None:
    root = Path(__file__).parents[2]
    (folder / "mine.py").write_text("from theory import xp\nfrom lab.files import digest\n")
    mine = root / "mine-that-is-not-there.py"
    assert list(user_file._imported(folder / "mine.py", root)) == []
    assert user_file.beside(mine) == []


def test_packages_of_two_folders_may_have_one_name(folder: Path, tmp_path: Path) -> None:
    """A file is run with its own one, whichever was run before; and with the newest one."""
    for name, value in (("a", 1), ("b", 2), ("a", 3)):
        (tmp_path / name / "pack_of_mine").mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "pack_of_mine" / "__init__.py").write_text("")
        (tmp_path / name / "pack_of_mine" / "inner.py").write_text(f"K = {value}  # {'x' * value}")
        (tmp_path / name / "file.py").write_text("from pack_of_mine.inner import K\n")
        found = user_file.run(tmp_path / name / "file.py").__dict__["K"]
        assert found == value
    assert not any(module.startswith("pack_of_mine") for module in sys.modules)


def test_a_file_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere.py: FileNotFoundError"):
        user_file.run(folder / "nowhere.py")
