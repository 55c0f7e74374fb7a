"""Models by their name on the Hugging Face Hub: downloaded, or taken from the local cache."""

from __future__ import annotations

import re
from pathlib import Path

from theory.errors import InvalidInput, gist

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def is_name(where: str | Path) -> bool:
    """Whether it looks like ORG/NAME, and there is no folder ORG here."""
    return NAME.fullmatch(str(where)) is not None and not Path(where).parent.exists()


def local(name: str) -> Path:
    """The directory of a model's files in the local cache, downloaded where it must be.

    InvalidInput: neither a connection to the Hub with such a model, nor a whole copy in the cache.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=FILES, ignore_patterns="original/*"))
    except Exception as error:  # of the Hub, of the connection below it, of the disk
        raise InvalidInput(
            f"model={name!r}: no such directory here, and not to be had from the Hub or its local "
            f"cache ({type(error).__name__}: {gist(error)[:160]}); run `hf download {name}` where "
            "there is a connection, or give a directory (`make model` gets the one of the presets)"
        ) from error


def cached(name: str) -> Path | None:
    """The directory of a model in the local cache, asking nobody; None where it is not there."""
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name, allow_patterns=FILES, ignore_patterns="original/*", local_files_only=True
            )
        )
    except Exception:  # of the cache, in many kinds; loading says why
        return None
