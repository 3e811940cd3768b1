"""The frozen network whose two layers describe an image (paper step 2): any timm model that gives feature maps."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from einops import rearrange
from torch.fx.experimental.optimization import fuse

from sapatchcore.embed.builtin import BUILTIN, NETWORK, builtin_weights, check_builtin
from sapatchcore.embed.hub import pretrained_file
from sapatchcore.embed.normalise import IMAGENET_MEAN, IMAGENET_STD, normalise
from sapatchcore.embed.weights import Weights, in_timm_names, read_checkpoint
from sapatchcore.errors import SettingsError, WeightsError, did_you_mean

PRETRAINED, RANDOM, GIVEN = "pretrained", "random", "given"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_STRIDES = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}  # what a ResNet's layers have
_DEPTHS = {"layer1": 1 / 4, "layer2": 1 / 2, "layer3": 3 / 4, "layer4": 1.0}  # where all strides are the same


class Backbone:
    """A network in eval mode, cut after the second of the two layers; its weights never change.

    Attributes: ``layers``, timm's names of the two layers; ``channels`` and ``strides`` of each; ``weights``, the
    tensors up to the second layer by name.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str,
        layers: tuple[str, str],
        input_size: tuple[int, int],
        device: torch.device,
        precision: str,
        seed: int,
        given: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Build the network.

        Args:
            name: any timm model name, or "builtin".
            weights: "pretrained", "random", or a checkpoint's path; not looked at where ``given`` has the tensors.
            layers: two names of timm's ``feature_info``; see :func:`resolve_layers`.
            input_size: (h, w) of the images that will come; transformers are built for it.
            seed: of random weights.
            given: tensors as ``weights`` of another Backbone of the same name and layers has them (a model file's).

        Raises:
            SettingsError: an unknown model or layer. WeightsError: the weights cannot be had, or do not fit.
        """
        if name == BUILTIN:
            check_builtin(None if given is not None else weights, layers)
            given = builtin_weights(layers) if given is None and weights == PRETRAINED else given
            name = NETWORK
        options = _size_options(name, input_size)
        info = _feature_info(name, options)
        indices = resolve_layers(name, layers, info)
        self.layers = (str(info[indices[0]]["module"]), str(info[indices[1]]["module"]))
        network = _network(name, GIVEN if given is not None else weights, indices, options, seed)
        if given is not None:
            _load_given(network, given, name)
        network.eval().requires_grad_(False)
        self.weights: Weights = dict(network.state_dict())
        channels, strides = network.feature_info.channels(), network.feature_info.reduction()
        self.channels = (int(channels[0]), int(channels[1]))
        self.strides = (int(strides[0]), int(strides[1]))
        config = getattr(network, "pretrained_cfg", None) or {}
        self._mean, self._std = config.get("mean", IMAGENET_MEAN), config.get("std", IMAGENET_STD)
        self._dtype, self.device = _DTYPES[precision], device
        self._channels_last = str(getattr(network, "output_fmt", "NCHW")).upper().endswith("NHWC")
        folded = _folded(network).to(device=device, dtype=self._dtype)
        self._network = folded.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, h, w, 3) uint8 → the two layers' (n, c, h', w') in the network's precision, on its device."""
        batch = normalise(images.to(self.device), self._mean, self._std)
        batch = batch.to(dtype=self._dtype, memory_format=torch.channels_last)
        with _TURNS.running():
            first, second = self._network(batch)
        if self._channels_last:  # Swin and its kin
            return rearrange(first, "n h w c -> n c h w"), rearrange(second, "n h w c -> n c h w")
        return first, second


class _Turns:
    """Networks run beside each other, but not while one is traced: torch.fx replaces ``Module.__call__`` for the whole
    process meanwhile, and what another thread runs then fails."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running, self._tracing = 0, False

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._tracing)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def tracing(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._tracing)
            self._tracing = True  # from here on nobody begins to run
            self._changed.wait_for(lambda: not self._running)
        try:
            yield
        finally:
            with self._changed:
                self._tracing = False
                self._changed.notify_all()


_TURNS = _Turns()


def resolve_layers(name: str, layers: tuple[str, str], info: list[dict[str, Any]]) -> tuple[int, int]:
    """Which of a network's feature maps the two names mean.

    A name of ``feature_info`` means itself. In networks without ResNet's names, layer1 to layer4 mean the stages of
    stride 4 to 32; where all strides are the same (plain transformers), the blocks at 1/4 to 4/4 of the depth.
    """
    modules = [str(entry["module"]) for entry in info]
    strides = [int(entry["reduction"]) for entry in info]
    found = []
    for layer in layers:
        if layer in modules:
            found.append(modules.index(layer))
        elif layer in _STRIDES and len(set(strides)) == 1:
            found.append(round(len(modules) * _DEPTHS[layer]) - 1)
        elif layer in _STRIDES and _STRIDES[layer] in strides:
            found.append(len(strides) - 1 - strides[::-1].index(_STRIDES[layer]))  # the last, deepest one
        else:
            raise SettingsError(
                f"{name} has no layer {layer!r}.{did_you_mean(layer, modules)} Allowed: {', '.join(modules)}."
            )
    first, second = found
    if first >= second or strides[first] > strides[second]:
        raise SettingsError(
            f"layers must name the finer layer first. Got {layers[0]}, {layers[1]}, which in {name} are "
            f"{modules[first]} (stride {strides[first]}) and {modules[second]} (stride {strides[second]})."
        )
    return first, second


def _feature_info(name: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    """timm's description of all feature maps of the network, without building its weights."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = timm.create_model(name, pretrained=False, **options)
    info = getattr(model, "feature_info", None)
    if not info:
        raise SettingsError(
            f"The network {name} gives no feature maps. Choose one that timm offers with features_only."
        )
    return list(info)


def _size_options(name: str, input_size: tuple[int, int]) -> dict[str, Any]:
    """What ``create_model`` needs so that a network of fixed input size (transformers) takes ``input_size``."""
    if not timm.is_model(name):
        base = name.split(".", 1)[0]
        known = timm.list_pretrained(f"{base}.*") if timm.is_model(base) else timm.list_models()
        raise SettingsError(
            f"timm {timm.__version__} knows no network {name!r}.{did_you_mean(name, known)} "
            "timm.list_models() lists them."
        )
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        tags = timm.list_pretrained(f"{name.split('.', 1)[0]}.*")
        raise SettingsError(
            f"timm {timm.__version__} knows no weights {name!r}.{did_you_mean(name, tags)} Allowed: {', '.join(tags)}."
        ) from None
    return {"img_size": input_size} if config is not None and config.fixed_input_size else {}


def _network(name: str, weights: str, indices: tuple[int, int], options: dict[str, Any], seed: int) -> Any:
    options = {**options, "features_only": True, "out_indices": indices}
    with torch.random.fork_rng(devices=[]):  # timm draws first weights even where a file's replace them
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed: that seeds every GPU too
        if weights in (RANDOM, GIVEN):
            return timm.create_model(name, pretrained=False, **options)
        path = pretrained_file(name) if weights == PRETRAINED else Path(weights)
        return _from_checkpoint(name, path, options)


def _from_checkpoint(name: str, path: Path, options: dict[str, Any]) -> Any:
    checkpoint = read_checkpoint(path)
    whole = {key: value for key, value in options.items() if key not in ("features_only", "out_indices")}
    with torch.device("meta"):
        reference = timm.create_model(name, pretrained=False, **whole)
    tensors = in_timm_names(checkpoint, reference.state_dict())
    try:
        # First as the whole model, where timm demands every tensor; the cut network would accept any part of them.
        full = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": tensors}, **whole)
        complete = full.state_dict()
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": complete}, **options)
    except (RuntimeError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise WeightsError(
            f"The checkpoint {path} does not fit {name}: {_first_line(error)} "
            "Name the network that it was made from with `backbone`."
        ) from None


def _folded(network: torch.nn.Module) -> torch.nn.Module:
    """The same function with every batch norm inside the convolution before it: a tenth less time.

    Networks whose forward cannot be traced, or that have no such pairs, stay as they are.
    """
    if not any(type(module) is torch.nn.BatchNorm2d for module in network.modules()):
        return network
    try:
        with _TURNS.tracing():
            return fuse(network)  # a copy
    except Exception:
        # Tracing runs the network's own code on symbols, which may fail in any way where that code looks at sizes.
        return network


def _load_given(network: Any, given: Mapping[str, torch.Tensor], name: str) -> None:
    try:
        network.load_state_dict(dict(given), strict=True)
    except RuntimeError as error:
        raise WeightsError(
            f"The stored weights do not fit {name} of timm {timm.__version__}: {_first_line(error)}"
        ) from None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:240] if lines else "no reason given"
