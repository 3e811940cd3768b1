"""The suite can fail: each mutant is a likely mistake in one function, and the tests' own checks must notice it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
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
from sapatchcore.embed import attention, patches, whitening
from sapatchcore.learning import calibrate
from sapatchcore.memory import coreset, growth
from sapatchcore.memory.bank import Bank, Distances
from sapatchcore.memory.search import brute_force, exact, products
from sapatchcore.score import anomaly_score, explain, metrics, regions, reweighted, threshold, verdict
from sapatchcore.score.calibration import concatenated

Patch = pytest.MonkeyPatch


def _randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Checks:
    """The checks as the tests call them, on inputs of their own."""

    def __init__(
        self, folder: Path, good: np.ndarray, images: Callable[..., np.ndarray], small: dict[str, Any]
    ) -> None:
        self._folder, self._good, self._images, self._small = folder, good, images, small

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

    def nearest_excluded(self) -> None:
        bank, groups = _randn(140, 6)[40:], torch.arange(100) % 3
        checks.check_nearest_excluded(_randn(40, 6), bank, 3, torch.arange(40) % 4, groups)

    def index_excluded(self) -> None:
        bank, groups = _randn(450, 64)[50:], torch.arange(400) % 3
        checks.check_index_excluded(_randn(50, 64), bank, torch.arange(50) % 4, groups)

    def left_out(self) -> None:
        detector = SAPatchCore(**self._small, coreset_ratio=0.1).fit(self._good, calibrate=self._good[:1])
        checks.check_left_out(checks.left_out(detector, self._good), self._good)

    def cross_fitted(self) -> None:
        checks.check_cross_fitted(SAPatchCore(**self._small, coreset_ratio=0.1).fit(self._good), self._good)

    def cross_fitted_whitened(self) -> None:
        options = {**self._small, "coreset_ratio": 0.9, "metric": "whitened"}
        checks.check_cross_fitted(SAPatchCore(**options).fit(self._good), self._good)

    def threshold(self) -> None:
        checks.check_threshold()

    def regions(self) -> None:
        for seed in range(3):
            values = np.random.default_rng(seed).integers(0, 9, (9, 9)).astype(np.float32)
            checks.check_regions(values, 6)

    def kinds(self) -> None:
        checks.check_kinds()

    def drawn_from(self) -> None:
        checks.check_drawn_from("self", 0.5, 2)

    def drawn_from_average(self) -> None:
        checks.check_drawn_from("none")

    def drawn_from_whitened(self) -> None:
        checks.check_drawn_from("self", 0.5, 2, whitened=True)

    def whitening(self) -> None:
        checks.check_whitening()

    def cell_box(self) -> None:
        checks.check_cell_box((6, 7), (150, 44), (64, 60), (48, 40))

    def growth(self) -> None:
        old, new = _randn(110, 5).split((30, 80))
        for dimensions in (None, 3):
            checks.check_growth(old, new.reshape(4, 20, 5) + 0.5, 0.6, dimensions)

    def forgetting(self) -> None:
        learned = _randn(4, 10, 5)
        learned[1:3] += 5  # far from the others, and all their rows are image 1's
        rows = torch.tensor([0, 5, 9, 10, 12, 14, 16, 18, 33, 38])
        bank = checks.plain_bank(learned.flatten(0, 1)[rows], rows // 10, 4, 10)
        far = checks.cdist(learned.flatten(0, 1).numpy(), bank.rows.numpy()).min(1).max()
        checks.check_forgetting(replace(bank, radius=float(far)), learned, 1)

    def auroc(self) -> None:
        checks.check_auroc()

    def pipeline(self) -> None:
        checks.check_pipeline(self._folder, self._good[:4], self._images(2, (64, 64), 5))

    def reweighted(self) -> None:
        checks.check_pipeline(self._folder, self._good[:4], self._images(2, (64, 64), 5), image_score="reweighted")


@pytest.fixture
def check(
    tmp_path: Path, good: np.ndarray, images: Callable[..., np.ndarray], small: dict[str, Any]
) -> Iterator[Checks]:
    anomaly_score.axis_operator.cache_clear()
    yield Checks(tmp_path, good, images, small)
    anomaly_score.axis_operator.cache_clear()


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
    right = brute_force._nearest
    patch.setattr(
        brute_force, "_nearest", lambda q, bank, mean, k, *excluded: right(q, bank, mean, k + 1, *excluded)[:, 1:]
    )


def squared_for_plain_distance(patch: Patch) -> None:
    right = brute_force._distances
    patch.setattr(brute_force, "_distances", lambda *given: right(*given).square())


def block_offset_forgotten(patch: Patch) -> None:
    patch.setattr(brute_force, "BLOCK", 30)
    right = brute_force._nearest
    patch.setattr(brute_force, "_nearest", lambda *given: right(*given) % 30)


def blocks_left_out_too_early(patch: Patch) -> None:
    right = exact.lower_bounds
    patch.setattr(exact, "lower_bounds", lambda flat, *box: right(flat, *box) + 2 * flat.square().sum(1))


def squared_patch_scores(patch: Patch) -> None:
    right = Bank.compare

    def wrong(self: Bank, given: patches.Patches, *excluded: Any) -> Distances:
        found = right(self, given, *excluded)
        return Distances(found.whole.square(), found.local.square(), found.context.square(), found.row)

    patch.setattr(Bank, "compare", wrong)


def local_and_context_swapped(patch: Patch) -> None:
    right = Bank.compare

    def wrong(self: Bank, given: patches.Patches, *excluded: Any) -> Distances:
        found = right(self, given, *excluded)
        return Distances(found.whole, found.context, found.local, found.row)

    patch.setattr(Bank, "compare", wrong)


def neighbourhood_of_the_patch_itself(patch: Patch) -> None:
    """TNVision's form: the k rows nearest to the patch instead of to its match."""

    def wrong(bank: Bank, patch: torch.Tensor, row: torch.Tensor, k: int, *_: Any) -> torch.Tensor:  # noqa: ARG001
        return brute_force.nearest(patch, bank.rows, k)[0]

    patch.setattr(reweighted, "distances_around", wrong)


