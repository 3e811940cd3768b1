"""Second implementations, slow and plain, written from the papers alone: what the fast ones are compared with.

Letters: n images or points, c channels, h and w cells, p patches an image, d numbers a patch, m rows of the bank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import kornia
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy.spatial.distance import cdist
from torchvision.transforms.v2 import functional as transforms

Float64 = npt.NDArray[np.float64]


def attention_by_loops(x: Float64) -> Float64:
    """(n, c, h, w) float64: out[i] = Σ_j softmax_j(x[i]·x[j])·x[j] of every channel, number by number."""
    n, c, h, w = x.shape
    out = np.empty((n, c, h * w))
    for image in range(n):
        for channel in range(c):
            values = [float(value) for value in x[image, channel].ravel()]
            for i, query in enumerate(values):
                products = [query * key for key in values]
                largest = max(products)
                weights = [math.exp(product - largest) for product in products]
                out[image, channel, i] = sum(a * b for a, b in zip(weights, values, strict=True)) / sum(weights)
    return out.reshape(x.shape)


def attention_by_matrix(x: torch.Tensor) -> torch.Tensor:
    """(n, c, h, w) → the same in x's dtype, with the N×N matrix that the authors store."""
    flat = x.flatten(2)  # (n, c, N)
    weights = torch.softmax(flat[:, :, :, None] * flat[:, :, None, :], dim=-1)  # (n, c, N, N)
    return (weights @ flat[..., None])[..., 0].reshape(x.shape)


def k_center(x: Float64, count: int, begun: Sequence[int]) -> list[int]:
    """Greedy k-center: after those ``begun`` with, always the point farthest from all chosen ones; O(count · n)."""
    chosen = list(begun)
    while len(chosen) < count:
        distances = cdist(x, x[chosen]).min(axis=1)
        distances[chosen] = -1
        chosen.append(int(distances.argmax()))
    return chosen


def radius(x: Float64, chosen: list[int]) -> float:
    """The largest distance from a point to the nearest chosen one."""
    return float(cdist(x, x[chosen]).min(axis=1).max())


def all_distances(queries: Float64, bank: Float64) -> Float64:
    """(q, m): every difference in float64, squared, summed, rooted."""
    return np.sqrt(((queries[:, None] - bank[None]) ** 2).sum(axis=2))


def projection_matrix(width: int, dimensions: int, seed: int) -> Float64:
    """(d, dimensions): the seeded Gaussian matrix, every entry's variance 1/dimensions."""
    gauss = np.random.default_rng(seed).standard_normal((width, dimensions), dtype=np.float32)
    return gauss.astype(np.float64) / math.sqrt(dimensions)


def prepared(image: npt.NDArray[np.uint8], resize: tuple[int, int], crop: tuple[int, int] | None) -> torch.Tensor:
    """(1, 3, h, w) float32: Lanczos, centre crop, [0, 1], ImageNet's mean and deviation."""
    across = Image.fromarray(image).resize((resize[1], image.shape[0]), Image.Resampling.LANCZOS)  # rows first
    picture = across.resize((resize[1], resize[0]), Image.Resampling.LANCZOS)
    tensor = transforms.pil_to_tensor(picture)
    if crop is not None:
        tensor = transforms.center_crop(tensor, list(crop))
    scaled = tensor.float() / 255
    return transforms.normalize(scaled, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])[None]


def embedded(layer2: torch.Tensor, layer3: torch.Tensor, attention: str) -> Float64:
    """Two (1, c, h, w) maps → (p, c2 + c3): pooled, mixed, upsampled by nearest and concatenated."""
    local = torch.nn.AvgPool2d(3, stride=1, padding=1)(layer2.double())
    if attention == "self":
        context = attention_by_matrix(torch.nn.MaxPool2d(3, stride=1, padding=1)(layer3.double()))
    else:
        context = torch.nn.AvgPool2d(3, stride=1, padding=1)(layer3.double())
    context = torch.nn.Upsample(size=local.shape[2:], mode="nearest")(context)
    return torch.cat([local, context], dim=1)[0].flatten(1).T.numpy()


