"""The tables of docs/search.md, from results/search.json."""

from __future__ import annotations

from typing import Any

Row = tuple[str, ...]
HEAD: Row = (
    *("patches", "search", "index, share of the bank", "build, × exact's time", "search, × exact's time"),
    *("recall@1", "largest difference of a distance"),
)
AUROC_HEAD: Row = ("search", "image AUROC", "less exact", "largest difference of a score")


def search_rows(results: dict[str, Any]) -> list[Row]:
    """One row for each bank and search: sizes as shares of the float32 bank, times as ratios of the same run."""
    rows = []
    for size, searches in results["banks"].items():
        for name, one in searches.items():
            times = one["over_exact"]
            rows.append(
                (
                    f"{int(size):,}",
                    name,
                    f"{one['over_bank']:.0%}",
                    f"{one['build_over_exact']:.2g}",
                    f"{times['median']:.2f} ({times['min']:.2f}–{times['max']:.2f})",
                    f"{one['recall']:.4f}",
                    f"{one['largest_difference']:.1g}",
                )
            )
    return rows


def auroc_conditions(results: dict[str, Any]) -> str:
    """What the image AUROC is of, a sentence."""
    one = results["image_auroc"]
    return f"The built-in network on {one['category']}, {one['images']} images, a bank of {one['bank']:,} patches:"


def auroc_rows(results: dict[str, Any]) -> list[Row]:
    """One row a search: the same bank and the same patches for all."""
    return [
        (name, f"{one['auroc']:.4f}", f"{one['difference']:+.4f}", f"{one['largest_score_difference']:.1g}")
        for name, one in results["image_auroc"]["searches"].items()
    ]


def pays_from(results: dict[str, Any], search: str) -> int | None:
    """The smallest measured bank from which on ``search`` is faster than exact, or None."""
    faster: int | None = None
    for size, searches in sorted(results["banks"].items(), key=lambda one: int(one[0]), reverse=True):
        if search not in searches or searches[search]["over_exact"]["median"] >= 1:
            break
        faster = int(size)
    return faster


def conditions(results: dict[str, Any]) -> str:
    """What the patches are, a sentence."""
    facts = results["patches"]
    text = f"Patches: {facts['kind']}, {facts['width']} numbers each"
    if facts["copies"]:
        text += (
            f"; {facts['real_rows']:,} of the largest bank are real, the others copies of these with noise of length "
            f"{facts['copies_away']:.3g}, half the distance of a new image's patches"
        )
    return f"{text}."
