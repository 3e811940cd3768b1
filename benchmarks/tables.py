"""Write the measured figures into README.md, README.vi.md and docs/results.md: ``python benchmarks/summary.py``.

Every number comes from results/*.json. A test compares the files with what this prints.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import export_summary
import growing_summary
import kinds_summary
import line_summary
import load_summary
import method_summary
import recipes_summary
import verdict_summary
import vietnamese

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
CARD = ROOT / "docs" / "builtin-backbone.md"
BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"
DEMO_BEGIN, DEMO_END = "<!-- demo:begin -->", "<!-- demo:end -->"
RECIPES_BEGIN, RECIPES_END = "<!-- recipes:begin -->", "<!-- recipes:end -->"
VERDICTS = ROOT / "docs" / "verdicts.md"
SERVER = ROOT / "docs" / "server.md"
EXPORT = ROOT / "docs" / "export.md"
GROWING = {ROOT / "docs" / "scale.md": growing_summary.scale, ROOT / "docs" / "search.md": growing_summary.search}
NAMES = {"self": "SA-PatchCore", "none": "PatchCore"}
TITLES = {
    "README.md": (
        "Measured on 2 cores of {cpu}, float32, Wide ResNet-50-2 at 224×224; each figure is a ratio taken in one run "
        "([docs/results.md](docs/results.md)).",
        ("what", "measured"),
    ),
    "README.vi.md": (
        "Đo trên 2 nhân của {cpu}, float32, Wide ResNet-50-2 ở 224×224; mỗi con số là một tỉ lệ lấy trong cùng một lần chạy "
        "([docs/results.md](docs/results.md)).",
        ("đại lượng", "đo được"),
    ),
}


def load(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))


def speeds() -> list[tuple[str, str, str]]:
    """(what, measured, target) for every figure of speed and memory."""
    coreset = load("coreset")["results"]
    real = next(value for name, value in coreset.items() if "Gaussian" not in name)
    worst = next(value for name, value in coreset.items() if "Gaussian" in name)
    attention = load("attention")["results"]["batch 1"]
    fit = load("fit")["results"]["fit"]
    predict = load("predict")["results"]
    batch = predict["batch 8"]["variants"]
    small, large = (f"attention self, bank {rows}" for rows in (2508, 25088))
    auroc = predict["image_auroc"][small]
    metrics = load("metrics")["results"]["test_set"]["seconds"]
    fast = load("builtin")["results"]["batch 8"]
    made = load("synth")["results"]["screws"]["images_a_second"]
    pixels, image = metrics["pixels: all four, maps on demand"], metrics["image: AUROC, AP, best F1"]
    return [
        (
            "coreset of 250,000 patches, 1 %",
            f"{real['plain_over_ours']['median']:.0f}× faster than the plain loop (isotropic noise, the worst case: "
            f"{worst['plain_over_ours']['median']:.0f}×); covering radius {real['radius_ours']:.5f}, the plain loop's "
            f"{real['radius_plain']:.5f}",
            "15×, 1e-5",
        ),
        (
            "the same, 10 %",
            f"{real['ten_over_one']:.1f}× the time of 1 % (noise: {worst['ten_over_one']:.1f}×)",
            "under 8×",
        ),
        (
            "self-attention, one image",
            f"{attention['authors_over_ours']['median']:.0f}× faster than the authors' form; "
            f"{attention['ours']['share_of_bare_network']['median']:.0%} of the bare network's time",
            "8×, under 20 %",
        ),
        (
            "fit of 320 images, whole",
            f"{fit['over_faster_bare_network']['median']:.2f} × the bare network over the same images, calibration "
            "included",
            "under 1.5 ×",
        ),
        (
            "predict, bank of 2,508",
            f"{batch[f'{small}, float32']['over_bare_float32_network']['median']:.2f} × the bare network, batch 8 "
            f"(PatchCore {batch['attention none, bank 2508, float32']['over_bare_float32_network']['median']:.2f} ×)",
            "under 1.3 ×",
        ),
        (
            "predict, bank of 25,088",
            f"{batch[f'{large}, float32']['over_bare_float32_network']['median']:.2f} × the bare network, batch 8 "
            f"(PatchCore {batch['attention none, bank 25088, float32']['over_bare_float32_network']['median']:.2f} ×)",
            "under 1.7 ×",
        ),
        (
            "predict in bfloat16",
            f"{batch[f'{small}, bfloat16']['over_own_float32']['median']:.2f} × the time of float32, batch 8; image AUROC of "
            f"screw {auroc['bfloat16']:.3f} against {auroc['float32']:.3f} (random weights)",
            "under 0.6 ×, within 0.005",
        ),
        *_memory(),
        (
            "all metrics of 160 images at 320×320",
            f"{pixels['median'] + image['median']:.1f} s, maps included",
            "under 5 s",
        ),
        (
            "predict with the built-in backbone",
            f"{fast['SA-PatchCore']['times_faster']['median']:.1f}× faster than with Wide ResNet-50-2, batch 8 "
            f"(PatchCore {fast['PatchCore']['times_faster']['median']:.1f}×)",
            "2.5×",
        ),
        (
            "made screws of 700×700, on disk",
            f"{made['written, mvtec']['by_the_clock']['median']:.0f} images a second on one core as PNG, "
            f"{made['written, cad_sd']['by_the_clock']['median']:.0f} as JPEG",
            "15 a second",
        ),
        *verdict_costs(),
        *line_summary.line_costs(*(load(name)["results"] for name in ("export_speed", "edge", "load"))),
    ]


def _memory() -> list[tuple[str, str, str]]:
    if not (RESULTS / "memory.json").is_file():
        return []  # not measured yet: no row
    growth = load("memory")["results"]["growth_mb_an_image"]
    return [("memory of fit", f"grows by {growth:.2f} MB an image from 320 to 2,000 images", "under 0.6 MB")]


def short(file: str) -> str:
    title, head = TITLES[file]
    cpu = load("predict")["environment"]["cpu"]
    translate = file.endswith(".vi.md")
    rows = [(vietnamese.NAMES[what] if translate else what, found) for what, found, _ in speeds()]
    if translate:
        rows = [(what, vietnamese.translated(found, vietnamese.PHRASES)) for what, found in rows]
    return "\n".join([title.format(cpu=cpu), "", *_table(head, rows)])


def results_page() -> str:
    """docs/results.md as text."""
    environment = load("predict")["environment"]
    where = ", ".join(f"{key} {environment[key]}" for key in ("cpu", "cpus", "threads", "torch", "timm"))
    parts = [
        "# Results",
        "",
        "Written by `python benchmarks/summary.py` from `benchmarks/results/*.json`, which hold the conditions of every run.",
        "",
        "## Speed and memory",
        "",
        f"{where}. Wide ResNet-50-2 with random weights, 224×224, float32 unless said; images of MVTec AD's *screw* at 320×320.",
        "",
        *_table(("what", "measured", "target"), speeds()),
        "",
        *_workers(),
        "",
        "## Real images, random weights",
        "",
        "Seeded random weights: a check that both models run alike on real images, not a result of the method. Self-attention",
        "divides by nothing, so its sharpness follows the scale of layer 3; random networks' is so small that every position",
        "gets nearly the channel's mean, and SA-PatchCore is then layer 2 beside a global mean. Coreset ratio 0.01, seed 0.",
        "",
        *_accuracy(),
        "",
        *_method(),
    ]
    return "\n".join(parts)


def write() -> None:
    (ROOT / "docs" / "results.md").write_text(results_page(), encoding="utf-8")
    for file in TITLES:
        _put(ROOT / file, BEGIN, short(file), END)
        _put(ROOT / file, DEMO_BEGIN, demo(file), DEMO_END)
    _put(CARD, RECIPES_BEGIN, recipes(), RECIPES_END)
    for name, text in verdicts().items():
        _put(VERDICTS, *marked(name, text))
    _put(SERVER, *marked("load", server()))
    for name, text in export().items():
        _put(EXPORT, *marked(name, text))
    for page, parts in GROWING.items():
        for name, text in parts().items():
            _put(page, *marked(name, text))


def marked(name: str, text: str) -> tuple[str, str, str]:
    """What stands around and between the marks of a generated part."""
    return f"<!-- {name}:begin -->", text, f"<!-- {name}:end -->"


def verdicts() -> dict[str, str]:
    """The generated parts of docs/verdicts.md, by the name in their marks."""
    return {
        "promise": verdict_summary.promise_table(),
        "kinds": kinds_summary.kinds_table(),
        "update": kinds_summary.update_table(),
        "verdict": "\n".join(_table(("what", "measured", "to reach"), verdict_costs())),
    }


def server() -> str:
    """The generated part of docs/server.md."""
    found = load("load")["results"]
    return "\n".join([load_summary.conditions(found), "", *_table(load_summary.HEAD, load_summary.load_rows(found))])


def export() -> dict[str, str]:
    """The generated parts of docs/export.md, by the name in their marks."""
    runs, speed, edge = load("export")["results"]["runs"], load("export_speed"), load("edge")["results"]
    figures = _table(export_summary.SPEED_HEAD, export_summary.speed_rows(speed["results"]))
    return {
        "export": "\n".join(
            [export_summary.conditions(runs), "", *_table(export_summary.HEAD, export_summary.export_rows(runs))]
        ),
        "speed": "\n".join([export_summary.speed_conditions(speed), "", *figures]),
        "edge": "\n".join(_table(export_summary.EDGE_HEAD, export_summary.edge_rows(edge))),
    }


def verdict_costs() -> list[tuple[str, str, str]]:
    """(what, measured, target) of calibration, explanations and the report."""
    found = load("verdict")["results"]
    large, small, report = found["wide_resnet50_2"], found["builtin"], found["report"]
    shares = [one["calibration_share_of_fit"]["median"] for one in (large, small)]
    more = [one["explain_ms"]["median"] for one in (large, small)]
    return [
        (
            "calibration, 320 images",
            f"{shares[0]:.0%} of the rest of fit (built-in backbone: {shares[1]:.0%})",
            "under 15 %",
        ),
        (
            "an explanation, one image",
            f"{more[0]:.1f} ms on top of predict (built-in backbone: {more[1]:.1f} ms)",
            "under 5 ms",
        ),
        (
            f"report of {report['images']} images",
            f"{report['seconds']:.0f} s after scoring, {report['bytes'] / 1e6:.1f} MB",
            "60 s, 20 MB",
        ),
    ]


def demo(file: str) -> str:
    """The table that the demo wrote, docs/demo.md, in the file's language."""
    text = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8").strip()
    if file == "README.vi.md":
        text = vietnamese.translated(text, vietnamese.DEMO.items())
    return text


