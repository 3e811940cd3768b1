"""The suite can fail: each mutant is a likely mistake in one function, and the tests' own checks must notice it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from sapatchcore import SAPatchCore
from sapatchcore.embed import attention, patches
from sapatchcore.memory import coreset, neighbours
from sapatchcore.memory.bank import Bank, Distances
from sapatchcore.score import anomaly_map, image_score
from sapatchcore.verify import metrics

Patch = pytest.MonkeyPatch


def _randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Checks:
    """The checks as the tests call them, on inputs of their own."""

    def __init__(self, folder: Path, good: np.ndarray, images: Callable[..., np.ndarray]) -> None:
        self._folder, self._good, self._images = folder, good, images

    def attention(self) -> None:
        checks.check_attention(_randn(2, 3, 5, 5))

    def patches(self) -> None:
        checks.check_patches(_randn(2, 3, 8, 6).relu(), _randn(2, 5, 4, 3).relu(), "self")

    def patchcore(self) -> None:
        checks.check_patches(_randn(2, 3, 8, 6).relu(), _randn(2, 5, 4, 3).relu(), "none")

    def coreset(self) -> None:
        checks.check_coreset(_randn(300, 6), 40, seed=5)
        clusters = _randn(9, 6).repeat_interleave(200, dim=0) * 5
        checks.check_coreset(clusters + _randn(1800, 6), 300, seed=5)

    def nearest(self) -> None:
        checks.check_nearest(_randn(40, 6), _randn(140, 6)[40:], 3)

    def index(self) -> None:
        checks.check_index(_randn(50, 64), _randn(450, 64)[50:])

    def image_score(self) -> None:
        checks.check_image_score()

    def map(self) -> None:
        checks.check_map((6, 7), (50, 44), (64, 60), (48, 40))

    def auroc(self) -> None:
        checks.check_auroc()

    def pipeline(self) -> None:
        checks.check_pipeline(self._folder, self._good[:4], self._images(2, (64, 64), 5))

    def reweighted(self) -> None:
        checks.check_pipeline(self._folder, self._good[:4], self._images(2, (64, 64), 5), image_score="reweighted")


@pytest.fixture
def check(tmp_path: Path, good: np.ndarray, images: Callable[..., np.ndarray]) -> Iterator[Checks]:
    anomaly_map.axis_operator.cache_clear()
    yield Checks(tmp_path, good, images)
    anomaly_map.axis_operator.cache_clear()


# --- the mutants: each puts one wrong form in the place of the right one ----------------------------------------------------


def softmax_dropped(patch: Patch) -> None:
    patch.setattr(attention, "_attend", lambda q, k: (q[:, :, None] * k[:, None, :] @ k[:, :, None])[:, :, 0])


def attention_scaled(patch: Patch) -> None:
    right = attention._attend
    patch.setattr(attention, "_attend", lambda q, k: right(q / math.sqrt(k.shape[1]), k))


def attention_without_values(patch: Patch) -> None:
    patch.setattr(attention, "_attend", lambda q, _: q)


def channels_mixed(patch: Patch) -> None:
    def mixed(x: torch.Tensor) -> torch.Tensor:
        tokens = rearrange(x.float(), "n c h w -> n (h w) c")
        out = torch.softmax(tokens @ tokens.mT, dim=2) @ tokens
        return rearrange(out, "n (h w) c -> n c h w", h=x.shape[2]).contiguous()

    patch.setattr(attention, "self_attention", mixed)


def places_not_restored(patch: Patch) -> None:
    """The output stays sorted by value: positions are lost."""
    right = attention.self_attention

    def wrong(x: torch.Tensor) -> torch.Tensor:
        return right(x).flatten(2).sort(dim=2)[0].reshape(x.shape)

    patch.setattr(attention, "self_attention", wrong)


def average_for_max_pooling(patch: Patch) -> None:
    wrong = SimpleNamespace(**{**vars(F), "max_pool2d": F.avg_pool2d})
    patch.setattr(patches, "F", wrong)


def max_for_average_pooling(patch: Patch) -> None:
    patch.setattr(patches, "F", SimpleNamespace(**{**vars(F), "avg_pool2d": F.max_pool2d}))


def border_left_out_of_the_average(patch: Patch) -> None:
    def wrong(x: torch.Tensor, **options: Any) -> torch.Tensor:
        return F.avg_pool2d(x, **options, count_include_pad=False)

    patch.setattr(patches, "F", SimpleNamespace(**{**vars(F), "avg_pool2d": wrong}))


def attention_in_patchcore(patch: Patch) -> None:
    right = patches.to_patches
    patch.setattr(patches, "to_patches", lambda layer2, layer3, _: right(layer2, layer3, "self"))


def layers_swapped(patch: Patch) -> None:
    patch.setattr(patches.Patches, "rows", lambda self: torch.cat((self.context[:, self.cell], self.local), dim=2))


def axes_swapped_in_upsampling(patch: Patch) -> None:
    right = patches.covering_cell
    patch.setattr(patches, "covering_cell", lambda fine, coarse: right(fine[::-1], coarse[::-1]))


def first_centre_lost(patch: Patch) -> None:
    right = coreset.greedy_coreset
    patch.setattr(coreset, "greedy_coreset", lambda x, count, *, seed: right(x, count + 1, seed=seed)[1:])


def coreset_at_random(patch: Patch) -> None:
    def wrong(x: torch.Tensor, count: int, *, seed: int) -> torch.Tensor:
        rng = np.random.default_rng(seed)
        first = int(rng.integers(len(x)))
        rest = rng.permutation(np.delete(np.arange(len(x)), first))[: count - 1]
        return torch.from_numpy(np.concatenate(([first], rest)))

    patch.setattr(coreset, "greedy_coreset", wrong)


def far_centres_skipped_too_early(patch: Patch) -> None:
    patch.setattr(coreset, "_SLACK", 0.05)


def k_off_by_one(patch: Patch) -> None:
    right = neighbours._nearest
    patch.setattr(neighbours, "_nearest", lambda q, bank, mean, k: right(q, bank, mean, k + 1)[:, 1:])


def squared_for_plain_distance(patch: Patch) -> None:
    right = neighbours._distances
    patch.setattr(neighbours, "_distances", lambda *given: right(*given).square())


def block_offset_forgotten(patch: Patch) -> None:
    patch.setattr(neighbours, "BLOCK", 30)
    right = neighbours._nearest
    patch.setattr(neighbours, "_nearest", lambda *given: right(*given) % 30)


def blocks_left_out_too_early(patch: Patch) -> None:
    right = neighbours.NearestIndex._bounds
    patch.setattr(neighbours.NearestIndex, "_bounds", lambda self, flat, norms: right(self, flat, norms) + 2 * norms)


def squared_patch_scores(patch: Patch) -> None:
    right = Bank.compare

    def wrong(self: Bank, given: patches.Patches) -> Distances:
        found = right(self, given)
        return Distances(found.whole.square(), found.local.square(), found.context.square(), found.row)

    patch.setattr(Bank, "compare", wrong)


def local_and_context_swapped(patch: Patch) -> None:
    right = Bank.compare

    def wrong(self: Bank, given: patches.Patches) -> Distances:
        found = right(self, given)
        return Distances(found.whole, found.context, found.local, found.row)

    patch.setattr(Bank, "compare", wrong)


def neighbourhood_of_the_patch_itself(patch: Patch) -> None:
    """TNVision's form: the k rows nearest to the patch instead of to its match."""

    def wrong(self: Bank, patch: torch.Tensor, row: torch.Tensor, k: int) -> torch.Tensor:  # noqa: ARG001
        return neighbours.nearest(patch, self.rows, k)[0]

    patch.setattr(Bank, "around", wrong)


