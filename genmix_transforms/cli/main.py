"""The entry point: the commands together, what is said of errors, and the exit code (0 done, 1 failed, 2 wrong use)."""

import logging
import sys
import traceback
import warnings
from typing import Annotated

import typer

from genmix_transforms.cli import bank, convert, demo, evaluate, fill, split, styles, train
from genmix_transforms.cli.command import Command
from genmix_transforms.errors import InputError
from genmix_transforms.files.progress import show_progress_bars

app = typer.Typer(
    name="genmix",
    help="Train generators on real patches, fill banks of synthetic ones, and measure what mixing them in does.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("split")(split.split)
app.add_typer(train.app, name="train")
app.command("fill", cls=Command)(fill.fill)
app.add_typer(bank.app, name="bank")
app.command("evaluate")(evaluate.evaluate)
app.add_typer(convert.app, name="convert")
app.add_typer(styles.app, name="styles")
app.command("demo")(demo.demo)


_SWITCHES = {"-v", "--verbose", "-q", "--quiet"}
_CTRL_C = 130


def _version(value: bool) -> None:
    if value:
        from genmix_transforms import __version__

        typer.echo(f"genmix {__version__}")
        raise typer.Exit


@app.callback()
def settings(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more; show the traceback of an error.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bars and notes; results and warnings only.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before every command."""
    context.obj = not quiet
    show_progress_bars(not quiet)
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("genmix_transforms").setLevel(level)


def main() -> None:
    """Run ``genmix``. Ends the process with 0 (done), 1 (failed), 2 (wrong use) or 130 (Ctrl-C)."""
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)  # noqa: T201
    # Both switches work after the command too, where most people type them.
    switches = [word for word in sys.argv[1:] if word in _SWITCHES]
    words = [word for word in sys.argv[1:] if word not in _SWITCHES]
    verbose = bool({"-v", "--verbose"} & set(switches))
    try:
        app([*switches, *words], prog_name="genmix")
    except SystemExit as end:
        if end.code == _CTRL_C:
            typer.echo("genmix: stopped; run the same command again to go on", err=True)
        raise
    except Exception as error:
        if verbose:
            traceback.print_exc()
        # A mistake of the user's and the state of their files: one sentence. Anything else is ours: its type helps too.
        known = isinstance(error, (InputError, RuntimeError, FloatingPointError, OSError))
        typer.echo(
            f"genmix: {error}" if known else f"genmix: {type(error).__name__}: {error} (-v shows where)", err=True
        )
        sys.exit(2 if isinstance(error, InputError) else 1)


if __name__ == "__main__":
    main()
