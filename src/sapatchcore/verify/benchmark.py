"""Fit and score every category of a data set, for one or more models and seeds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sapatchcore.atomic import write_text
from sapatchcore.data.sources import Progress
from sapatchcore.datasets.folders import find_categories, open_dataset
from sapatchcore.datasets.samples import Dataset
from sapatchcore.detector import SAPatchCore
from sapatchcore.errors import DataError, SettingsError, did_you_mean
from sapatchcore.settings import Settings
from sapatchcore.verify.evaluate import Evaluation, evaluate
from sapatchcore.verify.tables import MODELS, Run, as_csv, as_json, as_markdown, as_text, result_tables

Scored = Callable[[Run, Dataset, Evaluation], None]

FORMATS = ("text", "markdown", "csv", "json")


@dataclass(frozen=True)
class BenchmarkJob:
    """One category to fit and evaluate with one attention and seed. path: its folder."""

    category: str
    path: Path
    attention: str
    seed: int


@dataclass(frozen=True, eq=False)
class Done:
    """A job's figures, and what they were computed from."""

    run: Run
    dataset: Dataset
    evaluation: Evaluation


Jobs = Callable[[Sequence[BenchmarkJob], Settings, str, Progress | None], Iterable[tuple[int, Done]]]


def chosen_categories(root: Path, wanted: Sequence[str], layout: str) -> dict[str, Path]:
    """The categories in ``root``, or those named. Raises DataError where one that was named is not there."""
    found = find_categories(root, layout)
    for name in wanted:
        if name not in found:
            raise DataError(f"{root} has no category {name!r}.{did_you_mean(name, found)} Found: {', '.join(found)}.")
    return {name: path for name, path in found.items() if not wanted or name in wanted}


def jobs_of(categories: dict[str, Path], attentions: Sequence[str], seeds: Sequence[int]) -> list[BenchmarkJob]:
    """Every category × attention × seed, in this order."""
    return [
        BenchmarkJob(name, path, attention, seed)
        for name, path in categories.items()
        for attention in attentions
        for seed in seeds
    ]


def run_job(job: BenchmarkJob, settings: Settings, layout: str, progress: Progress | None = None) -> Done:
    """Fit and score one category. Raises what ``fit`` and ``evaluate`` raise."""
    dataset = open_dataset(job.path, layout)
    detector = SAPatchCore(**{**settings.model_dump(), "attention": job.attention, "seed": job.seed})
    start = time.perf_counter()
    fit_on(detector, dataset, progress)
    middle = time.perf_counter()
    evaluation = evaluate(detector, dataset, progress)
    figures = {
        **evaluation.to_dict(),
        "fit_seconds": middle - start,
        "evaluate_seconds": time.perf_counter() - middle,
        "training_images": len(dataset.train),
        "bank": detector.rows,
    }
    return Done(Run(MODELS[job.attention], job.category, job.seed, figures), dataset, evaluation)


def run_benchmark(
    jobs: Sequence[BenchmarkJob],
    done: Iterable[tuple[int, Done]],
    *,
    finished: Callable[[list[Run]], None],
    scored: Scored | None = None,
) -> list[Run]:
    """Collect the jobs that were ``done``, each with its index in ``jobs``, in whatever order they come.

    finished: called after each with all runs so far, in the order of ``jobs``, so that nothing is lost. scored: called after
    that with the newest run and what it was computed from.

    Raises what ``done`` raises; runs that were finished have been handed out by then.
    """
    runs: list[Run | None] = [None] * len(jobs)
    for index, one in done:
        runs[index] = one.run
        finished([run for run in runs if run is not None])
        if scored is not None:
            scored(one.run, one.dataset, one.evaluation)
    return [run for run in runs if run is not None]


def one_by_one(
    jobs: Sequence[BenchmarkJob], settings: Settings, layout: str, progress: Progress | None
) -> Iterator[tuple[int, Done]]:
    """The jobs in their order, on this machine; as of ``run_job``."""
    for index, job in enumerate(jobs):
        yield index, run_job(job, settings, layout, progress)


def fit_on(detector: SAPatchCore, dataset: Dataset, progress: Progress | None = None) -> None:
    """Learn a category; its validation images, where it has any, are for the thresholds alone."""
    validation = [sample.path for sample in dataset.validation]
    detector.fit([sample.path for sample in dataset.train], progress, calibrate=validation or None)


def benchmark_to_folder(
    root: Path,
    output: Path,
    settings: Settings,
    *,
    wanted: Sequence[str],
    seeds: Sequence[int],
    compare: str | None,
    layout: str,
    table_format: str,
    scored: Scored | None = None,
    progress: Progress | None = None,
    run_all: Jobs = one_by_one,
) -> str:
    """Run the benchmark, keep ``output``/benchmark.{json,md,csv,txt} up to date after each run, and return the tables.

    compare: a second attention to run beside that of ``settings``. table_format: of the text that is returned. scored: as
    of ``run_benchmark``. run_all: runs the jobs and yields each, with its index, when it is done.
    """
    if table_format not in FORMATS:
        raise SettingsError(
            f"format must be {', '.join(FORMATS)}. Got {table_format!r}.{did_you_mean(table_format, FORMATS)}"
        )
    if compare is not None and compare not in MODELS:
        raise SettingsError(
            f"compare must be one of {', '.join(MODELS)}. Got {compare!r}.{did_you_mean(compare, MODELS)}"
        )
    categories = chosen_categories(root, wanted, layout)

    def texts(runs: list[Run]) -> dict[str, str]:
        tables = result_tables(runs)
        everything = {"settings": settings.model_dump(mode="json"), **as_json(tables, runs)}
        return {
            "text": as_text(tables),
            "markdown": as_markdown(tables),
            "csv": as_csv(tables),
            "json": json.dumps(everything, indent=1, allow_nan=False) + "\n",
        }

    def save(runs: list[Run]) -> None:
        for kind, suffix in zip(FORMATS, ("txt", "md", "csv", "json"), strict=True):
            write_text(output / f"benchmark.{suffix}", texts(runs)[kind])

    attentions = list(dict.fromkeys([settings.attention, *([compare] if compare else [])]))
    jobs = jobs_of(categories, attentions, seeds)
    runs = run_benchmark(jobs, run_all(jobs, settings, layout, progress), finished=save, scored=scored)
    return texts(runs)[table_format]