def anomaly_map(
    scores: Float64, size: tuple[int, int], resize: tuple[int, int], crop: tuple[int, int] | None
) -> Float64:
    """(h, w) patch scores → (H, W): bilinear to what the network saw, blurred, placed into the resized image, and
    bilinear to the image's own size; the crop's border is not mixed with what lies outside it."""
    seen = crop or resize
    enlarged = torch.nn.functional.interpolate(torch.tensor(scores)[None, None].double(), size=seen, mode="bilinear")
    blurred = kornia.filters.gaussian_blur2d(enlarged, (33, 33), (4.0, 4.0), border_type="reflect")[0, 0].numpy()
    top, left = (round((resize[axis] - seen[axis]) / 2) for axis in (0, 1))
    out = np.zeros(size)
    for i in range(size[0]):
        y = (i + 0.5) * resize[0] / size[0] - 0.5 - top
        if not -0.5 <= y < seen[0] - 0.5:
            continue
        for j in range(size[1]):
            x = (j + 0.5) * resize[1] / size[1] - 0.5 - left
            if -0.5 <= x < seen[1] - 0.5:
                out[i, j] = _between(blurred, y, x)
    return out


def _between(values: Float64, y: float, x: float) -> float:
    """The bilinear value at a place given in cells' centres, the border's value beyond the border's centres."""
    y, x = min(max(y, 0), values.shape[0] - 1), min(max(x, 0), values.shape[1] - 1)
    top, left = int(y), int(x)
    below, right = min(top + 1, values.shape[0] - 1), min(left + 1, values.shape[1] - 1)
    upper = values[top, left] * (1 - (x - left)) + values[top, right] * (x - left)
    lower = values[below, left] * (1 - (x - left)) + values[below, right] * (x - left)
    return float(upper * (1 - (y - top)) + lower * (y - top))


def auroc_by_pairs(labels: list[int], scores: list[float]) -> float:
    """The share of (defect, good) pairs in which the defect scores higher; a tie counts one half."""
    won = pairs = 0.0
    for one, its in zip(labels, scores, strict=True):
        for other, theirs in zip(labels, scores, strict=True):
            if one == 1 and other == 0:
                pairs += 1
                won += 1.0 if its > theirs else 0.5 if its == theirs else 0.0
    return won / pairs


@dataclass
class Pipeline:
    """SA-PatchCore from the paper's nine steps, one image at a time, in float64 after the network.

    network: (1, 3, h, w) float32 → layer 2 and layer 3.
    """

    network: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    resize: tuple[int, int]
    crop: tuple[int, int] | None
    attention: str
    coreset_ratio: float
    projection: int | None
    seed: int

    def embed(self, image: npt.NDArray[np.uint8]) -> tuple[Float64, tuple[int, int], int]:
        """(p, d), the grid, and how many of the d numbers are layer 2's."""
        with torch.no_grad():
            layer2, layer3 = self.network(prepared(image, self.resize, self.crop))
        rows = embedded(layer2, layer3, self.attention)
        return rows, (layer2.shape[2], layer2.shape[3]), layer2.shape[1]

    def fit(self, images: npt.NDArray[np.uint8]) -> Float64:
        """The memory bank, (m, d)."""
        rows = np.concatenate([self.embed(image)[0] for image in images])
        x = rows
        if self.projection is not None:
            x = rows @ projection_matrix(rows.shape[1], self.projection, self.seed)
        first = int(np.random.default_rng(self.seed).integers(len(x)))
        return rows[k_center(x, max(1, int(self.coreset_ratio * len(x))), [first])]

    def predict(self, images: npt.NDArray[np.uint8], bank: Float64, neighbors: int | None) -> list[Scored]:
        """Score images; ``neighbors`` None is the authors' image score, else Roth et al.'s weight."""
        found = []
        for image in images:
            rows, grid, width = self.embed(image)
            distances = cdist(rows, bank)
            nearest = distances.argmin(axis=1)
            patch_scores = distances[np.arange(len(rows)), nearest]
            at = int(patch_scores.argmax())
            weight = 1.0
            if neighbors is not None:
                around = cdist(bank[nearest[at]][None], bank)[0].argsort(kind="stable")[:neighbors]
                total = sum(math.exp(distances[at, b] - patch_scores[at]) for b in around)
                weight = 1 - 1 / total
            difference = rows[at] - bank[nearest[at]]
            found.append(
                Scored(
                    score=patch_scores[at] * weight,
                    local=float(np.linalg.norm(difference[:width])) * weight,
                    context=float(np.linalg.norm(difference[width:])) * weight,
                    patch_scores=patch_scores.reshape(grid),
                    map=anomaly_map(patch_scores.reshape(grid), image.shape[:2], self.resize, self.crop),
                )
            )
        return found


@dataclass
class Scored:
    """One image: its score, the score's two parts, (h, w) patch scores, (H, W) map."""

    score: float
    local: float
    context: float
    patch_scores: Float64
    map: Float64
