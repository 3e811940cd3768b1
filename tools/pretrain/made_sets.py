"""Made validation sets: surfaces and defects that no training run has drawn, under a steady camera.

Each set is one surface of one family, 256×256: good images are turned and shifted pieces of it, photographed with small
changes of light; of the test images one half has a defect. The generator of defects is the training's, with another
seed: these sets tell recipes apart, they are no proof for real parts.
"""

from __future__ import annotations

import fields
import numpy as np
import numpy.typing as npt
import scenes
import textures
import torch

TRAIN, TEST = 40, 60
HELD_OUT = 7_777_777  # seed of the surfaces; training runs use small ones

Images = npt.NDArray[np.uint8]


def made_sets() -> dict[str, tuple[Images, Images, npt.NDArray[np.int64]]]:
    """By name: (40, 256, 256, 3) good images, (60, 256, 256, 3) test images, their labels (60,), 1 where defective."""
    return {f"made-{family}": one_set(number, family) for number, family in enumerate(fields.FAMILIES)}


def one_set(
    number: int, family: str, train: int = TRAIN, test: int = TEST
) -> tuple[Images, Images, npt.NDArray[np.int64]]:
    pool = torch.from_numpy(textures.tile(number, HELD_OUT, (family,)))[None]
    foreign = torch.from_numpy(np.stack([textures.tile(100 + i, HELD_OUT, tuple(fields.FAMILIES)) for i in range(16)]))
    random = torch.Generator()
    random.manual_seed(HELD_OUT + number)
    count, bad = train + test, test // 2
    ground = scenes.draw(pool, count, 256, random, leaves=0, defective=0.0)
    tries = scenes.with_defects(ground, foreign, random, 1.0)
    visible = (tries.defects > 0).flatten(1).sum(1)
    order = visible.argsort(descending=True)[:bad]  # some defects fall where they cannot be seen
    others = torch.tensor([i for i in range(count) if i not in set(order.tolist())])
    images = torch.cat((ground.images[others], tries.images[order]))
    light = 1 + 0.05 * torch.randn((count, 1, 1, 1), generator=random)
    images = images * light + 0.012 * torch.randn(images.shape, generator=random)
    pixels = (images.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).numpy()
    return pixels[:train], pixels[train:], np.repeat((0, 1), (test - bad, bad)).astype(np.int64)
