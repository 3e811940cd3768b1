"""The table of docs/server.md, from results/load.json."""

from __future__ import annotations

from typing import Any

Row = tuple[str, str, str]
HEAD: Row = ("what", "measured", "to reach")
KINDS = {"jpeg 700": "JPEG 700×700", "png 1024": "PNG 1024×1024"}


def load_rows(found: dict[str, Any]) -> list[Row]:
    """(what, measured, to reach) of every stage."""
    latency, throughput, overload = found["latency"], found["throughput"], found["overload"]
    kill, fuzz = found["sigkill"], found["fuzz"]
    rows: list[Row] = []
    for kind, name in KINDS.items():
        one = latency[kind]
        over, whole = one["over_predict_ms"]["p50"], one["server_ms"]
        figure = f"{over:.1f} ms over `predict` itself (p50 of {one['rounds']} pairs)"
        rows.append(
            (
                f"one client, {name}",
                f"{figure}; {whole['p50']:.0f} ms in all, p99 {whole['p99']:.0f} ms",
                "p50 under 10 ms",
            )
        )
    for kind, name in KINDS.items():
        one = throughput[kind]
        share, slope = one["share_of_predict"]["of_both"], "{slope_mb_a_minute:+.0f} ± {slope_error:.0f}"
        figure = f"{one['server_images_a_second']:.0f} images a second, {share:.0%} of `predict`'s on the same files"
        answered = f"{one['records']['answered']} answered, {_recorded(one['faults'])}"
        memory = f"memory {slope.format(**one['memory'])} MB a minute"
        rows.append(
            (
                f"{one['clients']} clients for {one['seconds'] / 60:.0f} minutes, {name}",
                f"{figure}; {answered}; {memory}",
                "90 %, each recorded once, flat",
            )
        )
    refused = {status: count for status, count in overload["statuses"].items() if status != "200"}
    p99, queue = overload["accepted_ms"]["p99"] / 1e3, overload["queue_over_capacity_ms"] / 1e3
    again, usual = overload["seconds_to_first_accepted"], overload["seconds_to_normal"]
    rows.append(
        (
            f"{overload['times_capacity']:.0f} times what it can do, {overload['seconds']:.0f} s",
            f"{overload['statuses']['200']} answered, {_listed(refused)}; p99 of the answered {p99:.1f} s (a full queue is worth "
            f"{queue:.1f} s); then accepts after {again:.1f} s, as fast as usual after {usual:.1f} s",
            "only 503 beyond the queue",
        )
    )
    sound, models = kill["integrity"].count("ok"), kill["models"].count("whole")
    rows.append(
        (
            f"SIGKILL under load, {kill['rounds']} times",
            f"{kill['records']['answered']} answered, {_recorded(kill['faults'])}; database whole {sound} times, model file "
            f"{models} times; {len(kill['left_behind'])} files left behind",
            "all recorded, nothing half-written",
        )
    )
    images, requests, schema = fuzz["images"], fuzz["requests"], fuzz["schema"]
    wrong = len(images["wrong"]) + len(requests["wrong"]) + (schema["exit_status"] != 0)
    elsewhere = len(fuzz["afterwards"]["files_with_the_mark"])
    rows.append(
        (
            f"{images['sent']} malformed images, {requests['sent']} hostile requests, {schema['cases']} from the API's schema",
            f"{wrong} wrong answers, {fuzz['tracebacks_in_the_log']} tracebacks, {elsewhere} files elsewhere; slowest image "
            f"{images['ms']['max']:.0f} ms",
            "no 500, crash, hang or file",
        )
    )
    return rows


def conditions(found: dict[str, Any]) -> str:
    """What the table was measured on, a sentence."""
    where = found["throughput"]["environment"]
    return (
        f"{where['cpus']} cores of {where['cpu']}, which the load generator shares; torch {where['torch']}; SA-PatchCore with "
        "the built-in backbone, learned from 100 made screws; SQLite on disk, tokens on, connections kept open."
    )


def _recorded(faults: dict[str, int]) -> str:
    return _listed(faults) if faults else "each recorded once"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} × {name.replace('_', ' ')}" for name, count in counts.items()) or "none refused"
