"""``genmix patches``: from scans with masks to a data set of patches."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genmix_transforms.cli.command import DryRun, print_config
from genmix_transforms.cli.parameters import with_settings
from genmix_transforms.data.volumes.settings import PatchSettings

if TYPE_CHECKING:
    from genmix_transforms.data.volumes import Extraction

_SHOWN = 20


@with_settings({"settings": "Patches"}, settings=PatchSettings)
def patches(
    context: typer.Context,
    scans: Annotated[Path, typer.Argument(help="A folder with DICOM series, NIfTI volumes, and their masks.")],
    out: Annotated[Path, typer.Option(help="An .npz, or a folder for PNGs and patches.csv.")],
    settings: dict[str, Any],
    masks: Annotated[Path | None, typer.Option(help="The folder of the masks, if they are separate.")] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="A CSV with a line for each scan: scan, and optionally mask, label, value, patient, date."),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(help="A file with the key of the pseudonyms. Default: the environment variable GENMIX_KEY."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; each holds one scan at a time.")] = 1,
    restart: Annotated[bool, typer.Option("--restart", help="Delete what an unfinished earlier run has left.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Cut patches around the lesions of CT and MR scans: DICOM series and NIfTI volumes with masks.

    Patients and dates are written as keyed hashes, so the output does not identify anyone. Run it again to continue
    where it stopped.
    """
    from genmix_transforms.data.patches import describe_counts
    from genmix_transforms.data.volumes.extracting import extract_patches
    from genmix_transforms.data.volumes.pseudonyms import Pseudonyms, read_key
    from genmix_transforms.data.volumes.scans import find_scans

    options = PatchSettings.of(settings, name="patches")
    key = read_key(key_file)
    Pseudonyms(key)
    if dry_run:
        found = find_scans(scans, masks=masks, table=table)
        typer.echo(f"{len(found)} scans, {sum(scan.mask is not None for scan in found)} of them with a mask")
        print_config(context, resolved=options.to_json())
        return
    done = extract_patches(
        scans,
        out=out,
        key=key,
        masks=masks,
        table=table,
        workers=workers,
        restart=restart,
        overwrite=overwrite,
        **settings,
    )
    for note in done.notes[:_SHOWN]:
        typer.echo(f"  {note}")
    if len(done.notes) > _SHOWN:
        typer.echo(f"  and {len(done.notes) - _SHOWN} notes more")
    if done.faults:
        typer.echo(f"{len(done.faults)} scans gave no patches:")
        for shown, fault in done.faults:
            typer.echo(f"  {shown}: {fault}")
        typer.echo("  mend them and run the same command again: it reads these alone")
    total = sum(done.class_counts.values())
    typer.echo(
        f"{out}: {total} patches ({describe_counts(done.class_counts)}) of {done.scans} scans, {done.patients} patients"
    )
    _propose_next(done, options)


def _propose_next(done: "Extraction", options: PatchSettings) -> None:
    """Say what can be done with the patches."""
    if options.kind == "3d":
        typer.echo("cubes are for your own code: the other commands read patches of 2 dimensions")
        return
    if len(done.class_counts) < 2:
        typer.echo(
            "of one class: tell lesions apart with --labels or --table; or train a generator on all of them with "
            "genmix train dcgan --unlabelled"
        )
        return
    data = done.out if done.out.suffix.lower() == ".npz" else done.out / "patches.csv"
    by_date = ["--by", "date"] if done.dated == done.scans else []
    command = shlex.join(["genmix", "split", str(data), *by_date, "--out", "split.csv"])
    typer.echo(f"split them, {'by date' if by_date else 'by patient'}:\n  {command}")
