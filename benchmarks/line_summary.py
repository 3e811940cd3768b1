"""Export and server in README.md's table: the figures that decide, from results/export_speed.json, edge.json and load.json."""

from __future__ import annotations

from typing import Any

Row = tuple[str, str, str]


def line_costs(speed: dict[str, Any], edge: dict[str, Any], load: dict[str, Any]) -> list[Row]:
    """(what, measured, target) of what runs beside the line; each argument is one file's ``results``."""
    faster = speed["speed"]["times_faster, graph"]["ours, OpenVINO int8: graph"]
    theirs = speed["versions"]["theirs"]["anomalib"]
    sizes = [edge["installed"][extra]["megabytes"] for extra in ("edge", "learn")]
    latency = [load["latency"][kind]["over_predict_ms"]["p50"] for kind in ("jpeg 700", "png 1024")]
    shares = [load["throughput"][kind]["share_of_predict"]["of_both"] for kind in ("jpeg 700", "png 1024")]
    return [
        (
            "exported, OpenVINO int8, batch 1",
            f"{faster['anomalib, graph, float32']['median']:.1f}× faster than anomalib {theirs}'s own OpenVINO export in "
            f"float32, {faster['anomalib, graph, int8']['median']:.1f}× than its int8",
            "2×",
        ),
        (
            "installed on a line PC",
            f"{sizes[0] / 1e3:.1f} GB without PyTorch, {sizes[1] / 1e3:.1f} GB with it",
            "",
        ),
        (
            "server, one client, built-in backbone",
            f"{min(latency):.0f} to {max(latency):.0f} ms on top of predict (p50)",
            "under 10 ms",
        ),
        (
            "server, 32 clients, built-in backbone",
            f"{min(shares):.0%} to {max(shares):.0%} of predict's images a second",
            "90 %",
        ),
    ]
