"""The frozen network whose two layers describe an image (paper step 2): any timm model that gives feature maps.

Source of the pixels' scale: SA-PatchCore, section IV (implementation): values in [0, 1], normalised with the mean and deviation
of ImageNet. We differ: images stay uint8 until they are on the device, a quarter of the bytes; the arithmetic is the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from einops import rearrange

from sapatchcore.embed.network import build_network, fold_batch_norms, without_idle_stages
from sapatchcore.embed.weights import Weights
from sapatchcore.errors import DataError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Backbone:
    """A network in eval mode, cut after the second of the two layers; its weights never change.

    Attributes: ``layers``, timm's names of the two layers; ``channels`` and ``strides`` of each; ``weights``, the
    tensors up to the second layer by name; ``device``.
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
            name: any timm model name, "builtin", or one of ``weights.PACKAGED``.
            weights: "pretrained", "random", or a checkpoint's path; not looked at where ``given`` has the tensors.
            layers: two names of timm's ``feature_info``; see ``network.resolve_layers``.
            input_size: (h, w) of the images that will come; transformers are built for it.
            precision: "float32", "bfloat16" or "float16".
            seed: of random weights.
            given: tensors as ``weights`` of another Backbone of the same name and layers has them (a model file's).

        Raises:
            SettingsError: an unknown model or layer. WeightsError: the weights cannot be had, or do not fit.
        """
        network, self.layers = build_network(
            name, weights=weights, layers=layers, input_size=input_size, seed=seed, given=given
        )
        self.weights: Weights = dict(network.state_dict())
        channels, strides = network.feature_info.channels(), network.feature_info.reduction()
        self.channels = (int(channels[0]), int(channels[1]))
        self.strides = (int(strides[0]), int(strides[1]))
        config = getattr(network, "pretrained_cfg", None) or {}
        self._mean, self._std = config.get("mean", IMAGENET_MEAN), config.get("std", IMAGENET_STD)
        self._dtype, self.device = _DTYPES[precision], device
        self._channels_last = str(getattr(network, "output_fmt", "NCHW")).upper().endswith("NHWC")
        folded = fold_batch_norms(without_idle_stages(network, self.layers[1]), input_size)
        self._network = folded.to(device=device, dtype=self._dtype, memory_format=torch.channels_last)

    @torch.inference_mode()
    def features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, h, w, 3) uint8 → the two layers' (n, c, h', w') in the network's precision, on its device."""
        batch = normalise(images.to(self.device), self._mean, self._std)
        first, second = self._network(batch.to(dtype=self._dtype, memory_format=torch.channels_last))
        if self._channels_last:  # Swin and its kin
            return rearrange(first, "n h w c -> n c h w"), rearrange(second, "n h w c -> n c h w")
        return first, second


def normalise(
    batch: torch.Tensor,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> torch.Tensor:
    """(n, h, w, 3) uint8 on any device → (n, 3, h, w) float32 there: scaled to [0, 1], minus mean, over std.

    mean, std: of the backbone's own training where it is not ImageNet's. Raises DataError for another shape or dtype.
    """
    if batch.ndim != 4 or batch.shape[3] != 3 or batch.dtype != torch.uint8:
        raise DataError(f"normalise needs (n, h, w, 3) uint8. Got shape {tuple(batch.shape)}, {batch.dtype}.")
    planes = rearrange(batch, "n h w c -> n c h w")
    scaled = planes.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    offset = torch.tensor(mean, dtype=torch.float32, device=batch.device).view(1, 3, 1, 1)
    deviation = torch.tensor(std, dtype=torch.float32, device=batch.device).view(1, 3, 1, 1)
    return scaled.sub_(offset).div_(deviation)
