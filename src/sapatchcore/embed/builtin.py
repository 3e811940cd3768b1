"""The backbone that comes with the package: a small network of timm's ResNet family, trained on made images only.

No download and no licence but the package's own. ``docs/builtin-backbone.md`` says how it was trained and what it can do.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from sapatchcore.embed.weights import Weights
from sapatchcore.errors import SettingsError, WeightsError

BUILTIN = "builtin"
TIMM_NAME = "resnet18"  # timm's name of it
LAYERS = ("layer1", "layer2", "layer3")  # the file ends there
_CHANNELS, _STRIDES = {"layer1": 64, "layer2": 128, "layer3": 256}, {"layer1": 4, "layer2": 8, "layer3": 16}


class BuiltinNetwork(nn.Module):
    """The built-in network as plain PyTorch: timm's resnet18 up to a layer, with its names of tensors.

    The same numbers as timm's; to import timm takes three times as long as to import PyTorch.
    """

    def __init__(self, layers: tuple[str, str]) -> None:
        """layers: the two whose outputs are returned, of layer1 to layer3, the finer first."""
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self._layers = layers
        for name in LAYERS[: LAYERS.index(layers[1]) + 1]:
            width, inside = _CHANNELS[name], 64 if name == "layer1" else _CHANNELS[name] // 2
            self.add_module(name, nn.Sequential(_Block(inside, width), _Block(width, width)))
        self.feature_info = _BuiltinInfo([_CHANNELS[name] for name in layers], [_STRIDES[name] for name in layers])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(n, 3, h, w) → the outputs of the two layers."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), kernel_size=3, stride=2, padding=1)
        found = []
        for name, layer in self.named_children():
            if name.startswith("layer"):
                x = layer(x)
                found += [x] if name in self._layers else []
        return found


class _Block(nn.Module):
    """ResNet's basic block (He et al. 2016)."""

    def __init__(self, inside: int, width: int) -> None:
        super().__init__()
        stride = 1 if inside == width else 2
        self.conv1, self.bn1 = nn.Conv2d(inside, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inside, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            if stride == 2
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(x + shortcut)


class _BuiltinInfo:
    """What timm's ``feature_info`` says of the two layers."""

    def __init__(self, channels: list[int], strides: list[int]) -> None:
        self._channels, self._strides = channels, strides

    def channels(self) -> list[int]:
        return self._channels

    def reduction(self) -> list[int]:
        return self._strides


def builtin_weights(layers: tuple[str, str]) -> Weights:
    """The network's tensors up to the second of the two layers, in float32.

    They are kept in float16, so these are the same numbers on every machine. Raises WeightsError where the package's file
    is missing or damaged.
    """
    beyond = tuple(f"{layer}." for layer in LAYERS[LAYERS.index(layers[1]) + 1 :])
    with as_file(files("sapatchcore.embed") / "builtin.safetensors") as path:
        try:
            tensors = safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise WeightsError(
                f"The package's own network {path} cannot be read: {error}. Install the package again."
            ) from None
    kept = {name: value for name, value in tensors.items() if not name.startswith(beyond)}
    return {name: value.float() if value.is_floating_point() else value for name, value in kept.items()}


def check_builtin(weights: str | None, layers: tuple[str, str]) -> None:
    """Raises SettingsError for what the built-in network has not: a checkpoint, or a layer beyond the third.

    weights: None where a model file has them.
    """
    if weights not in ("pretrained", "random", None):
        raise SettingsError(
            f"weights must be 'pretrained' or 'random' for backbone builtin. Got {weights!r}. "
            "Name the network that the checkpoint is of with `backbone`."
        )
    if missing := [layer for layer in layers if layer not in LAYERS]:
        raise SettingsError(f"builtin has no layer {missing[0]!r}. Allowed: {', '.join(LAYERS)}.")