def recipes() -> str:
    """The table of recipes for the built-in backbone's page."""
    head, rows = recipes_summary.recipe_rows(load("recipes"))
    return "\n".join(_table(head, rows))


def _put(path: Path, begin: str, text: str, end: str) -> None:
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def _workers() -> list[str]:
    found = load("fit")["results"]["workers"]
    times, ratios = found["ms_an_image"], found["over_workers_0"]
    rows = [
        (
            f"fit, {n} reading threads",
            f"{times[f'fit, workers {n}']['median']:.0f}",
            f"{ratios[f'workers {n}']['median']:.2f}",
        )
        for n in (0, 1, 2, 4)
    ]
    rows += [(name, f"{times[name]['median']:.0f}", "") for name in ("decoding alone", "network alone")]
    return [
        f"Reading {found['images']} images of 1024×1024 behind the network:",
        "",
        *_table(("", "ms an image", "/ no thread"), rows),
    ]


def _accuracy() -> list[str]:
    figures = {
        "image_auroc": "image AUROC",
        "pixel_auroc": "pixel AUROC",
        "pixel_f1": "pixel F1",
        "aupro": "AUPRO",
    }
    rows = []
    runs = [run for file in sorted(RESULTS.glob("real_images_*.json")) for run in load(file.stem)["results"]["runs"]]
    for run in runs:
        values = [run["metrics"].get(name) for name in figures]
        shown = ["–" if value is None else f"{value:.3f}" for value in values]
        rows.append((run["category"], run["backbone"], NAMES[run["attention"]], *shown))
    return _table(("category", "network", "model", *figures.values()), rows)


