"""Fit over many machines: each worker keeps its share of the images, and only candidates for the memory bank travel.

The coreset is the one that a single machine would choose (memory/distributed.py), and so is the model file. This file runs in
the command's process; it holds references, never results.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sapatchcore.data.images import all_images
from sapatchcore.data.packed import Texts
from sapatchcore.data.remote import is_address
from sapatchcore.data.sources import ImageSource, Progress, as_sources
from sapatchcore.datasets.folders import training_images, validation_images
from sapatchcore.errors import ModelFileError, SettingsError
from sapatchcore.learning.calibrate import folds_of
from sapatchcore.networks import refuse_several
from sapatchcore.scale.cluster import RESTARTS, Assignments, LazyActor, connected, wait_for
from sapatchcore.score.calibration import rows_needed
from sapatchcore.settings import Settings, settings_from

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

CANDIDATES = 8192  # of all shares together, in a round: more make fewer rounds, but a slower choice among them
FEWEST_CANDIDATES = 64  # of a share


def fit(
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: Mapping[str, Any],
    *,
    address: str,
    shares: int | None = None,
    layout: str = "auto",
    calibrate: str | os.PathLike[str] | None = None,
    include_weights: bool = True,
    include_thumbnails: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Learn from good images on a Ray cluster and write a model file. Returns how many images and patches it has, and the size,
    (h, w), to which it resizes images.

    Args:
        data: a folder as of SAPatchCore.fit that every machine sees under this name, or an address (s3://…, gs://…) of images.
        output: the model file, on this machine.
        options: of settings.py, as of SAPatchCore. The default batch size depends on the device: 8, on GPUs 64.
        address: of the cluster, or "local"; as of cluster.connected.
        shares: into how many shares the images are dealt, one worker each; None for as many as the cluster has room for.
        layout, calibrate: as of ``sapatchcore fit``. include_weights, include_thumbnails: as of SAPatchCore.save.
        progress: called as ``progress(stage, done, total)``; stages "embed", "coreset" and "calibrate".

    Raises what SAPatchCore.fit and save raise, and what cluster.connected raises.
    """
    settings = settings_from(options)
    refuse_several(settings.backbone, "fit with --ray")
    if settings.augment != "none":
        raise SettingsError(
            f"`augment` {settings.augment} is for few images, and fit with --ray for very many. Leave one of them out."
        )
    path = Path(output).resolve()
    if not path.parent.is_dir():
        raise ModelFileError(
            f"{path} cannot be written: its folder does not exist. Choose a folder that exists and is yours."
        )
    with connected(address) as cluster:
        import ray

        room = cluster.workers(shares)
        run_id, folder, here = secrets.token_hex(8), str(Path.cwd()), cluster.here()

        def actor(role: str, kind: type, *arguments: object) -> ActorHandle:
            return ray.remote(kind).options(name=f"{role}-{run_id}", **here).remote(*arguments)

        coordinator = actor("coordinator", LazyActor, folder, "scale.fit_coordinator", "FitCoordinator", dict(options))
        assignments = actor("assignments", Assignments)
        apart_from = None if calibrate is None else os.fspath(calibrate)
        listing = actor(
            "listing", LazyActor, folder, "scale.fit", "TrainingListing", os.fspath(data), layout, apart_from
        )
        total, apart = ray.get(listing.call.remote("counts"))
        workers = min(room, total)
        deal = listing.call.options(num_returns=workers + 1)
        train_names, *share_names = deal.remote("train", workers)
        apart_names, *share_apart = deal.remote("apart", workers)
        del listing  # ends its process once it has answered
        told = total, cluster.threads(workers), workers, [train_names]
        task, ready = coordinator.call.options(num_returns=2).remote("task", *told)
        each = [(task, *names) for names in zip(share_names, share_apart, strict=True)]
        ray.get([ready, assignments.assign.remote(each)])
        # A call may be answered out of order: a restarted share would else wait for calls that were answered before.
        restarts = {"max_restarts": RESTARTS, "max_task_retries": RESTARTS, "allow_out_of_order_execution": True}
        # A share finds its assignment by an actor's name: a handle as an argument would be an object that can be lost.
        share_actors = [
            ray.remote(LazyActor)
            .options(name=f"share-{run_id}-{number}", **restarts, **cluster.worker_options())
            .remote(folder, "scale.share", "ShareWorker", f"assignments-{run_id}", number)
            for number in range(workers)
        ]
        stages = _Stages(settings, coordinator, assignments, share_actors, [train_names, apart_names], total, progress)
        return stages.run(str(path), apart, (include_weights, include_thumbnails))


