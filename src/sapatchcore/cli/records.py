"""Inspection records: watching a folder, and listing, exporting and pruning what was recorded."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sapatchcore.cli.options import (
    AnyModel,
    Device,
    FalseReject,
    Json,
    Quiet,
    WeightsFile,
    promised_rate,
    warn,
)
from sapatchcore.errors import ModelFileError, SAPatchCoreError, SettingsError, install
from sapatchcore.open_model import open_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sapatchcore.records.record import Filter, NewRecord, ReceivedImage, Record
    from sapatchcore.records.records import Records

app = typer.Typer(no_args_is_help=True, help="List, export and prune inspection records.")

_WHERE = "Where the records are: a SQLite file, or postgresql://user@host/database."
Where = Annotated[str, typer.Argument(help=_WHERE, envvar="SAPATCHCORE_RECORDS")]
ModelName = Annotated[str | None, typer.Option("--model", help="Only this model's.")]
VerdictOption = Annotated[str | None, typer.Option("--verdict", help="accept or reject.")]
Kind = Annotated[str | None, typer.Option(help="local, co-occurrence or unclear; both, of earlier versions.")]
FeedbackOption = Annotated[str | None, typer.Option("--feedback", help="good, defect, or none for those without.")]
Since = Annotated[
    str | None, typer.Option(help="From this time on: 2026-03-01, or 2026-03-01T06:00. Local time, or with +00:00.")
]
Until = Annotated[str | None, typer.Option(help="Before this time.")]
FileName = Annotated[str | None, typer.Option(help="Only this file name; * stands for any characters.")]


def watch(
    model: AnyModel,
    folder: Annotated[Path, typer.Argument(help="The folder in which images appear.")],
    records: Annotated[str, typer.Option(help=f"{_WHERE} Made where missing.", envvar="SAPATCHCORE_RECORDS")],
    false_reject: FalseReject = None,
    keep_images: Annotated[str, typer.Option(help="Images kept with their records: none, rejected or all.")] = "none",
    once: Annotated[bool, typer.Option("--once", help="Inspect what is there, then stop.")] = False,
    device: Device = "auto",
    weights: WeightsFile = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object a line, one line an image.")] = False,
    quiet: Quiet = False,
) -> None:
    """Inspect images as they appear in a folder, once each, and record every inspection; Ctrl-C stops."""
    from sapatchcore.score.calibration import NO_CALIBRATION

    try:
        from sapatchcore.records.record import check_keep, records_of
        from sapatchcore.records.watch import check_folder, stop_on_signals
        from sapatchcore.records.watch import watch as watch_folder
        from sapatchcore.server.served import file_hash
    except ImportError as error:
        raise _missing(error) from None
    check_keep(keep_images)
    check_folder(folder)
    with _open(records, make=True) as kept, stop_on_signals() as stop:
        digest = file_hash(model)[0] if model.is_file() else ""
        detector = open_model(model, device=device, precision=None, batch_size=None, workers=None, weights=weights)
        if file_hash(model)[0] != digest:
            raise ModelFileError(f"{model} changed while it was read. Start again.")
        rate = None
        if detector.is_calibrated or false_reject is not None:
            rate = promised_rate(false_reject, len(detector.calibration), quiet=quiet)
        elif not quiet:
            warn(f"No verdicts. {NO_CALIBRATION}")

        def inspect(images: Sequence[ReceivedImage]) -> list[NewRecord]:
            result = detector.predict([image.pixels for image in images])
            for image, notes in zip(images, result.notes, strict=True):
                for note in notes:
                    warn(_printable(f"{folder / image.file_name}: {note}"))
            return records_of(
                result,
                None if rate is None else result.verdicts(rate),
                images,
                model=model.stem,
                model_hash=digest,
                false_reject=rate,
                keep=keep_images,
                source="watch",
            )

        def say(record: Record) -> None:
            path = str(folder / record.file_name)
            if json_output:
                typer.echo(json.dumps({"path": path, **record.to_dict()}))
                return
            p = "–" if record.p_value is None else f"{record.p_value:.4f}"
            parts = (record.score, record.local, record.context, record.global_score)
            numbers = (f"{value:.6g}" for value in parts if value is not None)
            typer.echo("\t".join((_word(record), p, *numbers, record.kind or "–", _printable(path))))

        def failed(name: str, reason: str) -> None:
            if json_output:
                typer.echo(json.dumps({"path": str(folder / name), "error": reason}))
            else:
                warn(_printable(reason))

        if not json_output:
            whole = () if detector.settings.global_part == "none" else ("global",)
            typer.echo("\t".join(("verdict", "p", "score", "local", "context", *whole, "kind", "path")))
        watch_folder(folder, inspect, kept, stop=stop, once=once, recorded=say, failed=failed, warn=warn)


@app.command("list")
def list_records(
    where: Where,
    model: ModelName = None,
    verdict: VerdictOption = None,
    kind: Kind = None,
    feedback: FeedbackOption = None,
    since: Since = None,
    until: Until = None,
    file_name: FileName = None,
    before: Annotated[int | None, typer.Option(help="Only records with a smaller number.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 100,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object a line, one line a record.")] = False,
) -> None:
    """Print records, the newest first."""
    with _open(where) as records:
        asked = _filter(model, verdict, kind, feedback, since, until, file_name, before, limit)
        found = records.find(asked)
    if not json_output:
        typer.echo("record\ttime\tmodel\tverdict\tp\tscore\tkind\tfeedback\tfile")
    for record in found:
        if json_output:
            typer.echo(json.dumps(record.to_dict()))
            continue
        p = "–" if record.p_value is None else f"{record.p_value:.4f}"
        when = record.time.astimezone().isoformat(sep=" ", timespec="seconds")
        texts = (record.kind or "–", record.feedback or "–", _printable(record.file_name))
        row = (str(record.number), when, _printable(record.model), _word(record), p, f"{record.score:.6g}", *texts)
        typer.echo("\t".join(row))


@app.command()
def export(
    where: Where,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write: .csv or .parquet.")],
    model: ModelName = None,
    verdict: VerdictOption = None,
    kind: Kind = None,
    feedback: FeedbackOption = None,
    since: Since = None,
    until: Until = None,
    file_name: FileName = None,
    json_output: Json = False,
) -> None:
    """Write all records that match as CSV or Parquet, the oldest first."""
    suffix = output.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise SettingsError(f"The file must end in .csv or .parquet. Got {output.name!r}.")
    with _open(where) as records:
        write = records.write_csv if suffix == ".csv" else records.write_parquet
        count = write(output, _filter(model, verdict, kind, feedback, since, until, file_name))
    summary = {"file": str(output), "records": count, "bytes": output.stat().st_size}
    typer.echo(
        json.dumps(summary) if json_output else f"{output}: {count} records, {output.stat().st_size / 1e6:.1f} MB."
    )


@app.command()
def prune(
    where: Where,
    older_than: Annotated[str | None, typer.Option(help="Delete records older than this: 30d, 12h, 90m or 2w.")] = None,
    max_size: Annotated[
        str | None,
        typer.Option(help="Then images, then records, the oldest first, until all take no more: 5GB, 500MB."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Delete old records; images that an operator called good go after all other images."""
    if older_than is None and max_size is None:
        raise SettingsError("Say what is to go: --older-than 30d, --max-size 5GB, or both.")
    with _open(where) as records:
        from sapatchcore.records.retention import as_age, as_bytes

        age = None if older_than is None else as_age(older_than)
        most = None if max_size is None else as_bytes(max_size)
        gone = records.prune(older_than=age, max_bytes=most)
    summary = {"records": gone.records, "images": gone.images, "good_images": gone.good_images, "bytes": gone.bytes}
    called = f" ({gone.good_images} of them called good)" if gone.good_images else ""
    typer.echo(
        json.dumps(summary)
        if json_output
        else f"Deleted {gone.records} records and {gone.images} images{called}; {gone.bytes / 1e6:.1f} MB are left."
    )