def _method() -> list[str]:
    """PatchCore against SA-PatchCore; nothing where it is not measured yet."""
    contents = [load(file.stem) for file in sorted(RESULTS.glob("method_*.json"))]
    if not contents:
        return []
    runs = [run for content in contents for run in content["results"]["runs"]]
    figures = (NAMES["none"], NAMES["self"], "difference", "better")
    lines = [
        "## PatchCore against SA-PatchCore",
        "",
        "The paper claims a gain on co-occurrence anomalies (a part missing, too many, in the wrong place or pair) and parity",
        "elsewhere. Image AUROC of both models with the same network, projection and seeds, mean ± standard deviation over",
        "the seeds. The difference is SA-PatchCore less PatchCore, seed by seed; within twice its standard error over the seeds",
        "it is a tie. The seed changes the projection, the first centre and random weights, never the images: how much other",
        "images would change is not in the spread.",
        "",
        method_summary.conditions(runs, [content["arguments"] for content in contents]),
        "",
        *_table(("data set", "network", *figures), method_summary.auroc_rows(runs)),
        "",
    ]
    for backbone in dict.fromkeys(run["backbone"] for run in runs):
        lines += [
            f"### Kinds of anomaly: {method_summary.network_name(runs, backbone)}",
            "",
            method_summary.verdict(runs, backbone),
            "",
            *_table(("data set", "kind", "group", *figures), method_summary.kind_rows(runs, backbone)),
            "",
        ]
    return lines


def _table(head: tuple[str, ...], rows: list[Any]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]


if __name__ == "__main__":
    write()