def mean_for_largest(patch: Patch) -> None:
    right = anomaly_score.largest

    def wrong(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return scores.mean(1), right(scores)[1]

    patch.setattr(anomaly_score, "largest", wrong)


def weight_without_one_minus(patch: Patch) -> None:
    right = reweighted.neighbourhood_weight
    patch.setattr(reweighted, "neighbourhood_weight", lambda *given: 1 - right(*given))


def overflowing_weight(patch: Patch) -> None:
    patch.setattr(reweighted, "neighbourhood_weight", lambda d, all_d: 1 - d.exp() / all_d.square().exp().sum(1))


def blur_missing(patch: Patch) -> None:
    patch.setattr(anomaly_score, "SIGMA", 1e-3)


def blur_of_half_the_width(patch: Patch) -> None:
    patch.setattr(anomaly_score, "SIGMA", anomaly_score.SIGMA / 2)


def crop_in_the_corner(patch: Patch) -> None:
    patch.setattr(anomaly_score, "crop_box", lambda resize, crop: (0, 0, *(crop or resize)))


def map_turned(patch: Patch) -> None:
    right = anomaly_score.anomaly_map
    patch.setattr(anomaly_score, "anomaly_map", lambda scores, *given: right(scores[::-1].copy(), *given))


def own_rows_count(patch: Patch) -> None:
    """A training image is compared with the whole bank: its own patches make it look better than a new one would."""
    right = Bank.compare
    patch.setattr(Bank, "compare", lambda self, given, _=None: right(self, given))


def own_fold_in_its_bank(patch: Patch) -> None:
    """Every image is scored by a bank that was chosen with it at hand."""
    patch.setattr(calibrate, "rows_of", lambda images, patches: torch.arange(len(images) * patches))
    patch.setattr(calibrate, "Begun", lambda *_: None)


def folds_one_after_another(patch: Patch) -> None:
    """The scores stay in the order of the folds, not of the images."""
    patch.setattr(calibrate, "in_order", lambda found: functools.reduce(concatenated, found))


def next_image_left_out(patch: Patch) -> None:
    right = Bank.compare

    def wrong(self: Bank, given: patches.Patches, excluded: torch.Tensor | None = None) -> Distances:
        return right(self, given, None if excluded is None else excluded + 1)

    patch.setattr(Bank, "compare", wrong)


def excluded_rows_forgotten(patch: Patch) -> None:
    """The groups do not come along to the search."""
    right, compare = brute_force._nearest, exact.ExactIndex._compare
    patch.setattr(brute_force, "_nearest", lambda q, bank, mean, k, *_: right(q, bank, mean, k))

    def wrong(self: exact.ExactIndex, asked: Any, *given: Any) -> None:
        asked.excluded = None
        compare(self, asked, *given)

    patch.setattr(exact.ExactIndex, "_compare", wrong)
    whole = products.CellProducts.nearest
    patch.setattr(products.CellProducts, "nearest", lambda self, given, _=None: whole(self, given))


def excluded_groups_in_the_blocks_order(patch: Patch) -> None:
    """The index's blocks have an order of their own, the groups the bank's."""
    right = exact.ExactIndex._compare

    def wrong(self: exact.ExactIndex, asked: Any, leaf: int, chosen: torch.Tensor) -> None:
        groups, rows = self._groups, self._leaves[leaf]
        self._groups = groups.clone()
        self._groups[rows] = groups[: len(rows)]
        right(self, asked, leaf, chosen)
        self._groups = groups

    patch.setattr(exact.ExactIndex, "_compare", wrong)


def threshold_one_further_down(patch: Patch) -> None:
    """k + 1 for k."""
    right = threshold.threshold
    patch.setattr(threshold, "threshold", lambda good, rate: right(good, min(rate + 1 / (len(good) + 1), 0.999)))


def p_value_without_ties(patch: Patch) -> None:
    right = threshold.p_values
    patch.setattr(threshold, "p_values", lambda scores, good: right(np.nextafter(scores, np.inf), good))


def from_the_threshold_on(patch: Patch) -> None:
    """>= for >."""
    right = regions.find_regions
    below = np.float32(-np.inf)
    patch.setattr(regions, "find_regions", lambda values, limit: right(values, np.nextafter(np.float32(limit), below)))


def corners_apart(patch: Patch) -> None:
    right = regions._regions_of
    patch.setattr(regions, "_regions_of", lambda starts, ends, stride: right(starts, ends - 1, stride))


def smallest_region_first(patch: Patch) -> None:
    right = regions.find_regions
    patch.setattr(regions, "find_regions", lambda *given: right(*given)[::-1])


def parts_compared_as_they_are(patch: Patch) -> None:
    """x for its lead (x − q) / b."""
    patch.setattr(verdict.KindClassifier, "_lead", lambda self, name, value: value)  # noqa: ARG005


def a_kind_whatever_the_margin(patch: Patch) -> None:
    patch.setattr(verdict, "MARGIN", 0.0)


def global_score_left_out_of_the_kind(patch: Patch) -> None:
    right = verdict.KindClassifier.leads
    patch.setattr(verdict.KindClassifier, "leads", lambda self, parts: right(self, replace(parts, global_score=None)))


def context_without_the_reference(patch: Patch) -> None:
    """What makes up the context, instead of what makes up its deviation from the good patch's."""
    right = explain.drawn_from
    patch.setattr(
        explain, "drawn_from", lambda one, image, at, good, given: right(one, image, at, torch.zeros_like(good), given)
    )


def shares_of_the_attention_alone(patch: Patch) -> None:
    """The weights' part of context²: it adds up as well."""

    def wrong(one: patches.Patches, image: int, at: int, good: torch.Tensor, given: Any) -> Any:
        values = rearrange(one.mixed[image], "c h w -> c (h w)")
        cell = int(one.cell[at])
        weights = torch.softmax(values[:, cell, None] * values / given.temperature, dim=1)
        away = (one.context[image, cell] - good[3:]).square()
        return (away @ weights).reshape(tuple(one.mixed.shape[2:])).numpy()

    patch.setattr(explain, "drawn_from", wrong)


def temperature_left_out_of_the_shares(patch: Patch) -> None:
    right = explain.drawn_from
    patch.setattr(
        explain, "drawn_from", lambda *given: right(*given[:-1], given[-1].model_copy(update={"temperature": 1.0}))
    )


def whitening_left_out_of_the_shares(patch: Patch) -> None:
    right = explain.drawn_from
    patch.setattr(explain, "drawn_from", lambda one, *given: right(replace(one, whitening=None), *given))


def inverse_for_its_root(patch: Patch) -> None:
    right = whitening.whitening_matrix
    patch.setattr(whitening, "whitening_matrix", lambda covariance: right(covariance) @ right(covariance))


def not_whitened(patch: Patch) -> None:
    patch.setattr(whitening, "whitening_matrix", lambda covariance: torch.eye(len(covariance), dtype=torch.float64))


def whitened_without_shrinkage(patch: Patch) -> None:
    patch.setattr(whitening, "SHRINKAGE", 0.0)


def whitened_channel_by_channel(patch: Patch) -> None:
    right = whitening.whitening_matrix
    patch.setattr(whitening, "whitening_matrix", lambda covariance: right(torch.diag(torch.diag(covariance))))


def whitened_to_unit_variance(patch: Patch) -> None:
    right = whitening.whitening_matrix

    def wrong(covariance: torch.Tensor) -> torch.Tensor:
        matrix = right(covariance)
        return matrix / (matrix @ covariance @ matrix).trace().div(len(covariance)).sqrt()

    patch.setattr(whitening, "whitening_matrix", wrong)


def own_fold_in_its_whitening(patch: Patch) -> None:
    def wrong(by: whitening.Whitening, _: torch.device) -> whitening.Whitening:
        return whitening.Whitening(torch.eye(len(by.local)), torch.eye(len(by.context)))

    patch.setattr(calibrate, "ready", wrong)


def crop_left_out_of_the_cells(patch: Patch) -> None:
    patch.setattr(explain, "crop_box", lambda resize, _: (0, 0, *resize))


def squared_radius(patch: Patch) -> None:
    right = growth.Growth.__init__

    def wrong(self: growth.Growth, bank: Bank, projection: Any) -> None:
        right(self, replace(bank, radius=bank.radius**2), projection)

    patch.setattr(growth.Growth, "__init__", wrong)


def new_rows_not_compared_with(patch: Patch) -> None:
    """Every image is compared with the bank of before alone: what two new images show joins twice."""
    right = growth.Growth.add

    def wrong(self: growth.Growth, given: patches.Patches, training: Any) -> None:
        for one, image in zip(given.split(1), training, strict=True):
            self._projected = self._projected[:1]
            right(self, one, [image])

    patch.setattr(growth.Growth, "add", wrong)


def projection_left_out_of_growth(patch: Patch) -> None:
    """Distances in the patches themselves, where the bank was chosen in the projection."""
    right = growth.Growth.__init__

    def wrong(self: growth.Growth, bank: Bank, projection: Any) -> None:
        right(self, bank, type(projection)(2, 3, None, 0, bank.rows.device))

    patch.setattr(growth.Growth, "__init__", wrong)


def promise_not_loosened(patch: Patch) -> None:
    right = growth.without_image
    patch.setattr(growth, "without_image", lambda bank, *given: replace(right(bank, *given), loosened=bank.loosened))


def numbers_not_moved_up(patch: Patch) -> None:
    right = growth.without_image

    def wrong(bank: Bank, number: int, projection: Any) -> Bank:
        return replace(
            right(bank, number, projection), images=bank.images[bank.images != number] % (len(bank.training) - 1)
        )

    patch.setattr(growth, "without_image", wrong)


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
    (excluded_rows_forgotten, "nearest_excluded"),
    (k_off_by_one, "nearest_excluded"),
    (excluded_rows_forgotten, "index_excluded"),
    (excluded_groups_in_the_blocks_order, "index_excluded"),
    (blocks_left_out_too_early, "index_excluded"),
    (own_rows_count, "left_out"),
    (own_fold_in_its_bank, "cross_fitted"),
    (folds_one_after_another, "cross_fitted"),
    (next_image_left_out, "left_out"),
    (excluded_rows_forgotten, "left_out"),
    (threshold_one_further_down, "threshold"),
    (p_value_without_ties, "threshold"),
    (from_the_threshold_on, "regions"),
    (corners_apart, "regions"),
    (smallest_region_first, "regions"),
    (parts_compared_as_they_are, "kinds"),
    (a_kind_whatever_the_margin, "kinds"),
    (global_score_left_out_of_the_kind, "kinds"),
    (context_without_the_reference, "drawn_from"),
    (shares_of_the_attention_alone, "drawn_from"),
    (temperature_left_out_of_the_shares, "drawn_from"),
    (context_without_the_reference, "drawn_from_average"),
    (whitening_left_out_of_the_shares, "drawn_from_whitened"),
    (inverse_for_its_root, "whitening"),
    (not_whitened, "whitening"),
    (whitened_without_shrinkage, "whitening"),
    (whitened_channel_by_channel, "whitening"),
    (whitened_to_unit_variance, "whitening"),
    (own_fold_in_its_whitening, "cross_fitted_whitened"),
    (crop_left_out_of_the_cells, "cell_box"),
    (squared_radius, "growth"),
    (new_rows_not_compared_with, "growth"),
    (projection_left_out_of_growth, "growth"),
    (promise_not_loosened, "forgetting"),
    (numbers_not_moved_up, "forgetting"),
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
