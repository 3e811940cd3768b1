"""Choose the network, the input size and the parts by what they find, from good images alone: ``SAPatchCore.tune``.

Candidates are compared coarse to fine, each step about the best so far: every network as the preset has it; the other metric;
larger inputs; parts of the score; the two best networks together. A candidate that would overrun the time is left out, and
whatever was compared by then is chosen from: the highest quality within the milliseconds allowed, and of those that lie
within ``TIE`` of it the fastest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, cast

from sapatchcore.data.sources import Images, Progress, as_sources
from sapatchcore.datasets.folders import training_images as good_images
from sapatchcore.embed.adaptation import size_like
from sapatchcore.embed.builtin import BUILTIN
from sapatchcore.embed.weights import PACKAGED, packaged_file
from sapatchcore.errors import MissingPackageError, SettingsError
from sapatchcore.networks import AND, joined, names_of
from sapatchcore.settings import settings_from
from sapatchcore.tuning.judge import Candidate, Make, judge
from sapatchcore.tuning.made_images import MadeImages, Networks
from sapatchcore.tuning.tuning import TUNING, Tuning, called

MINUTES = 20.0
SIDE, LARGER = 256, (384, 512, 768)  # of the shorter side; larger ones only where the images have the pixels
TIE = 0.005  # of quality, within which the faster candidate is taken

Report = Callable[[Candidate], None]


class Tunable:
    """What a detector has for it. Attributes: ``tuning``, how its settings were chosen, or None where they were given."""

    tuning: Tuning | None = None

    @classmethod
    def tune(
        cls,
        images: Images,
        *,
        minutes: float = MINUTES,
        budget_ms: float | None = None,
        backbones: Sequence[str] | None = None,
        progress: Progress | None = None,
        report: Report | None = None,
        **options: Any,
    ) -> Self:
        """Choose network, input size and parts for these good images, and learn from them: a fitted detector, with ``tuning``.

        Args:
            images: good images, ten or more, as for ``fit``; they are read several times.
            minutes: for the comparison; the last fit comes on top.
            budget_ms: milliseconds that one image may take on this machine; None for any.
            backbones: names to choose among; None: the built-in network, and those of the extra imagenet where it is installed.
            progress: as of ``fit``, and with the stage "tune", in seconds. report: called with each candidate as it is judged.
            options: settings that all candidates share; preset "recommended" unless another is named.

        Ctrl-C ends the comparison, and what was judged by then is chosen from.

        Raises DataError: fewer than ten images, one cannot be read, or they show no part to make defects on. SettingsError: no
        candidate is fast enough, or an option is unknown, or one that is chosen here.
        """
        detector, found = tuned(
            cls,
            images,
            minutes=minutes,
            budget_ms=budget_ms,
            backbones=backbones,
            options=options,
            progress=progress,
            report=report,
        )
        detector.tuning = found
        return cast("Self", detector)

    @property
    def noted(self) -> dict[str, Any]:
        """For the model file's header, beside what was learned: how the settings were chosen."""
        return {} if self.tuning is None else {TUNING: self.tuning.to_dict()}