@app.command()
def errors(
    where: Where,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 100,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print the files of watched folders that could not be inspected, the newest first."""
    from sapatchcore.records.record import as_text

    with _open(where) as records:
        found = records.watch_errors(limit)
    for one in found:
        path = str(Path(one.folder) / one.name)
        summary = {"time": as_text(one.time), "path": path, "error": one.reason}
        when = one.time.astimezone().isoformat(sep=" ", timespec="seconds")
        typer.echo(json.dumps(summary) if json_output else "\t".join((when, _printable(path), _printable(one.reason))))


def _open(where: str, *, make: bool = False) -> Records:
    try:
        from sapatchcore.records.records import Records
    except ImportError as error:
        raise _missing(error) from None
    return Records(where, make=make)


def _missing(error: ImportError) -> SAPatchCoreError:
    return SAPatchCoreError(f"Records need packages that are not installed ({error}): {install('serve')}")


def _filter(
    model: str | None,
    verdict: str | None,
    kind: str | None,
    feedback: str | None,
    since: str | None,
    until: str | None,
    file_name: str | None,
    before: int | None = None,
    limit: int = 100,
) -> Filter:
    from sapatchcore.records.record import Filter

    times = _time(since), _time(until)
    return Filter(model, verdict, kind, feedback, *times, file_name, before=before, limit=limit)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise SettingsError(f"A time must be written as 2026-03-01 or 2026-03-01T06:00. Got {text!r}.") from None


def _word(record: Record) -> str:
    return {"reject": "REJECT", "accept": "accept"}.get(record.verdict or "", "–")


def _printable(text: str) -> str:
    """Without characters that steer a terminal or break a line."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
