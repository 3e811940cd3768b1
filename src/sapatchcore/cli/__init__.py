"""The command line: parse, call, print. Exit codes: 0 done, 1 the work failed, 2 wrong use."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from sapatchcore import __version__
from sapatchcore.cli import inspect, learn, measure, model, records, serve
from sapatchcore.cli.tune import tune
from sapatchcore.errors import SAPatchCoreError, learn_needed

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__
)
for command in (
    *(learn.fit, tune, learn.update, learn.forget),
    *(inspect.predict, inspect.report, inspect.gif),
    *(measure.evaluate, measure.benchmark),
    *(model.info, model.export),
    *(serve.serve, serve.token),
    records.watch,
):
    app.command()(command)
app.command()(measure.demo)
app.add_typer(measure.synth, name="synth")
app.add_typer(records.app, name="records")


_FLAGS = {"address": "--ray", "csv_file": "--csv"}  # all others are called as the options of the library are


def with_flags(sentence: str) -> str:
    """A library's error names options in backquotes, `batch_size`; here they are flags: --batch-size."""
    return re.sub(r"`([a-z]+(?:_[a-z]+)*)`", lambda one: _FLAGS.get(one[1], f"--{one[1].replace('_', '-')}"), sentence)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> int:
    """Run the command line; what is known to go wrong is one sentence on standard error."""
    try:
        with learn_needed():
            app()
    except SAPatchCoreError as error:
        typer.echo(f"sapatchcore: {with_flags(str(error))}", err=True)
        return error.exit_code
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # PyTorch's, which is not imported for a name
            raise
        typer.echo("sapatchcore: The device has not enough memory for this. Use a smaller --batch-size.", err=True)
        return 1
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        sys.stderr.close()
        return 1
    except MemoryError as error:
        typer.echo(f"sapatchcore: Not enough memory: {error}. Use a smaller --batch-size.", err=True)
        return 1
    except OSError as error:
        typer.echo(f"sapatchcore: {error.filename or 'A file'}: {error.strerror or error}.", err=True)
        return 1
    return 0
