"""Files that are whole or absent."""

import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lab.files import digest, source_digest, versions
from theory.files import clear, whole, write_whole


def half_then_fail(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("half")
    raise TypeError


def test_what_is_written_is_what_was_given(tmp_path: Path):
    path = tmp_path / "new" / "folder" / "a.txt"
    write_whole(path, "a\r\nü\n")
    assert path.read_bytes() == "a\r\nü\n".encode()
    write_whole(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    plain = tmp_path / "plain"
    plain.write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    with pytest.raises(TypeError), whole(path) as part:
        half_then_fail(part)
    with pytest.raises(FileNotFoundError), whole(path):
        pass  # nothing was written
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_until_the_end_of_the_block_the_old_file_is_there(tmp_path: Path):
    path = tmp_path / "a.txt"
    write_whole(path, "old")
    with whole(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


KILLED = """
import os, pathlib, signal, sys
from theory.files import whole
with whole(pathlib.Path(sys.argv[1])) as part:
    if sys.argv[2] == "folder":
        part.mkdir()
        part = part / "a"
    part.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_leaves_is_cleared_and_nothing_else(tmp_path: Path, kind: str):
    line = [sys.executable, "-c", KILLED, str(tmp_path / "a.txt"), kind]
    root = Path(__file__).parents[2]
    assert subprocess.run(line, cwd=root, check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    mine = ["a.txt", "a.txt.tmp", "a.txt.notes.tmp", "b.txt.0123abcd.tmp", "a_txt.0123abcd.tmp",
            "a.txt.0123abcd.tmp.gz", "a.txt.0123ABCD.tmp"]  # fmt: skip
    for name in mine:
        (tmp_path / name).write_text(name)
    (tmp_path / "a.txt.89abcdef.tmp").symlink_to(root)
    clear(tmp_path, r"a\.txt")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(mine)
    assert not left.exists()
    assert root.is_dir()
    clear(tmp_path / "nowhere", ".*")


def test_a_folder_takes_the_place_of_another(tmp_path: Path):
    folder = tmp_path / "model"
    for names in (["a", "b"], ["b", "c"]):
        with whole(folder) as part:
            (part / "inner").mkdir(parents=True)
            for name in names:
                (part / "inner" / name).write_text(name)
    assert sorted(p.name for p in (folder / "inner").iterdir()) == ["b", "c"]
    with pytest.raises(TypeError), whole(folder) as part:
        half_then_fail(part / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_link_is_followed_and_a_device_is_not_replaced(tmp_path: Path):
    path, link = tmp_path / "a.txt", tmp_path / "link"
    path.write_text("old")
    link.symlink_to(path)
    write_whole(link, "new")
    assert link.is_symlink()
    assert path.read_text() == "new"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_whole(pipe, "through")
    reader.join()
    assert read == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_digests_are_those_of_hashlib_and_see_names_but_not_line_ends(tmp_path: Path):
    content = b"x = 1\n" * 500_000  # more than a block
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    (one / "a.py").write_bytes(content)
    (two / "a.py").write_bytes(content.replace(b"\n", b"\r\n"))
    assert digest(one / "a.py") == digest(content) == hashlib.sha256(content).hexdigest()
    assert digest("ü") == digest("ü".encode())
    before = source_digest(one)
    assert before == source_digest(two)
    (two / "a.py").rename(two / "b.py")
    assert before != source_digest(two)


def test_versions_are_of_what_is_installed():
    found = versions("numpy", "no-such-package")
    assert set(found) == {"python", "numpy"}
