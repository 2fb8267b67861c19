"""``genmix review``: a page on which an expert accepts and rejects a bank's images, or tells them from real ones."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from genmix_transforms.cli.options import DATA_PANEL, DataOptions, takes_data_options
from genmix_transforms.errors import InputError, Terminated


@takes_data_options
def review(
    context: typer.Context,
    bank: Annotated[Path, typer.Argument(help="The bank's folder.")],
    options: DataOptions,
    blind: Annotated[
        bool,
        typer.Option("--blind", help="A visual Turing test with real and synthetic patches."),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            help="With --blind: the real patches; a folder of class folders, an .npz, a .csv, or the word phantom.",
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=2, help="With --blind: patches to show, half of them real.")] = 100,
    seed: Annotated[int, typer.Option(help="With --blind: a different seed shows different patches.")] = 0,
    reviewer: Annotated[
        str, typer.Option(help="Name to record with decisions. With --blind, each reviewer has a separate test.")
    ] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0: any free port.")] = 0,
) -> None:
    """Serve a page on this machine on which an expert accepts and rejects a bank's patches.

    Use the keyboard or the mouse; Ctrl-C ends it. A rejected patch is marked in the bank at once, for bank info, select
    --without-flags rejected and everything that opens the bank. Run it again to continue at the first open patch.
    """
    if blind and data is None:
        raise InputError("--blind mixes real patches in: give them with --data")
    if data is not None and not blind:
        raise InputError("--data is for --blind, which mixes real patches in; leave it out, or add --blind")
    from genmix_transforms.evaluation.audit.review.desk import BankDesk, Desk, open_to_show
    from genmix_transforms.evaluation.audit.review.serving import ReviewServer

    desk: Desk
    if data is None:
        desk = BankDesk(bank, reviewer=reviewer)
    else:
        from genmix_transforms.evaluation.audit.review.blind import BlindDesk

        shape = open_to_show(bank.absolute()).image_shape
        options = replace(options, size=options.size or shape[-1], channels=options.channels or shape[0])
        desk = BlindDesk(bank, options.open(data), images=images, seed=seed, reviewer=reviewer)
    ended: KeyboardInterrupt | None = None
    with ReviewServer(desk, port=port) as server:
        typer.echo(f"{desk.summary()}\nopen this in a browser on this machine; Ctrl-C ends it:\n  {server.url}")
        try:
            server.wait()
        except KeyboardInterrupt as error:
            ended = error
    typer.echo(f"\n{desk.summary()}")
    if blind is False:
        command = shlex.join(
            ["genmix", "bank", "select", str(bank), "--without-flags", "rejected", "--out", f"{bank}-kept"]
        )
        typer.echo(f"without the rejected ones:\n  {command}")
    if isinstance(ended, Terminated):
        raise ended
