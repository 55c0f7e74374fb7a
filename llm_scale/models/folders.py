"""Directories of models: whole ones, and LoRA adapters, which are merged into their base."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file

from llm_scale.data.ends import find
from llm_scale.models import hub, lora
from llm_scale.models.language import Language, few, load_whole, nonfinite, with_ends
from llm_scale.models.weights import Weights, everything
from theory.errors import InvalidInput, gist, refuse

ADAPTER = "adapter"
"""Folder beside a final model's merged weights."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
OTHERWISE = {
    "model": ("'tiny'", "`make model` gets the one of the presets"),
    "expert": ("'none', 'made', a finished run", "`make-expert` trains one"),
}
"""What a setting may be beside a directory, and where one is from."""


def directory(path: str | Path, setting: str = "model") -> Path:
    """The path, if a model may be there.

    InvalidInput: no config.json and no adapter, or an adapter that cannot be used.
    """
    path, name = Path(path), f"{setting}={str(path)!r}"
    if (path / lora.CONFIG).is_file():
        refuse(f"{name}: {problem}" for problem in _adapter_problems(path))
    elif not (path / "config.json").is_file():
        if (path / "final" / "config.json").is_file():
            raise InvalidInput(f"{name}: the folder of a run; its model is {str(path / 'final')!r}")
        word, hint = OTHERWISE[setting]
        raise InvalidInput(
            f"{name}: no config.json there; needed is {word}, a directory of a Hugging Face causal "
            "LM (config.json, *.safetensors, tokenizer files) or of a LoRA adapter of one, or "
            f"ORG/NAME on the Hub; {hint}"
        )
    return path


def load(
    where: str | Path,
    dtype: torch.dtype,
    device: torch.device,
    style: str = "auto",
    say: Callable[[str], None] = lambda text: None,
    setting: str = "model",
) -> Language:
    """A causal LM and its tokenizer, from a directory or by its name on the Hub.

    An adapter is merged into its base, and ``say`` is told so; other arguments as `load_whole`.

    Raises:
        InvalidInput: as `directory`, or files that cannot be loaded, are incomplete or not finite.
    """
    path = hub.local(str(where)) if hub.is_name(where) else directory(where, setting)
    if not (path / lora.CONFIG).is_file():
        return load_whole(path, dtype, device, style, say, setting)
    base = load(_base(path), torch.float32, torch.device("cpu"), style, say, setting)
    refuse(
        f"{setting}={str(path)!r}: a LoRA adapter of other weights than {_base(path)} has: "
        f"{problem}; put them back, or write where they are into {lora.CONFIG} "
        "(base_model_name_or_path)"
        for problem in lora.base_problems(path, base)
    )
    merged = _merged(path, base)
    say(f"{path}: a LoRA adapter, merged into its base {_base(path)}")
    model = merged.model.to(device=device, dtype=dtype).eval()
    told = f"{setting}={str(path)!r}"
    return with_ends(dataclasses.replace(merged, model=model), told, style, say)


def is_adapter(where: str) -> bool:
    """Whether a model's directory, or the copy here of one on the Hub, is a LoRA adapter."""
    path = hub.cached(where) if hub.is_name(where) else Path(where)
    return bool(where) and path is not None and (path / lora.CONFIG).is_file()


def there(where: str, setting: str = "model") -> None:
    """InvalidInput: neither a directory of a model nor a name that the Hub may know."""
    if not hub.is_name(where):
        directory(where, setting)


