"""A checkpoint file's tensors under timm's names.

Read are ``.safetensors`` and ``.pth``/``.pt``/``.bin`` (tensors only: a pickle that holds code is refused), with timm's
names, or torchvision's. ResNets have the same names in both; torchvision's ConvNeXt, EfficientNet and others hold the
same tensors in the same order under other names, which is recognised by the whole sequence of sizes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from sapatchcore.errors import WeightsError

Weights = dict[str, torch.Tensor]

_WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model",
    "teacher",
)  # what training scripts put around
_PREFIXES = ("module.", "model.", "backbone.", "encoder.")
_CLASSIFIER = re.compile(r"^(fc|head|heads|classifier|last_linear|head_dist)\b")


def read_checkpoint(path: Path) -> Weights:
    """The file's tensors by name. Raises WeightsError where it is missing, damaged, or holds anything else."""
    if not path.is_file():
        raise WeightsError(f"The checkpoint {path} does not exist. Name a .pth or .safetensors file.")
    try:
        if path.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # on bytes that are no pickle the reader raises almost anything
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise WeightsError(
            f"The checkpoint {path} ({path.stat().st_size} bytes) cannot be read: {reason} "
            "Needed is a .pth or .safetensors file that holds tensors only."
        ) from None
    return _plain(content, path)


def _plain(content: Any, path: Path) -> Weights:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    weights = (
        {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not weights:
        raise WeightsError(f"The checkpoint {path} holds no tensors by name. Save a network's state_dict().")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def in_timm_names(weights: Weights, network: Weights) -> Weights:
    """``weights`` under the names of ``network`` (a timm model's own state_dict, any device) where that is certain.

    Names that are known stay; a classifier of another size gives way to the network's. Where the names are others but
    the sequence of sizes, classifier left out, is the same, it is torchvision's form of the network and is renamed.
    Everything else is returned as it is: timm's own filter may know it, and refuses what does not belong.
    """
    body = [name for name in network if not _CLASSIFIER.match(name)]
    if not set(body) <= set(weights):
        theirs = [name for name in weights if not _CLASSIFIER.match(name)]
        same = len(theirs) >= len(body) and all(
            weights[a].numel() == network[b].numel() and _kind(a) == _kind(b)
            for a, b in zip(theirs, body, strict=False)
        )
        if not same:
            return weights
        weights = {b: weights[a].reshape(network[b].shape) for a, b in zip(theirs, body, strict=False)}
    known = {name: value for name, value in weights.items() if name in network and value.shape == network[name].shape}
    blank = {
        name: torch.zeros(value.shape)
        for name, value in network.items()
        if _CLASSIFIER.match(name) and name not in known
    }
    # With what fits nowhere, so that timm refuses it: ResNet-34 has all of ResNet-18's tensors, and more.
    wrong = {name: value for name, value in weights.items() if name not in known and not _CLASSIFIER.match(name)}
    return known | blank | wrong


def digest(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes: the same on every machine."""
    total = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        if value.numel():
            total.update(value.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _kind(name: str) -> str:
    """What a tensor is for, as far as both name it alike: "weight", "bias", "running_mean", …; "" for a layer's scale."""
    last = name.rsplit(".", 1)[-1]
    return "" if last in ("gamma", "layer_scale") else last
