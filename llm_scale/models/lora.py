"""LoRA by peft: low-rank updates of linear layers, which train in the place of all weights.

The layers are put into the model itself: it keeps its class, and is called, sampled and scored as
before. Its weights without the update are the base; what trains is the adapter.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lab import streams
from llm_scale.models.language import Language
from llm_scale.models.weights import Weights, base_digest, everything, trained
from llm_scale.settings import LINEAR
from theory.errors import InvalidInput, refuse

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""Files of an adapter, by peft."""
BASE = "base.json"
"""Beside them, by us: the digest of the weights that they are for."""
NEEDED = "needs the package peft: pip install 'selfplay-theory[lora]'"
_NAME = "default"
"""Of the adapter among those that peft could put into the model."""


def installed() -> bool:
    """Whether peft is."""
    return importlib.util.find_spec("peft") is not None


def targets_of(model: Any, targets: str) -> list[str]:
    """Names of the layers that get an update, as peft matches them: by their last parts.

    Args:
        model: of transformers.
        targets: `LINEAR`, which is every linear layer but the output, or names between commas.

    Raises:
        InvalidInput: a name that no layer has, or a layer that is not linear or is the output.
    """
    modules = dict(model.named_modules())
    output = model.get_output_embeddings()
    linear = {name for name, m in modules.items() if _is_linear(m) and m is not output}
    if targets == LINEAR:
        last = {name.rpartition(".")[2] for name in linear}
        clear = {leaf for leaf in last if all(n in linear for n in modules if _ends(n, leaf))}
        return sorted(clear | {n for n in linear if n.rpartition(".")[2] not in clear})
    names = sorted({name.strip() for name in targets.split(",")})
    problems, there = [], ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
    for name in names:
        found = [n for n in modules if _ends(n, name)]
        if not found or not linear.issuperset(found):
            reason = "no layer of this name" if not found else f"{found[0]} is none of them"
            problems.append(
                f"lora_targets: {name!r}: {reason}; linear layers but the output: {there}"
            )
    refuse(problems)
    return names


def layers_of(model: Any, targets: str) -> list[str]:
    """Full names of the layers that get an update. InvalidInput: as `targets_of`."""
    names = targets_of(model, targets)
    return [n for n, _ in model.named_modules() if any(_ends(n, name) for name in names)]


def check(model: Any, rank: int, targets: str) -> None:
    """InvalidInput: as `targets_of`, or a rank that no update of these layers can have."""
    sides = [min(model.get_submodule(n).weight.shape) for n in layers_of(model, targets)]
    if rank > max(sides):
        raise InvalidInput(
            f"lora={rank}; needed is <= {max(sides)}, the highest rank of an update of these layers"
        )


def add(
    language: Language, rank: int, alpha: float, targets: str, seed: int, base: str
) -> Language:
    """The same model with an adapter that changes nothing yet (B = 0); it alone trains.

    Args:
        rank: of the updates ``alpha / rank B A``.
        alpha: see there; 0 is twice the rank.
        targets: as `targets_of` reads them.
        seed: A is a function of it.
        base: directory of the model as it is, for the adapter's configuration; "" if it has none.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names, digest = targets_of(language.model, targets), base_digest(language.model)
    kinds = {type(language.model.get_submodule(n)) for n in layers_of(language.model, targets)}
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha or 2 * rank,
        target_modules=names,
        fan_in_fan_out=nn.Linear not in kinds,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base or None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(streams.generator(seed, "lora").integers(2**63)))
        inject_adapter_in_model(config, language.model, _NAME)
    config.target_modules = names  # a list, so that it is always written in this order
    config.inference_mode = True
    language.model.eval()
    return dataclasses.replace(language, adapter=config, base=digest)


@torch.no_grad()
def narrow(language: Language, dtype: torch.dtype) -> None:
    """Hold the base's linear layers as they are computed with: half of their memory in bfloat16.

    Autocast would make them so in every pass. What trains stays as it is. Only called under
    autocast from then on.
    """
    for name, parameter in language.model.named_parameters():
        if ".base_layer." in name:
            parameter.data = parameter.data.to(dtype)


def save(language: Language, directory: Path) -> None:
    """The adapter alone, as peft loads it onto its base, and the digest of that."""
    told = language.adapter.to_dict()
    text = json.dumps(told, indent=2, sort_keys=True, default=str)
    (directory / CONFIG).write_text(text, encoding="utf-8")
    tensors = {_outside(n): p.detach().cpu() for n, p in trained(language.model).items()}
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    (directory / BASE).write_text(json.dumps({"digest": language.base}), encoding="utf-8")


def base_problems(directory: Path, base: Language) -> list[str]:
    """Why weights are not those that an adapter's are for; nothing is known of one by others."""
    if not (directory / BASE).is_file():
        return []
    try:
        digest = json.loads((directory / BASE).read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{BASE} is not what was written with the adapter ({error!r})"]
    return ["they changed since"] * (digest != base_digest(base.model))


def inside(language: Language, tensors: Weights) -> Weights:
    """What `save` wrote, by the names of the parameters."""
    return {name: tensors[_outside(name)] for name in trained(language.model)}


def merged(language: Language) -> Weights:
    """Every weight of the model with its update added, float32 on the CPU, tied ones once.

    Named as in the model without an adapter, which stays as it is.
    """
    from peft.tuners.lora import LoraLayer

    model = language.model
    updated = {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    out: dict[str, Tensor] = {}
    for name, tensor in everything(model).items():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        out[plain] = tensor.detach().to("cpu", dtype, copy=True)
        if plain in updated:
            out[plain] += updated[plain].get_delta_weight(_NAME).detach().cpu()
    return out


def _outside(name: str) -> str:
    """Of a parameter, its name in peft's file."""
    return "base_model.model." + name.replace(f".{_NAME}.", ".")


def _is_linear(module: nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (nn.Linear, Conv1D))


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)
