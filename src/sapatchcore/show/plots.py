"""The report's plots as SVG text: histogram of scores, ROC, precision-recall, per-region overlap.

Colours by M. Okabe and K. Ito ("Color Universal Design", 2008), which the colour-blind tell apart, and never colour alone:
every group has its own hatch, every line its own dashes. Text stays text. Lines and letters are in ``currentColor``, so a
plot is dark or light as its page is. The same input gives the same bytes: no date, fixed names.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sapatchcore.errors import SAPatchCoreError, install
from sapatchcore.verify.curves import Curve, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OKABE_ITO = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#CC79A7", "#009E73", "#F0E442")
HATCHES = ("", "///", "\\\\\\", "xxx", "|||", "---", "+++", "//||")  # lines alone: dots are long paths
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 2, 1, 2, 1, 2)), (0, (1, 1)), (0, (8, 3)))
SIZE = (6.2, 4.0)  # inches of 72 points; the page scales it
BINS = 36
NAME = 22  # letters of a group's name beside the histogram
# Stand-ins for currentColor, which matplotlib does not know: colours that nothing else has.
_INK, _FAINT = "#010203", "#040506"


@dataclass(frozen=True)
class Line:
    """A vertical line. at: its score. name: in the legend. seen_labels: chosen on test labels, and so drawn dotted."""

    at: float
    name: str
    seen_labels: bool = False


def require_packages() -> None:
    """Raises SAPatchCoreError where matplotlib or jinja2 is missing or cannot be loaded."""
    try:
        import jinja2  # noqa: F401
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise SAPatchCoreError(
            f"A report needs matplotlib and jinja2. Got: {error}. Install them: {install('report')}"
        ) from None


def histogram(groups: Mapping[str, npt.NDArray[np.floating[Any]]], lines: Sequence[Line], title: str) -> str:
    """Scores by group, in one set of bins, each group as a share of its own images; the groups one below the other.

    groups: scores (n,) by name, in this order, good ones first; empty ones are left out. lines: thresholds, in every row.
    title: read to those who cannot see the plot.
    """
    groups = {name: scores for name, scores in groups.items() if len(scores)}
    low, high = _range([*(scores for scores in groups.values()), np.array([line.at for line in lines])])
    edges = np.linspace(low, high, BINS + 1)
    height = 0.75 + 0.24 * len(lines) + 0.5 * len(groups)
    figure, rows = _figure(len(groups), (SIZE[0], height))
    for row, (ax, (name, scores)) in enumerate(zip(rows, groups.items(), strict=True)):
        shares = np.histogram(scores, edges)[0] / len(scores)
        ax.stairs(
            shares,
            edges,
            fill=True,
            facecolor=OKABE_ITO[row % len(OKABE_ITO)],
            edgecolor=_INK,
            linewidth=0.7,
            hatch=HATCHES[row % len(HATCHES)],
        )
        ax.set_ylim(0, max(float(shares.max()), 1e-9) * 1.1)
        ax.set_xlim(low, high)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        for line in lines:
            ax.axvline(line.at, color=_INK, linewidth=1.6, linestyle=_style(line))
        ax.tick_params(labelbottom=row == len(groups) - 1)
        short = name if len(name) <= NAME else name[: NAME - 1] + "…"
        words = f"{short} ({len(scores)})".encode("utf-8", "replace").decode()  # a folder's name may be no text
        ax.text(-0.015, 0.12, words, transform=ax.transAxes, ha="right", va="bottom")
    rows[-1].set_xlabel("image score (higher = more anomalous)")
    if lines:
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=_INK, linewidth=1.6, linestyle=_style(line)) for line in lines]
        corner = (0.005, 1.0)
        figure.legend(handles, [line.name for line in lines], loc="upper left", frameon=False, bbox_to_anchor=corner)
    top = 1 - (0.24 * len(lines) + 0.14) / height
    figure.subplots_adjust(left=0.34, right=0.98, top=top, bottom=0.5 / height, hspace=0.15)
    return _svg(figure, title)


def _style(line: Line) -> Any:
    return ":" if line.seen_labels else "-"


def curves(
    drawn: Mapping[str, Curve],
    labels: tuple[str, str],
    title: str,
    *,
    limit: float = 1.0,
    diagonal: bool = False,
    level: float | None = None,
    marks: Sequence[tuple[float, float, str]] = (),
) -> str:
    """Curves in the unit square, by their names in the legend; they are thinned here.

    labels: of both axes. title: as of ``histogram``. limit: of x. diagonal, level: a faint line of what chance gives.
    marks: named points (x, y, name), such as a threshold's.
    """
    figure, (ax,) = _figure(1, SIZE)
    if diagonal:
        ax.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, linestyle=(0, (2, 3)))
    if level is not None:
        ax.plot([0, 1], [level, level], color=_FAINT, linewidth=1, linestyle=(0, (2, 3)))
    handles, names = [], []
    for index, (name, curve) in enumerate(drawn.items()):
        few = thinned(curve)
        colour, dashes = OKABE_ITO[index % len(OKABE_ITO)], DASHES[index % len(DASHES)]
        width = 2.4 if index == 0 else 1.5
        # Clipped, half of a line on the border would be missing.
        handles += ax.plot(few.x, few.y, color=colour, linestyle=dashes, linewidth=width, clip_on=False)
        names.append(name)
    for index, (x, y, name) in enumerate(marks):
        shape = "os^D"[index % 4]
        handles += ax.plot([x], [y], shape, color=_INK, markersize=6, clip_on=False, zorder=5)
        names.append(name)
    ax.set_xlim(0, limit)
    ax.set_ylim(0, 1)
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    ax.grid(color=_FAINT, alpha=0.25, linewidth=0.6)
    corner: Any = "lower right" if diagonal or limit < 1 else "lower left"
    ax.legend(handles, names, loc=corner, framealpha=0, handlelength=3.2)
    figure.subplots_adjust(left=0.11, right=0.97, top=0.97, bottom=0.14)
    return _svg(figure, title)


def candidates_plot(points: Mapping[str, tuple[float, float]], chosen: str, budget_ms: float | None) -> str:
    """What `tune` compared: quality against milliseconds an image.

    points: (milliseconds, quality) by the candidate's name. chosen: the one that is marked and named. budget_ms: a line, where
    one was given.
    """
    figure, (ax,) = _figure(1, SIZE)
    for name, (spent, quality) in points.items():
        if name != chosen:
            ax.plot([spent], [quality], "o", color=OKABE_ITO[0], markersize=6, clip_on=False)
    spent, quality = points[chosen]
    (mark,) = ax.plot([spent], [quality], "D", color=OKABE_ITO[2], markersize=9, clip_on=False, zorder=5)
    handles, names = [mark], [f"chosen: {chosen}"]
    if budget_ms is not None:
        handles.append(ax.axvline(budget_ms, color=_INK, linewidth=1.2, linestyle=":"))
        names.append(f"{budget_ms:g} ms allowed")
    ax.set_xlim(left=0)
    ax.set_xlabel("milliseconds an image, on this machine")
    ax.set_ylabel("image AUROC on made defects, mean of groups")
    ax.grid(color=_FAINT, alpha=0.25, linewidth=0.6)
    ax.legend(handles, names, loc="lower right", framealpha=0)
    figure.subplots_adjust(left=0.13, right=0.97, top=0.97, bottom=0.14)
    return _svg(figure, "Candidates: quality against time")


def _figure(rows: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, facecolor="none")
    FigureCanvasSVG(figure)
    axes = [figure.add_subplot(rows, 1, row + 1) for row in range(rows)]
    for ax in axes:
        ax.set_facecolor("none")
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _range(values: Sequence[npt.NDArray[np.floating[Any]]]) -> tuple[float, float]:
    everything = np.concatenate([np.asarray(one, np.float64) for one in values])
    low, high = float(everything.min()), float(everything.max())
    margin = 0.03 * (high - low) or max(abs(high), 1.0) * 0.05
    return low - margin, high + margin


def _svg(figure: Figure, title: str) -> str:
    """The figure as an ``<svg>`` element with its title, without ids that another plot of the page may have."""
    import matplotlib
    from matplotlib.text import Text

    words: list[Any] = figure.findobj(Text)
    for word in words:
        word.set_parse_math(False)  # a "$" of a label is no formula
        word.set_color(_INK)
    for ax in figure.axes:
        ax.tick_params(color=_INK, which="both")
        ax.spines[:].set_color(_INK)
    out = io.StringIO()
    # Settings of the writer exist in matplotlib's globals alone; the context puts back what was there.
    own: dict[Any, Any] = {"svg.hashsalt": "sapatchcore", "svg.fonttype": "none", "hatch.linewidth": 0.6}
    with matplotlib.rc_context(own), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's own font has it
        figure.savefig(
            out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")), transparent=True
        )
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(
        r' id="(?:figure|axes|patch|line2d|text|legend|matplotlib\.axis|xtick|ytick|PathCollection)_\d+"', "", text
    )
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    text = text.replace(_INK, "currentColor").replace(_FAINT, "currentColor")
    opening, rest = text.split(">", 1)
    opening += ' role="img" style="stroke-linejoin: round; stroke-linecap: butt"'
    return f"{opening}>\n <title>{_escaped(title)}</title>{rest}".strip()


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
