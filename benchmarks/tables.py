"""Write the measured figures into README.md, README.vi.md and docs/*.md: ``python -m benchmarks.tables``.

pages/ holds a Jinja template for each page that has generated parts. A block of a template is what stands between the marks of
its name, ``<!-- name:begin -->`` and ``<!-- name:end -->``; a template without blocks is the whole page. Every number comes from
results/*.json; a block of results that are not measured yet is empty. A test compares the pages with what this writes.
"""

from __future__ import annotations

import functools
import json
import operator
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from benchmarks import figures
from sapatchcore.settings import Settings

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TEMPLATES = ROOT / "benchmarks" / "pages"

Row = Mapping[str, Any]


def measured(folder: Path = RESULTS) -> dict[str, Any]:
    """The content of every result file, by its name without the ending, in the order of the names."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def parts(results: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(page, name, text) of every generated part; the name is empty where it is the whole page."""
    for path in sorted(TEMPLATES.rglob("*.md.j2")):
        page = path.relative_to(TEMPLATES).as_posix().removesuffix(".j2")
        for name in _environment().get_template(f"{page}.j2").blocks or ("",):
            yield page, name, part(page, name, results)


def part(page: str, name: str, results: Mapping[str, Any]) -> str:
    """The text of one generated part, from the contents of the result files by their names."""
    template = _environment().get_template(f"{page}.j2")
    starting = {
        "runs": lambda front: [
            run for file, content in results.items() if file.startswith(front) for run in content["results"]["runs"]
        ],
        "files": lambda front: [content for file, content in results.items() if file.startswith(front)],
    }
    values = {**results, **starting}
    text = "".join(template.blocks[name](template.new_context(values))) if name else template.render(values)
    text = re.sub(r"\n{3,}", "\n\n", text).strip("\n")
    return text if name else f"{text}\n"


def marked(name: str, text: str) -> str:
    """A generated part with its marks, as it stands on the page."""
    return f"<!-- {name}:begin -->\n{text}\n<!-- {name}:end -->" if name else text


def write() -> None:
    for page, name, text in parts(measured()):
        path = ROOT / page
        before, after = "", ""
        if name:
            before, begin, rest = path.read_text(encoding="utf-8").partition(f"<!-- {name}:begin -->")
            _, end, after = rest.partition(f"<!-- {name}:end -->")
            if not (begin and end):
                raise SystemExit(f"{page} has no marks of {name}.")
        path.write_text(before + marked(name, text) + after, encoding="utf-8")


def grouped(rows: Iterable[Row], *keys: str) -> list[dict[str, Any]]:
    """One entry for all that are alike in ``keys``, in their order: the keys, and ``rows``."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [{**dict(zip(keys, values, strict=True)), "rows": group} for values, group in groups.items()]


def less(rows: Iterable[Row], one: str, other: str) -> list[float]:
    """What is under ``one``, a path with dots, less what is under ``other``, of each row."""
    return [_at(row, one) - _at(row, other) for row in rows]


def over(rows: Iterable[Row], one: str, other: str) -> list[float]:
    """The same as a ratio."""
    return [_at(row, one) / _at(row, other) for row in rows]


def _at(row: Row, path: str) -> float:
    return float(functools.reduce(operator.getitem, path.split("."), row))


def signed(value: float) -> str:
    """ "+0.012", "−0.012" or "0.000"."""
    rounded = round(value, 3) + 0.0  # no "−0.000"
    return (f"{rounded:+.3f}" if rounded else f"{rounded:.3f}").replace("-", "−")


def deviation(values: Sequence[float], form: Callable[[float], str] = "{:.3f}".format) -> str:
    """ "0.912 ± 0.013": mean and standard deviation; the mean alone of a single value."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return form(statistics.fmean(values)) + spread


def percent(share: float) -> str:
    """ "5 %", "0.5 %", "9.1 %": two digits."""
    return f"{float(f'{100 * share:.2g}'):g} %"


def between(values: Iterable[float], spec: str = ",") -> str:
    """ "96–110", or "96" where all are alike."""
    found = sorted(values)
    low, high = format(found[0], spec), format(found[-1], spec)
    return low if low == high else f"{low}–{high}"


def spread(found: Row, spec: str = ".2f") -> str:
    """ "1.23 (1.20–1.31)": median, smallest, largest."""
    return f"{found['median']:{spec}} ({found['min']:{spec}}–{found['max']:{spec}})"


def size(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count / 1e3:.1f} KB"


def hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours"


def columns(text: str, count: int) -> str:
    """A Markdown table with its first columns alone."""
    return "\n".join("|".join(line.split("|")[: count + 1]) + "|" for line in text.splitlines())


@functools.cache
def _environment() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {
        "f": lambda value, spec="": "–" if value is None else format(value, spec),
        "gain": lambda values: deviation(values, signed),
        "mean": statistics.fmean,
        "item": operator.getitem,
        **{made.__name__: made for made in (statistics.median, statistics.stdev, grouped, less, over)},
        **{made.__name__: made for made in (signed, deviation, percent, between, spread, size, hours, columns)},
    }
    found.globals |= {
        **vars(figures),
        "usual_ratio": Settings().coreset_ratio,
        "demo": (ROOT / "docs" / "demo.md").read_text(encoding="utf-8").strip(),
    }
    return found


if __name__ == "__main__":
    write()