def tuned(
    make: Make,
    images: Images,
    *,
    minutes: float = MINUTES,
    budget_ms: float | None = None,
    backbones: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> tuple[Any, Tuning]:
    """The detector that ``make`` builds of the settings chosen, fitted on all ``images``, and how they were chosen.

    Parameters and errors as of SAPatchCore.tune. report: called with each candidate as it is judged.
    """
    if not minutes > 0 or (budget_ms is not None and not budget_ms > 0):
        raise SettingsError(f"minutes and budget_ms must be above 0. Got {minutes} and {budget_ms}.")
    given = {"preset": "recommended", **(options or {})}
    if fixed := sorted({"backbone", "resize"} & set(given)):
        raise SettingsError(f"tune chooses {' and '.join(fixed)}. Name networks with `backbones`, or use fit.")
    names = list(backbones) if backbones else available()
    for name in names:
        settings_from({**given, "backbone": name})  # an unknown option ends here, not after minutes
    sources = list(as_sources(images, good_images)[0])
    examples = MadeImages(sources, seed=int(given.get("seed", 0)))
    search = _Comparison(make, given, examples, minutes * 60, budget_ms, progress, report)
    try:
        for candidate in search.plan(names):
            search.look_at(candidate)
    except KeyboardInterrupt:
        if not search.judged:
            raise
        search.stopped = "The comparison was interrupted."
    chosen = search.choice()
    tuning = Tuning(
        tuple(search.judged),
        search.judged.index(chosen),
        len(examples),
        len(sources),
        search.spent(),
        budget_ms,
        search.stopped,
        tuple(examples.shown),
    )
    return make(**chosen.options).fit(sources, progress), tuning


def available() -> list[str]:
    """The networks whose weights are at hand without a hub: the built-in one, and those of installed packages.

    Raises WeightsError where a package's file is damaged.
    """
    found = [BUILTIN]
    for name in PACKAGED:
        with contextlib.suppress(MissingPackageError):
            packaged_file(name)
            found.append(name)
    return found


class _Comparison:
    """Candidates within a time, and what they were judged to be."""

    def __init__(
        self,
        make: Make,
        given: Mapping[str, Any],
        examples: MadeImages,
        seconds: float,
        budget_ms: float | None,
        progress: Progress | None,
        report: Report | None,
    ) -> None:
        self.make, self.given, self.examples, self.seconds, self.budget_ms = make, given, examples, seconds, budget_ms
        self.progress, self.report = progress, report
        self.judged: list[Candidate] = []
        self.stopped = ""
        self._began, self._networks = time.monotonic(), Networks()
        self._rate = 0.0  # seconds a pixel of input, of the dearest candidate so far

    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def plan(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Candidates, each about the best of those that were judged before it."""
        shorter = min(self.examples.shape)
        side = min(SIDE, max(32, shorter))
        for name in names:
            yield self._at(side, {"backbone": name})
        for one in self._best_networks(2):
            now = settings_from(one.options).metric
            yield {**one.options, "metric": "euclidean" if now == "whitened" else "whitened"}
        for one in self._best_networks(2):
            before = one.quality
            for larger in (size for size in LARGER if size <= shorter):
                yield self._at(larger, one.options)
                if self.judged[-1].quality < before:
                    break
                before = self.judged[-1].quality
        best = self.choice().options
        if settings_from(best).global_part == "pooled":
            yield {**best, "global_part": "none"}
        yield {**best, "image_score": "max"}
        yield {**best, "attention": "self"}
        yield {**best, "coreset_ratio": 10 * settings_from(best).coreset_ratio}
        if len(two := self._best_networks(2)) == 2:
            metrics = [settings_from(one.options).metric for one in two]
            several = {**two[0].options, "metric": joined(metrics)}
            several["backbone"] = AND.join(str(one.options["backbone"]) for one in two)
            yield several

    def look_at(self, options: dict[str, Any]) -> None:
        """Judge a candidate, unless it was judged, or there is no time for it."""
        height, width = settings_from(options).resize
        pixels = height * width * len(names_of(str(options["backbone"])))
        if any(one.options == options for one in self.judged):
            return
        if self.judged and self.spent() + 0.7 * self._rate * pixels > self.seconds:
            self.stopped = "Not all candidates were compared, for want of time."
            return
        begin = time.monotonic()
        found = judge(self.make, options, self.examples, self._networks)
        self._rate = max(self._rate, (time.monotonic() - begin) / pixels)
        self.judged.append(found)
        if self.report is not None:
            self.report(found)
        if self.progress is not None:
            self.progress("tune", min(round(self.spent()), round(self.seconds)), round(self.seconds))

    def choice(self) -> Candidate:
        """The best of those that are fast enough. Raises SettingsError where none is."""
        fast = [one for one in self.judged if self.budget_ms is None or one.milliseconds <= self.budget_ms]
        if not fast:
            least = min(self.judged, key=lambda one: one.milliseconds)
            raise SettingsError(
                f"No candidate takes {self.budget_ms:g} ms an image or less on this machine: the fastest, "
                f"{called(least.options)}, takes {least.milliseconds:.0f}. Allow more with `budget_ms`."
            )
        best = max(one.quality for one in fast)
        return min((one for one in fast if one.quality >= best - TIE), key=lambda one: one.milliseconds)

    def _at(self, side: int, options: Mapping[str, Any]) -> dict[str, Any]:
        """``options`` with the shorter side ``side``, and the longer one as the images have it where the settings keep it."""
        of = {**self.given, **options, "resize": side}
        size: Any = side
        if settings_from(of).keep_aspect:
            size = size_like(self.examples.sources[0], side)
        return {**of, "resize": size}

    def _best_networks(self, count: int) -> list[Candidate]:
        """The best candidate of each of the best networks."""
        found: dict[str, Candidate] = {}
        for one in sorted(self.judged, key=lambda one: -one.quality):
            found.setdefault(str(one.options["backbone"]), one)
        return list(found.values())[:count]