@dataclass
class _Stages:
    """The stages of a fit, each asked of all shares.

    names: references to the names of the images to learn from, and of those to calibrate with. total: images to learn from.
    """

    settings: Settings
    coordinator: ActorHandle
    assignments: ActorHandle
    shares: list[ActorHandle]
    names: list[ObjectRef]
    total: int
    progress: Progress | None

    def run(self, path: str, apart: int, include: tuple[bool, bool]) -> dict[str, Any]:
        """All stages; what FitCoordinator.write says of the model file.

        apart: images to calibrate with. include: the weights, the thumbnails.
        """
        import ray

        learned = self._call_all("learn")
        self._wait_for(learned, "embed", self.total)
        patches_per_image, grid = ray.get(learned[0])
        count = max(1, int(self.settings.coreset_ratio * self.total * patches_per_image + 1e-9))  # as SAPatchCore.fit
        rounds = self._choose(-1, count, self._first(count, patches_per_image))
        kept = self._call_all("kept", self.coordinator.call.remote("centres"))
        radii = self._call_all("radius", -1, rounds)
        bank = self.coordinator.call.remote("bank", grid, *kept)
        ray.get(radii)
        statistics = self._call_all("statistics") if self.settings.global_part != "none" else []
        if apart:
            if statistics:
                bank = self.coordinator.call.remote("with_statistics", bank, *statistics)
            calibrations = self._call_all("separate", bank)
            self._wait_for(calibrations, "calibrate", apart)
        else:
            calibrations = self._cross_fitted(count, grid)
        answers = [kept, radii, self._call_all("sizes"), statistics, calibrations]
        summary: dict[str, Any] = ray.get(
            self.coordinator.call.remote("write", path, include, bank, self.names, answers)
        )
        return summary

    def _cross_fitted(self, count: int, grid: tuple[int, int]) -> list[ObjectRef]:
        """References to each share's part of the calibration, fold by fold; none where there can be none."""
        found: list[ObjectRef] = []
        folds = folds_of(self.total)
        if folds < 2 or count < rows_needed(self.settings.image_score):
            return found
        for fold in range(folds):
            self._choose(fold, count, self.coordinator.call.options(num_returns=2).remote("outside", fold))
            kept = self._call_all("kept", self.coordinator.call.remote("centres"))
            bank = self.coordinator.call.remote("bank", grid, *kept)
            found += self._call_all("cross_fitted", fold, bank)
        self._wait_for(found, "calibrate", self.total)
        return found

    def _first(self, count: int, patches_per_image: int) -> list[ObjectRef]:
        """References to a first round, of one centre, and to how many are still to choose."""
        import ray

        share, row = ray.get(self.coordinator.call.remote("first", count, patches_per_image))
        point = self.shares[share].call.remote("point", row)
        return list(self.coordinator.call.options(num_returns=2).remote("begin", share, row, point))

    def _choose(self, fold: int, count: int, begun: list[ObjectRef]) -> list[ObjectRef]:
        """References to the rounds of centres, ``count`` in all. fold: whose images do not count, -1 for none. begun: references
        to the first round, and to how many are still to choose."""
        import ray

        # Waited for: a restarted share may take up later calls first, and one that waits for this would never get to ``point``.
        rounds, missing = begun[:1], ray.get(begun[1])
        shown = max(FEWEST_CANDIDATES, CANDIDATES // len(self.shares))
        while missing:
            candidates = self._call_all("candidates", fold, rounds, shown)
            centres, number = self.coordinator.call.options(num_returns=2).remote("choose_among", *candidates)
            rounds.append(centres)
            missing = ray.get(number)
            if self.progress is not None and fold < 0:
                self.progress("coreset", count - missing, count)
            elif self.progress is not None:
                done = ray.get(self.assignments.done.remote("calibrate"))
                self.progress("calibrate", min(done, self.total), self.total)
        return rounds

    def _call_all(self, method: str, *arguments: object) -> list[ObjectRef]:
        return [share.call.remote(method, *arguments) for share in self.shares]

    def _wait_for(self, references: list[ObjectRef], stage: str, total: int) -> None:
        wait_for(references, stage, total, self.assignments, self.progress)


class TrainingListing:
    """The images of a fit, dealt to the shares: image i goes to share i modulo their number.

    Of all that a fit does this alone grows with the number of images; its process ends once the names are dealt.
    """

    def __init__(self, data: str, layout: str, calibrate: str | None) -> None:
        """data, calibrate: a folder or an address. calibrate: None for what the layout keeps apart, if anything.

        Raises DataError where there is no image.
        """
        if is_address(data):
            self._train, self._apart = _texts(as_sources(data, all_images)[0]), []
        else:
            self._train = _texts(training_images(data, layout))
            self._apart = _texts(validation_images(data, layout)) if calibrate is None else []
        if calibrate is not None:
            self._apart = _texts(as_sources(calibrate, all_images)[0])

    def counts(self) -> tuple[int, int]:
        """How many images to learn from, and to calibrate with; the latter 0 for cross-fitting."""
        return len(self._train), len(self._apart)

    def train(self, shares: int) -> list[Texts]:
        """The names of the images to learn from: all, then those of each share."""
        return _dealt(self._train, shares)

    def apart(self, shares: int) -> list[Texts]:
        """The names of the images to calibrate with, likewise."""
        return _dealt(self._apart, shares)


def _dealt(names: list[str], shares: int) -> list[Texts]:
    return [Texts.of(names), *(Texts.of(names[share::shares]) for share in range(shares))]


def _texts(sources: Iterable[ImageSource]) -> list[str]:
    return [os.fspath(source) for source in sources]  # type: ignore[arg-type]  # a folder's images are paths
