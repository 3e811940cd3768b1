"""Many categories at once: a benchmark's jobs on a Ray cluster, each a whole fit and evaluation on one machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sapatchcore.data.sources import Progress
from sapatchcore.scale.cluster import RESTARTS, as_completed, connected
from sapatchcore.settings import Settings
from sapatchcore.verify.benchmark import BenchmarkJob, Done, Jobs

if TYPE_CHECKING:
    from ray import ObjectRef


def side_by_side(address: str, workers: int | None) -> Jobs:
    """For verify/benchmark.py's ``run_all``: the jobs on the cluster at ``address``, at most ``workers`` at a time.

    workers: None for as many as there is room for. A job whose machine is lost is run again on another one.
    """

    def run_all(
        jobs: Sequence[BenchmarkJob], settings: Settings, layout: str, progress: Progress | None
    ) -> Iterator[tuple[int, Done]]:
        import ray

        with connected(address) as cluster:
            count = min(cluster.workers(workers), len(jobs))
            task = ray.remote(_run).options(max_retries=RESTARTS, **cluster.worker_options())
            left = iter(enumerate(jobs))
            running: dict[ObjectRef, int] = {}  # the index of each job

            def start_next() -> None:
                for index, job in left:
                    reference = task.remote(job, settings, layout, str(Path.cwd()), cluster.threads(count))
                    running[reference] = index
                    return

            for _ in range(count):
                start_next()
            done = 0
            while running:
                reference = next(as_completed(list(running), lambda: None))
                yield running.pop(reference), ray.get(reference)
                done += 1
                if progress is not None:
                    progress("benchmark", done, len(jobs))
                start_next()

    return run_all


def _run(job: BenchmarkJob, settings: Settings, layout: str, folder: str, threads: int) -> Done:
    """In a worker. folder: where relative paths start. threads: processors to compute with."""
    import torch

    from sapatchcore.verify.benchmark import run_job

    if Path(folder).is_dir():
        os.chdir(folder)
    torch.set_num_threads(threads)
    return run_job(job, settings, layout)
