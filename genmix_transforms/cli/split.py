"""``genmix split``: who trains, who validates, who tests, decided once and kept in a file."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from genmix_transforms.cli.options import GroupKey, Official, comma_separated, describe_parts
from genmix_transforms.errors import InputError

READ_AT = 32
"""Side in pixels at which the patches are held here: near-duplicates are looked for, and files may be of any size."""


class SplitWay(StrEnum):
    """What a split goes by."""

    GROUP = "group"
    DATE = "date"


def split(
    data: Annotated[
        str,
        typer.Argument(
            help="Real patches: a folder of class folders, an .npz, a .csv (path,label[,split][,group]), or the word "
            "phantom."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The file to write (.csv); with --folds, a name with {fold}, for one file per fold.")
    ],
    seed: Annotated[int, typer.Option(help="A different seed gives a different split.")] = 0,
    fractions: Annotated[
        str, typer.Option(help="Shares of train, validation and test; they sum to 1.")
    ] = "0.5,0.25,0.25",
    group_key: GroupKey = None,
    official: Official = True,
    by: Annotated[
        SplitWay,
        typer.Option(help="group: whole groups, stratified; date: the earliest patches train, the latest test."),
    ] = SplitWay.GROUP,
    allow_leaks: Annotated[
        bool,
        typer.Option("--allow-leaks", help="Write the source's own split even if it divides patients or scans."),
    ] = False,
    folds: Annotated[
        int | None, typer.Option(help="Cross-validate with this many splits; every patch is tested in one of them.")
    ] = None,
    validation: Annotated[
        float, typer.Option(help="With --folds: share of the images not tested in a fold that is used for validation.")
    ] = 0.25,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
) -> None:
    """Split the data into train, validation and test, and keep the split in a file for --split of every other command.

    Groups (patients) never part, and each part has the class proportions of the whole. Patients, scans, copies and
    near-duplicates that lie in more than one part are counted; a split that parts patients or scans is refused. The
    file is a table with a line for each patch; it may be edited in a spreadsheet. It holds the names of your files: do
    not publish it.
    """
    from genmix_transforms.data import MultiLabelPatches, open_dataset
    from genmix_transforms.data.leaks import find_leaks
    from genmix_transforms.data.patches import describe_counts
    from genmix_transforms.data.split_file import check_split_path, fold_path
    from genmix_transforms.data.splitting import check_folds, check_split

    shares = _numbers(fractions)
    check_split(seed=seed, fractions=shares)
    if folds is not None:
        check_folds(folds, seed=seed, validation=validation)
        if by is SplitWay.DATE:
            raise InputError("--folds are by group; leave --by date out")
    check_split_path(out, folds=folds, overwrite=overwrite)
    patches = open_dataset(data, size=READ_AT, group_key=group_key)
    typer.echo(f"{patches.name}: {len(patches)} patches ({describe_counts(patches.class_counts)})")
    for note in patches.notes:
        if f"{READ_AT}x{READ_AT}" not in note:  # how they are held here is nobody's concern
            typer.echo(f"  {note}")
    if folds is None:
        placed = patches.assigned(seed=seed, fractions=shares, official=official, by=by.value)
        leaks = find_leaks(placed)
        if (leaks.groups or leaks.series) and not allow_leaks:
            raise InputError(
                f"{patches.name}: a split that leaks: {'; '.join(leaks.sentences)}: whoever is trained on would be "
                "tested on. --no-official makes a new split without leaks; --allow-leaks writes this one anyway"
            )
    patches.save_split(
        out,
        by=by.value,
        seed=seed,
        fractions=shares,
        official=official,
        folds=folds,
        validation=validation,
        overwrite=overwrite,
    )
    for fold in range(folds or 1):
        file = out if folds is None else fold_path(out, fold)
        written = patches.with_split(file)
        assert written.official is not None
        typer.echo(f"{file}: {describe_parts(written.split())}")
        for sentence in find_leaks(written).sentences:
            typer.echo(f"  {sentence}: scores may be too high")
    if folds is None and official and patches.official is not None and by is SplitWay.GROUP:
        typer.echo("  as the source is split; --no-official splits anew")
    first = out if folds is None else fold_path(out, 0)
    command = shlex.join(["genmix", "train", "dcgan", "--data", data, "--split", str(first), "--out", "runs/dcgan"])
    if isinstance(patches, MultiLabelPatches):  # generators need one label an image
        command += " --unlabelled"
    typer.echo(f"give it to every command that reads the data, such as:\n  {command}")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in comma_separated(text)]
    except ValueError:
        raise InputError(f"--fractions: expected numbers, such as 0.5,0.25,0.25, got {text!r}") from None