def tokens(where: str, style: str) -> tuple[Any, Any, tuple[int, ...]]:
    """Tokenizer, configuration and ends of a model whose weights are not loaded.

    InvalidInput: none there, or no token ends a response.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    path = hub.local(where) if hub.is_name(where) else directory(where)
    base = _base(path) if (path / lora.CONFIG).is_file() else path
    own = any((path / file).is_file() for file in TOKENIZER)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path if own else base, local_files_only=True)
        config = AutoConfig.from_pretrained(base, local_files_only=True)
        generation = None
        if (base / "generation_config.json").is_file():
            generation = GenerationConfig.from_pretrained(base, local_files_only=True)
    except Exception as error:  # transformers raises many kinds
        raise InvalidInput(f"cannot be loaded: {gist(error)}") from error
    declared = SimpleNamespace(config=config, generation_config=generation)
    return tokenizer, config, find(declared, tokenizer, style)[0]


def chain(where: Path) -> list[Path]:
    """Directories of a model's weights and tokens: its own, then an adapter's base, and so on.

    A base that is not named, or that leads back, ends it.
    """
    out: list[Path] = []
    while where not in out:
        out.append(where)
        if not (where / lora.CONFIG).is_file():
            break
        try:
            base = _base(where)
        except InvalidInput:  # `directory` says so
            break
        where = base if base.parts else where
    return out


def save(language: Language, directory: Path) -> None:
    """What trains, and the tokenizer: a directory of transformers, or of peft for an adapter."""
    if language.adapter is None:
        _save_whole(language, directory)
    else:
        lora.save(language, directory)
        _save_tokenizer(language, directory)


def save_final(language: Language, directory: Path) -> None:
    """A directory of plain transformers with all weights; an adapter is merged, and kept beside.

    One that is for the merged weights of another adapter is not kept: no directory has them, and
    peft would load it onto that one's base.
    """
    if language.adapter is None:
        _save_whole(language, directory)
    else:
        _save_whole(language, directory, lora.merged(language))
        if is_adapter(str(language.adapter.base_model_name_or_path or "")):
            return
        (directory / ADAPTER).mkdir()
        save(language, directory / ADAPTER)


def saved(language: Language, tensors: Callable[[str], Weights]) -> Weights:
    """What `save` wrote of the same model, by the names of its parameters.

    Args:
        tensors: those of a safetensors file by the file's stem.
    """
    if language.adapter is None:
        return tensors("model")
    return lora.inside(language, tensors(Path(lora.WEIGHTS).stem))


def _save_whole(language: Language, directory: Path, weights: Weights | None = None) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()  # a tiny model is saved every few seconds
    language.model.save_pretrained(directory, state_dict=weights or everything(language.model))
    _save_tokenizer(language, directory)


def _save_tokenizer(language: Language, directory: Path) -> None:
    try:
        language.tokenizer.save_pretrained(directory)
    except Exception as error:  # of a full disk its library says so with this kind
        if type(error) is not Exception:
            raise
        raise OSError(str(error)) from error


# -- adapters --------------------------------------------------------------------------------------


def _adapter_config(path: Path) -> dict[str, Any]:
    """InvalidInput: not an object in JSON."""
    try:
        return dict(json.loads((path / lora.CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(f"{lora.CONFIG} is not an object in JSON ({error})") from error


def _base(path: Path) -> Path:
    return Path(str(_adapter_config(path).get("base_model_name_or_path") or ""))


def _adapter_problems(path: Path, above: tuple[Path, ...] = ()) -> list[str]:
    """Why an adapter cannot be merged, as far as can be said without loading it.

    Its base may be an adapter again; those ``above`` lead to it.
    """
    try:
        config = _adapter_config(path)
    except InvalidInput as error:
        return error.problems
    kind, base = config.get("peft_type"), config.get("base_model_name_or_path")
    if kind != "LORA":
        return [f"an adapter of the kind {kind!r}; needed is LORA, or merge it into its base first"]
    out = []
    if not lora.installed():
        out.append(f"a LoRA adapter {lora.NEEDED}, or merge it into its base first")
    if not (path / lora.WEIGHTS).is_file():
        out.append(f"a LoRA adapter without its weights ({lora.WEIGHTS})")
    if any(path.glob("model*.safetensors")):
        out.append("a LoRA adapter and whole weights in one folder; keep one of the two there")
    if not base:
        out.append(f"a LoRA adapter that names no base (base_model_name_or_path in {lora.CONFIG})")
    elif Path(base).resolve() in (*above, path.resolve()):
        out.append(f"a LoRA adapter whose base {base!r} leads back to itself")
    elif (Path(base) / lora.CONFIG).is_file():
        more = _adapter_problems(Path(base), (*above, path.resolve()))
        out += [f"its base {base!r}: {problem}" for problem in more]
    elif not (Path(base) / "config.json").is_file():
        out.append(
            f"a LoRA adapter whose base {base!r} is no directory of a model here; write "
            f"where that is into {lora.CONFIG} (base_model_name_or_path)"
        )
    return out


def _merged(path: Path, base: Language) -> Language:
    """The base with the update added.

    InvalidInput: weights that do not fit or are not finite, or an update that is more than weights.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from transformers import AutoTokenizer

    name = f"model={str(path)!r}"
    try:
        with warnings.catch_warnings():  # of missing weights, which are refused here
            warnings.simplefilter("ignore")
            model = PeftModel.from_pretrained(base.model, path, torch_device="cpu")
            needed = set(get_peft_model_state_dict(model, save_embedding_layers=False))
        there = set(load_file(path / lora.WEIGHTS))
        own = any((path / file).is_file() for file in TOKENIZER)
        tokenizer = base.tokenizer
        if own:
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # peft raises many kinds
        raise _of_peft(name, "loaded", error) from error
    strange = sorted(key for key in there - needed if ".lora_" in key)
    problems = [f"its {lora.WEIGHTS} has no {few(sorted(needed - there))}"] * (not needed <= there)
    problems += [f"{few(strange)}: its base has no such layers"] if strange else []
    problems = [f"a LoRA adapter that does not fit: {problem}" for problem in problems]
    refuse(f"{name}: {problem}" for problem in problems)
    try:
        _untie(model.get_base_model())
        whole = model.merge_and_unload().requires_grad_(True)
    except Exception as error:  # as above
        raise _of_peft(name, "merged", error) from error
    refuse(f"{name}: {problem}" for problem in nonfinite(whole))
    return Language(whole, tokenizer)


def _of_peft(name: str, done: str, error: Exception) -> InvalidInput:
    return InvalidInput(f"{name}: this LoRA adapter cannot be {done}: {gist(error)}")


def _untie(model: Any) -> None:
    """Give the output a copy of weights that it shares with the embeddings, if one has an update.

    An update is of one of the two, and is added to its weights where they are: the other one would
    get it as well, and each of two updates both.
    """
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    plain = [getattr(layer, "base_layer", layer) for layer in layers]
    shared = getattr(plain[1], "weight", None)
    if shared is not None and shared is plain[0].weight and plain != layers:
        plain[1].weight = torch.nn.Parameter(shared.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False
