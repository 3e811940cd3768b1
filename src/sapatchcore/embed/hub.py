"""Where a network's pretrained weights lie: in a cache of this machine, or, once, on timm's hub."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

import huggingface_hub
import timm
import torch
from huggingface_hub import constants

from sapatchcore.errors import WeightsError

_FILES = ("model.safetensors", "pytorch_model.bin")
_TIMEOUT = 5  # seconds for the one question whether the hub can be reached; its own client would ask for 45


def pretrained_file(name: str) -> Path:
    """The file with timm's pretrained weights of ``name``, which may be downloaded for it.

    Looked for in the hub's cache (HF_HOME), then in torch's (TORCH_HOME, where torchvision keeps the same files), then
    on the hub. Raises WeightsError with the ways out: never is anything else taken silently.
    """
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
            huggingface_hub.get_session().head(constants.ENDPOINT, timeout=_TIMEOUT)
            return _download(repository)
        except Exception as error:
            # Offline, refused, missing: the hub's client raises many kinds, all with the same ways out.
            reason = str(error).strip().splitlines()
            tried.append(f"the hub {constants.ENDPOINT} ({reason[0][:120] if reason else type(error).__name__})")
    raise WeightsError(
        f"The pretrained weights of {name} cannot be had: tried {', '.join(tried)}. Ways out: `weights` FILE with a "
        "checkpoint (.pth or .safetensors, torchvision's or timm's); a hub cache filled on a machine with internet; or "
        "`backbone` builtin, the small network that comes with this package."
    )


def _download(repository: str) -> Path:
    for file in _FILES:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, file))
        except huggingface_hub.errors.LocalEntryNotFoundError:  # the hub went away: this says nothing of the file
            raise
        except huggingface_hub.errors.EntryNotFoundError:
            continue
    raise OSError(f"{repository} holds neither of {', '.join(_FILES)}")
