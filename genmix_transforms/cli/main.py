"""The entry point: the commands together, each loaded when it is used; what is said of errors; the exit code."""

import logging
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from genmix_transforms.cli.late import LateCommand
from genmix_transforms.errors import InputError, MissingExtraError, Terminated

COMMANDS = {
    "split": ("split:split", "Split the data into train, validation and test, and keep the split in a file."),
    "patches": (
        "patches:patches",
        "Cut patches around the lesions of CT and MR scans: DICOM series and NIfTI volumes with masks.",
    ),
    "train": ("train:app", "Train a generator on the training part of real patches."),
    "fill": ("fill:fill", "Fill a bank with a generator's images."),
    "bank": ("bank:app", "Inspect, check, merge and export banks of synthetic images."),
    "audit": ("audit:audit", "Report what is in a bank: copies, quality, labels, and a verdict."),
    "review": (
        "review:review",
        "Serve a page on this machine on which an expert accepts and rejects a bank's patches.",
    ),
    "evaluate": ("evaluate:evaluate", "Train classifiers with and without synthetic images, and compare them."),
    "pretrain-classifier": (
        "pretrain_classifier:pretrain_classifier",
        "Pre-train the small classifier on unlabeled images.",
    ),
    "convert": ("convert:app", "Convert published weights to a generator folder."),
    "styles": ("styles:app", "Inspect the styles of a StyleGAN."),
    "demo": ("demo:demo", "Do all of it on the lesion phantom: train, fill, mix, compare."),
}
"""Name, place in this package (a function, or a Typer with commands of its own), and what the help says of it."""

CTRL_C, TERMINATED = 130, 143
"""Exit codes, 128 and the signal's number, as shells give them."""

_SWITCHES = {"-v", "--verbose", "-q", "--quiet"}


class _Commands(TyperGroup):
    """All commands, none of them loaded."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: LateCommand(name, place, help) for name, (place, help) in COMMANDS.items()}


app: typer.Typer = typer.Typer(
    name="genmix",
    cls=_Commands,
    help="Train generators on real patches, fill banks of synthetic ones, and measure the effect of mixing them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        from genmix_transforms import __version__

        typer.echo(f"genmix {__version__}")
        raise typer.Exit


@app.callback()
def settings(
    context: typer.Context,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print more; show the traceback of an error.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bars and notes, only results and warnings.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before every command."""
    from genmix_transforms.files.progress import show_progress_bars

    context.obj = not quiet
    show_progress_bars(not quiet)
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("genmix_transforms").setLevel(level)


def main() -> None:
    """Run ``genmix``. Ends the process with 0 (done), 1 (failed), 2 (wrong use), 130 (Ctrl-C) or 143 (SIGTERM)."""
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)  # noqa: T201
    # Both switches work after the command too, where most people type them.
    switches = [word for word in sys.argv[1:] if word in _SWITCHES]
    words = [word for word in sys.argv[1:] if word not in _SWITCHES]
    verbose = bool({"-v", "--verbose"} & set(switches))
    try:
        with _listening():
            app([*switches, *words], prog_name="genmix")
    except SystemExit as end:
        if end.code != CTRL_C:
            raise
        typer.echo("genmix: stopped; run the same command again to go on", err=True)
        sys.exit(TERMINATED if _was_terminated(end) else CTRL_C)
    except Exception as error:
        if verbose:
            traceback.print_exc()
        typer.echo(f"genmix: {_sentence(error)}", err=True)
        sys.exit(2 if isinstance(error, InputError) else 1)


@contextmanager
def _listening() -> Iterator[None]:
    """Hear SIGTERM as Ctrl-C is heard, and Ctrl-C too where a script's ``&`` has it ignored."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, terminate)}
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _was_terminated(error: BaseException | None) -> bool:
    """Whether a SIGTERM is behind an exit: typer makes one and the same of it and of Ctrl-C."""
    while error is not None and not isinstance(error, Terminated):
        error = error.__cause__ or error.__context__
    return error is not None


def _sentence(error: Exception) -> str:
    """What a user is told: of a mistake or of the state of files, one sentence; of a bug of ours its type too."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, InputError | MissingExtraError | RuntimeError | FloatingPointError | OSError):
        return str(error)
    return f"{type(error).__name__}: {error} (-v shows where)"


if __name__ == "__main__":
    main()
