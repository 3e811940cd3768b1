"""Building the network: which timm model, which two of its layers, with which weights; its batch norms folded in."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sapatchcore.embed.builtin import BUILTIN, LAYERS, TIMM_NAME, BuiltinNetwork, builtin_weights, check_builtin
from sapatchcore.embed.weights import PACKAGED, in_timm_names, packaged_file, pretrained_file, read_checkpoint
from sapatchcore.errors import SettingsError, WeightsError, did_you_mean

PRETRAINED, RANDOM, GIVEN = "pretrained", "random", "given"
_STRIDES = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}  # what a ResNet's layers have
_DEPTHS = {"layer1": 1 / 4, "layer2": 1 / 2, "layer3": 3 / 4, "layer4": 1.0}  # where all strides are the same


def choose_device(name: str) -> torch.device:
    """ "auto" takes CUDA, else MPS, else the CPU. Raises SettingsError where the device named is not there."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (not cuda or (device.index or 0) >= torch.cuda.device_count()):
        count = torch.cuda.device_count() if cuda else 0
        raise SettingsError(f"device {name!r} is not there: PyTorch sees {count} CUDA devices. Use device auto or cpu.")
    if device.type == "mps" and not mps:
        raise SettingsError("device 'mps' is not there on this machine. Use device auto or cpu.")
    return device


def build_network(
    name: str,
    *,
    weights: str,
    layers: tuple[str, str],
    input_size: tuple[int, int],
    seed: int,
    given: Mapping[str, torch.Tensor] | None,
) -> tuple[Any, tuple[str, str]]:
    """timm's network cut after the second layer, in eval mode and frozen, and timm's names of the two layers.

    Parameters and errors as of ``Backbone``.
    """
    if name == BUILTIN:
        check_builtin(None if given is not None else weights, layers)
        given = builtin_weights(layers) if given is None and weights == PRETRAINED else given
        if given is not None:
            resolve_layers(name, layers, [{"module": layer, "reduction": _STRIDES[layer]} for layer in LAYERS])
            with torch.random.fork_rng(devices=[]):  # first weights are drawn, though the file's replace them
                network = BuiltinNetwork(layers)
            return _load_given(network, given, name).eval().requires_grad_(False), layers
        name = TIMM_NAME
    if (packaged := PACKAGED.get(name)) is not None:
        weights = str(packaged_file(name)) if given is None and weights == PRETRAINED else weights
        name = packaged.architecture
    options = _size_options(name, input_size)
    info = _feature_info(name, options)
    first, second = resolve_layers(name, layers, info)
    network = _network(name, GIVEN if given is not None else weights, (first, second), options, seed)
    if given is not None:
        _load_given(network, given, name)
    network.eval().requires_grad_(False)
    return network, (str(info[first]["module"]), str(info[second]["module"]))


