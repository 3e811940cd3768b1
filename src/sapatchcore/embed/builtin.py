"""The backbone that comes with the package: a small network of timm's ResNet family, trained on made images only.

No download and no licence but the package's own. ``docs/builtin-backbone.md`` says how it was trained and what it can do.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import safetensors
import safetensors.torch

from sapatchcore.embed.weights import Weights
from sapatchcore.errors import SettingsError, WeightsError

BUILTIN = "builtin"
NETWORK = "resnet18"  # timm's name of it
LAYERS = ("layer1", "layer2", "layer3")  # the file ends there


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