def mean_for_largest(patch: Patch) -> None:
    right = image_score.largest

    def wrong(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return scores.mean(1), right(scores)[1]

    patch.setattr(image_score, "largest", wrong)


def weight_without_one_minus(patch: Patch) -> None:
    right = image_score.neighbourhood_weight
    patch.setattr(image_score, "neighbourhood_weight", lambda *given: 1 - right(*given))


def overflowing_weight(patch: Patch) -> None:
    patch.setattr(image_score, "neighbourhood_weight", lambda d, all_d: 1 - d.exp() / all_d.square().exp().sum(1))


def blur_missing(patch: Patch) -> None:
    def one(size: int, _: float) -> torch.Tensor:
        kernel = torch.zeros(1, size)
        kernel[0, size // 2] = 1
        return kernel

    _put_kernel(patch, one)


def blur_of_half_the_width(patch: Patch) -> None:
    right = anomaly_map.kornia.filters.get_gaussian_kernel1d
    _put_kernel(patch, lambda size, sigma: right(size, sigma / 2))


def _put_kernel(patch: Patch, kernel: Callable[[int, float], torch.Tensor]) -> None:
    patch.setattr(anomaly_map, "kornia", SimpleNamespace(filters=SimpleNamespace(get_gaussian_kernel1d=kernel)))


def crop_in_the_corner(patch: Patch) -> None:
    patch.setattr(anomaly_map, "crop_box", lambda resize, crop: (0, 0, *(crop or resize)))


def map_turned(patch: Patch) -> None:
    right = anomaly_map.anomaly_map
    patch.setattr(anomaly_map, "anomaly_map", lambda scores, *given: right(scores[::-1].copy(), *given))


def auroc_upside_down(patch: Patch) -> None:
    right = metrics.RankCounts.auroc
    patch.setattr(metrics.RankCounts, "auroc", lambda self: 1 - right(self))


def ties_won(patch: Patch) -> None:
    patch.setattr(
        metrics.RankCounts,
        "auroc",
        lambda self: int(self.counts @ self._upto) / (self.positives * self.negatives),
    )


def ties_lost(patch: Patch) -> None:
    patch.setattr(
        metrics.RankCounts,
        "auroc",
        lambda self: int(self.counts @ self._below) / (self.positives * self.negatives),
    )


def fit_forgets_the_last_batch(patch: Patch) -> None:
    right = SAPatchCore.fit
    patch.setattr(SAPatchCore, "fit", lambda self, images, progress=None: right(self, images[:-1], progress))


def blue_before_red(patch: Patch) -> None:
    right = SAPatchCore.predict
    patch.setattr(SAPatchCore, "predict", lambda self, images: right(self, images[..., ::-1].copy()))


MUTANTS: list[tuple[Callable[[Patch], None], str]] = [
    (softmax_dropped, "attention"),
    (attention_scaled, "attention"),
    (attention_without_values, "attention"),
    (channels_mixed, "attention"),
    (places_not_restored, "attention"),
    (softmax_dropped, "patches"),
    (average_for_max_pooling, "patches"),
    (max_for_average_pooling, "patches"),
    (max_for_average_pooling, "patchcore"),
    (border_left_out_of_the_average, "patches"),
    (attention_in_patchcore, "patchcore"),
    (layers_swapped, "patches"),
    (axes_swapped_in_upsampling, "patches"),
    (first_centre_lost, "coreset"),
    (coreset_at_random, "coreset"),
    (far_centres_skipped_too_early, "coreset"),
    (k_off_by_one, "nearest"),
    (squared_for_plain_distance, "nearest"),
    (block_offset_forgotten, "nearest"),
    (blocks_left_out_too_early, "index"),
    (mean_for_largest, "image_score"),
    (weight_without_one_minus, "image_score"),
    (overflowing_weight, "image_score"),
    (blur_missing, "map"),
    (blur_of_half_the_width, "map"),
    (crop_in_the_corner, "map"),
    (map_turned, "map"),
    (auroc_upside_down, "auroc"),
    (ties_won, "auroc"),
    (ties_lost, "auroc"),
    (softmax_dropped, "pipeline"),
    (average_for_max_pooling, "pipeline"),
    (squared_patch_scores, "pipeline"),
    (local_and_context_swapped, "pipeline"),
    (fit_forgets_the_last_batch, "pipeline"),
    (blur_missing, "pipeline"),
    (blue_before_red, "pipeline"),
    (neighbourhood_of_the_patch_itself, "reweighted"),
]


@pytest.mark.parametrize("name", [name for name in vars(Checks) if not name.startswith("_")])
def test_the_code_as_it_is_passes(name: str, check: Checks) -> None:
    getattr(check, name)()


@pytest.mark.parametrize(
    ("mutant", "killed_by"), MUTANTS, ids=[f"{mutant.__name__}-{name}" for mutant, name in MUTANTS]
)
def test_mutant_is_killed(mutant: Callable[[Patch], None], killed_by: str, check: Checks, monkeypatch: Patch) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        getattr(check, killed_by)()


def test_every_mutant_is_in_the_list() -> None:
    here = {
        name
        for name, value in globals().items()
        if callable(value) and getattr(value, "__module__", None) == __name__ and not name.startswith(("test_", "_"))
    }
    assert here - {"Checks", "check"} == {mutant.__name__ for mutant, _ in MUTANTS}