def strides_of(name: str, layers: tuple[str, str]) -> tuple[int, int]:
    """Pixels of the input for a cell of either layer, before the network is built. Raises SettingsError as ``build_network``."""
    if name == BUILTIN:
        check_builtin(None, layers)
        info: list[dict[str, Any]] = [{"module": layer, "reduction": _STRIDES[layer]} for layer in LAYERS]
    else:
        name = PACKAGED[name].architecture if name in PACKAGED else name
        _size_options(name, (0, 0))  # refuses an unknown name
        info = _feature_info(name, {})
    first, second = resolve_layers(name, layers, info)
    return int(info[first]["reduction"]), int(info[second]["reduction"])


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
    import timm

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
    import timm

    if not timm.is_model(name):
        base = name.split(".", 1)[0]
        names = timm.list_pretrained(f"{base}.*") if timm.is_model(base) else timm.list_models()
        raise SettingsError(
            f"timm {timm.__version__} knows no network {name!r}.{did_you_mean(name, names)} "
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
    import timm

    options = {**options, "features_only": True, "out_indices": indices}
    with torch.random.fork_rng(devices=[]):  # timm draws first weights even where a file's replace them
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed: that seeds every GPU too
        if weights in (RANDOM, GIVEN):
            return timm.create_model(name, pretrained=False, **options)
        path = pretrained_file(name) if weights == PRETRAINED else Path(weights)
        return _from_checkpoint(name, path, options)


def _from_checkpoint(name: str, path: Path, options: dict[str, Any]) -> Any:
    import timm

    checkpoint = read_checkpoint(path)
    whole = {key: value for key, value in options.items() if key not in ("features_only", "out_indices")}
    with torch.device("meta"):
        reference = timm.create_model(name, pretrained=False, **whole)
    tensors = in_timm_names(checkpoint, reference.state_dict())
    try:
        # First as the whole model, where timm demands every tensor; the cut network would accept any part of them.
        full = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": tensors}, **whole)
        complete = full.state_dict()
        with _without_unexpected_keys():
            return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": complete}, **options)
    except (RuntimeError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise WeightsError(
            f"The checkpoint {path} does not fit {name}: {_first_line(error)} "
            "Name the network that it was made from with `backbone`."
        ) from None


@contextmanager
def _without_unexpected_keys() -> Iterator[None]:
    """Keeps back timm's warning that the cut network has no place for the whole one's last tensors; all else is logged."""
    logger = logging.getLogger("timm.models._builder")

    def others(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Unexpected keys")

    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)


def without_idle_stages(network: Any, last: str) -> Any:
    """The same network without the stages behind the layer ``last``: what is kept has the same tensors.

    timm cuts most networks there, but its EfficientNets and MobileNets compute all their stages, whichever are asked for.
    """
    stage, found = last.removeprefix("blocks."), getattr(network, "blocks", None)
    # timm's own note of which stages are asked for, which only these two kinds of network have.
    if not hasattr(network, "_stage_out_idx") or not isinstance(found, nn.Sequential) or not stage.isdecimal():
        return network
    cut = copy.copy(network)
    cut._modules = {**network._modules, "blocks": found[: int(stage) + 1]}
    return cut


@torch.no_grad()
def fold_batch_norms(network: Any, input_size: tuple[int, int]) -> Any:
    """The same function with every batch norm inside the convolution before it: a tenth less time.

    Which convolution feeds which batch norm is seen by running the network once. Where a convolution's output goes elsewhere
    too, that does not show; then the folded network gives other numbers, and ``network`` is returned as it is.
    """
    if not any(type(module) is nn.BatchNorm2d for module in network.modules()):
        return network
    folded = copy.deepcopy(network)
    pixels = torch.randn(1, 3, *input_size, generator=torch.Generator().manual_seed(0))
    pairs, expected = _convolutions_before_norms(folded, pixels)
    for convolution, norm in pairs:
        folded.set_submodule(
            convolution, fuse_conv_bn_eval(folded.get_submodule(convolution), folded.get_submodule(norm))
        )
        folded.set_submodule(norm, nn.Identity())
    same = all(
        torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))
        for one, other in zip(folded(pixels), expected, strict=True)
    )
    return folded if same else network


def _convolutions_before_norms(network: Any, pixels: torch.Tensor) -> tuple[list[tuple[str, str]], list[torch.Tensor]]:
    """(convolution, batch norm) by name, each pair called once and one right behind the other, and the network's outputs."""
    calls: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}  # of each module: what went in and came out

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], None]:
        return lambda _, given, out: calls.setdefault(name, []).append((given[0], out))

    kinds = {name: type(module) for name, module in network.named_modules()}
    hooks = [
        module.register_forward_hook(note(name))
        for name, module in network.named_modules()
        if kinds[name] in (nn.Conv2d, nn.BatchNorm2d)
    ]
    try:
        outputs = list(network(pixels))
    finally:
        for hook in hooks:
            hook.remove()
    once = {name: call[0] for name, call in calls.items() if len(call) == 1}
    made_by = {id(out): name for name, (_, out) in once.items() if kinds[name] is nn.Conv2d}
    pairs = [
        (made_by[id(given)], name)
        for name, (given, _) in once.items()
        if kinds[name] is nn.BatchNorm2d and id(given) in made_by
    ]
    return pairs, outputs


def _load_given(network: Any, given: Mapping[str, torch.Tensor], name: str) -> Any:
    try:
        network.load_state_dict(dict(given), strict=True)
    except RuntimeError as error:
        raise WeightsError(
            f"The stored weights do not fit {name} of timm {version('timm')}: {_first_line(error)}"
        ) from None
    return network


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:240] if lines else "no reason given"
