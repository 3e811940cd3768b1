"""Fit over many machines: each worker keeps its share of the images, and only candidates for the memory bank travel.

The coreset is the one that a single machine would choose (memory/distributed.py), and so is the model file.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sapatchcore.errors import ModelFileError
from sapatchcore.scale.engine import RESTARTS, connected
from sapatchcore.scale.host import Desk, Host, Progress, wait
from sapatchcore.settings import Settings, settings_from

CANDIDATES = 8192  # of all shares together, in a round: more make fewer rounds, and each choice among them slower
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
    """Learn from good images on a Ray cluster and write a model file; how many images and patches it has.

    Args:
        data: a folder as of SAPatchCore.fit that every machine sees under this name, or an address (s3://…, gs://…) of images.
        output: the model file, on this machine.
        options: of settings.py, as of SAPatchCore. A batch size that is not among them is the device's: 8, on GPUs 64.
        address: of the cluster, or "local"; as of engine.connected.
        shares: in how many shares the images are learned, a worker each; None for as many as the cluster has room for.
        layout, calibrate: as of ``sapatchcore fit``. include_weights, include_thumbnails: as of SAPatchCore.save.
        progress: called as ``progress(stage, done, total)``; stages "embed", "coreset" and "calibrate".

    Raises what SAPatchCore.fit and save raise, and what engine.connected raises.
    """
    settings_from(options)
    path = Path(output).resolve()
    if not path.parent.is_dir():
        raise ModelFileError(
            f"{path} cannot be written: its folder does not exist. Choose a folder that exists and is yours."
        )
    with connected(address) as cluster:
        import ray

        room = cluster.workers(shares)
        where = None if calibrate is None else os.fspath(calibrate)
        token, folder, here = secrets.token_hex(8), str(Path.cwd()), cluster.here()

        def one(role: str, kind: type) -> Any:
            return ray.remote(kind).options(name=f"{role}-{token}", **here)

        steward = one("steward", Host).remote(folder, "scale.steward", "Steward", dict(options))
        desk = one("desk", Desk).remote()
        listing = one("listing", Host).remote(folder, "scale.listing", "Listing", os.fspath(data), layout, where)
        total, apart = ray.get(listing.call.remote("counts"))
        workers = min(room, total)
        task, begun = steward.call.options(num_returns=2).remote("begin", total, cluster.threads(workers), workers)
        dealt = listing.call.options(num_returns=workers + 1)
        train, kept_apart = dealt.remote("train", workers), dealt.remote("apart", workers)
        del listing  # ends its process, once it has answered
        ray.get([begun, desk.order.remote([(task, *names) for names in zip(train[1:], kept_apart[1:], strict=True)])])
        again = {"max_restarts": RESTARTS, "max_task_retries": RESTARTS, **cluster.worker_options()}
        # Else one made again would wait for calls that the lost one had answered.
        again["allow_out_of_order_execution"] = True
        run = _Run(
            settings_from(options),
            steward,
            desk,
            # They find the desk by its name: a handle as their argument would be an object that can be lost, they with it.
            [
                ray.remote(Host)
                .options(name=f"share-{token}-{number}", **again)
                .remote(folder, "scale.share", "Share", f"desk-{token}", number)
                for number in range(workers)
            ],
            [train[0], kept_apart[0]],
            progress,
        )
        return run.through(str(path), total, apart, (include_weights, include_thumbnails))


@dataclass
class _Run:
    """The stages, each asked of all shares. What they answer stays where it is: here are only references to it."""

    settings: Settings
    steward: Any
    desk: Any
    shares: list[Any]
    names: list[Any]
    progress: Progress | None

    def through(self, path: str, total: int, apart: int, inside: tuple[bool, bool]) -> dict[str, Any]:
        """All stages; what there is to say of the model file that was written."""
        import ray

        learned = ray.get(self._waited("embed", total, self._all("learn")))
        per_image, grid = learned[0][1:]
        count = max(1, int(self.settings.coreset_ratio * total * per_image + 1e-9))  # as SAPatchCore.fit
        rounds = self._choose(count, per_image)
        centres = self.steward.call.remote("centres")
        kept, radii = self._all("kept", centres), self._all("radius", rounds)
        made = self.steward.call.remote("bank", grid, *kept)
        known = self._all("calibration" if apart else "leave_one_out", made)
        self._waited("calibrate", apart or total, known)
        answers = [kept, radii, self._all("sizes"), known]
        facts: dict[str, Any] = ray.get(self.steward.call.remote("write", path, inside, made, self.names, answers))
        return facts

    def _choose(self, count: int, per_image: int) -> list[Any]:
        """References to the rounds of centres, by memory/distributed.py."""
        import ray

        share, row = ray.get(self.steward.call.remote("first", count, per_image))
        point = self.shares[share].call.remote("point", row)
        rounds, chosen = [self.steward.call.remote("begin_with", share, row, point)], 1
        shown = max(FEWEST_CANDIDATES, CANDIDATES // len(self.shares))
        while chosen < count:
            answers = self._all("candidates", rounds, shown)
            centres, number = self.steward.call.options(num_returns=2).remote("among", *answers)
            rounds.append(centres)
            chosen = ray.get(number)
            if self.progress is not None:
                self.progress("coreset", chosen, count)
        return rounds

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        return [share.call.remote(method, *arguments) for share in self.shares]

    def _waited(self, stage: str, total: int, references: list[Any]) -> list[Any]:
        wait(stage, total, references, self.desk, self.progress)
        return references
