"""Options that several commands share. Each has the name of the Python argument it becomes."""

import inspect
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genmix_transforms.cli.parameters import declare
from genmix_transforms.errors import InputError, MissingPathError

if TYPE_CHECKING:
    from genmix_transforms.bank import SyntheticBank
    from genmix_transforms.data import PatchDataset

    Parts = tuple[PatchDataset, PatchDataset, PatchDataset]


class Fit(StrEnum):
    """How images reach the size."""

    RESIZE = "resize"
    PAD = "pad"
    CROP = "crop"


DATA_PANEL = "Data"

FOLD = "{fold}"
"""Stands for the number of a fold in the names of split files and banks."""

Data = Annotated[
    str,
    typer.Option(
        help="Real patches: a folder of class folders, an .npz (MedMNIST's, or images/labels/label_names), "
        "a .csv (path,label[,split][,group]), or the word phantom.",
        rich_help_panel=DATA_PANEL,
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Side of the square patches (of volumes: cubes) in pixels. Default: the size of the source.",
        rich_help_panel=DATA_PANEL,
    ),
]
FitOption = Annotated[
    Fit,
    typer.Option(
        help="How images are resized: resize (bilinear, antialiased), pad with zeros, or crop the middle and resize.",
        rich_help_panel=DATA_PANEL,
    ),
]
Channels = Annotated[
    int | None,
    typer.Option(help="1 for gray, 3 for color. Default: as in the source.", rich_help_panel=DATA_PANEL),
]
GroupKey = Annotated[
    str | None,
    typer.Option(
        help="Array or column that says which patches belong together (a patient); a split never divides them. "
        "Default: search for the usual names.",
        rich_help_panel=DATA_PANEL,
    ),
]
WindowText = Annotated[
    str | None,
    typer.Option(
        "--window",
        help="For CT in 16 bits: LEVEL,WIDTH in Hounsfield units of the window that shows it in 8 bits, such as "
        "40,400. Default: the values do not change.",
        rich_help_panel=DATA_PANEL,
    ),
]
HuOfZero = Annotated[
    float | None,
    typer.Option(
        help="With --window: Hounsfield units of a stored 0. Default: as recorded in the data, else -1024.",
        rich_help_panel=DATA_PANEL,
    ),
]
SplitFile = Annotated[
    Path | None,
    typer.Option(
        "--split",
        help="The split into train, validation and test: a CSV written by genmix split, or one with the columns "
        "path and split. Pass the same file to every command.",
        rich_help_panel=DATA_PANEL,
    ),
]
SplitSeed = Annotated[
    int | None,
    typer.Option(
        help="Without --split: seed of a new split, if the source has none. Default: 0.",
        rich_help_panel=DATA_PANEL,
    ),
]
Official = Annotated[
    bool,
    typer.Option(
        "--official/--no-official",
        help="Keep the source's own split, if it has one.",
        rich_help_panel=DATA_PANEL,
    ),
]
AllData = Annotated[
    bool,
    typer.Option(
        "--all-data",
        help="Train on all patches; only if none of them will ever be used for testing.",
        rich_help_panel=DATA_PANEL,
    ),
]
Unlabelled = Annotated[
    bool,
    typer.Option(
        "--unlabelled",
        help="Read the images without their labels, as one class: a pool. A folder may hold only images; an .npz or "
        ".csv may lack labels. All images are used, unless there is a split.",
        rich_help_panel=DATA_PANEL,
    ),
]
Pretrain = Annotated[
    str | None,
    typer.Option(
        help="Unlabeled images (anything that --data takes; labels are ignored) to train on first, in "
        "OUT/pretrain; then fine-tune on the data. If the pool is split, only its training part is used.",
        rich_help_panel=DATA_PANEL,
    ),
]
PretrainSteps = Annotated[
    int | None,
    typer.Option(
        min=1, help="Optimizer steps on the pool. Default: from the first preset.", rich_help_panel=DATA_PANEL
    ),
]
Pool = Annotated[
    str | None,
    typer.Option(
        help="Unlabeled images that the generator was pre-trained on (anything that --data takes): copies of these are "
        "looked for too.",
        rich_help_panel=DATA_PANEL,
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the weights, the order of the images and the noise.")]
Restart = Annotated[bool, typer.Option("--restart", help="Delete an earlier run in this folder.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... Default: CUDA if available.")]
Out = Annotated[Path, typer.Option(help="The folder to write.")]


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How a command reads the data and splits it: an option for each field (see :func:`takes_data_options`).

    Raises:
        MissingPathError: no such split file.
        InputError: options that exclude each other.
    """

    size: Size = None
    fit: FitOption = Fit.RESIZE
    channels: Channels = None
    group_key: GroupKey = None
    split: SplitFile = None
    split_seed: SplitSeed = None
    official: Official = True
    window: WindowText = None
    hu_of_zero: HuOfZero = None

    def __post_init__(self) -> None:
        parse_window(self.window)
        if self.split is None:
            return
        if self.split_seed is not None or not self.official:
            raise InputError("--split says who is in which part; leave --split-seed and --no-official out")
        if FOLD not in str(self.split) and not self.split.is_file():
            raise MissingPathError(f"--split {self.split}: no such file; genmix split DATA --out split.csv makes one")

    def open(self, data: str, *, labelled: bool = True) -> "PatchDataset":
        """Open the data, and say what was found and done."""
        from genmix_transforms.data import open_dataset

        patches = open_dataset(
            data,
            size=self.size,
            fit=self.fit.value,
            channels=self.channels,
            group_key=self.group_key,
            labelled=labelled,
            window=parse_window(self.window),
            hu_of_zero=self.hu_of_zero,
        )
        typer.echo(str(patches))
        for note in patches.notes:
            typer.echo(f"  {note}")
        return patches

    def split_patches(self, patches: "PatchDataset") -> "Parts":
        """Split the data, and say how."""
        if self.split is not None:
            patches, how = patches.with_split(self.split), f"split as {self.split} says"
        elif self.official and patches.official is not None:
            how = "as the source is split"
        else:
            how = f"split with seed {self.split_seed or 0}" + ("" if patches.groups is None else ", by group")
        parts = patches.split(seed=self.split_seed or 0, official=self.official)
        typer.echo(f"  {how}: {describe_parts(parts)}")
        return parts

    def fold_patches(self, patches: "PatchDataset", folds: int) -> "tuple[Parts, ...]":
        """Split the data into folds, and say how."""
        if self.split is None:
            found = patches.folds(folds, seed=self.split_seed or 0)
            how = f"{folds} folds with seed {self.split_seed or 0}{'' if patches.groups is None else ', by group'}"
        elif FOLD not in str(self.split):
            raise InputError(
                f"--split {self.split}: each of {folds} folds has its own file; write {FOLD} for its number"
            )
        else:
            files = [str(self.split).replace(FOLD, str(fold)) for fold in range(folds)]
            found = tuple(patches.with_split(file).split() for file in files)
            how = f"{folds} folds as {self.split} says"
        typer.echo(f"  {how}")
        for number, parts in enumerate(found):
            typer.echo(f"  fold {number}: {describe_parts(parts)}")
        return found

    def open_training_set(self, data: str, *, all_data: bool, painter: str) -> "PatchDataset":
        """What a generator is trained on: the training part, or all; ``painter`` says who needs squares."""
        return self.open_parts(data, all_data=all_data, painter=painter)[0]

    def open_parts(
        self, data: str, *, all_data: bool, painter: str, labelled: bool = True, volumes: bool = False
    ) -> "tuple[PatchDataset, dict[str, PatchDataset]]":
        """What a generator is trained on, as :meth:`open_training_set`, and by name the parts that it must not see.

        ``volumes`` says whether it draws volumes.
        """
        if all_data and self.split is not None:
            raise InputError("--all-data trains on every patch; leave --split out")
        from genmix_transforms.generators.arguments import shape_of

        train = self.open(data, labelled=labelled)
        held_out = {}
        if not (all_data or (not labelled and self._is_whole(train))):
            train, val, test = self.split_patches(train)
            held_out = {"val": val, "test": test}
        shape_of(train, painter=painter, volumes=volumes)  # refuses what is not square
        return train, held_out

    def open_pool(self, data: str) -> "PatchDataset":
        """What a generator is pre-trained on: all of a pool, or its training part if it comes split."""
        pool = replace(self, group_key=None).open(data, labelled=False)
        if pool.official is None:
            return pool
        pool = pool.split()[0]
        typer.echo(f"  its training part: {len(pool)}")
        return pool

    def _is_whole(self, patches: "PatchDataset") -> bool:
        """Whether nobody asked for a split of unlabeled patches, and the source has none."""
        return self.split is None and self.split_seed is None and not (self.official and patches.official is not None)


def takes_data_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every field of the :class:`DataOptions` that it takes as ``options``.

    Example:
        >>> @takes_data_options
        ... def command(data: str, options: DataOptions) -> None:
        ...     print(data, options.size)
        >>> command(data="phantom", size=64)
        phantom 64
    """
    own = [parameter for name, parameter in inspect.signature(function).parameters.items() if name != "options"]
    made = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(DataOptions)
    ]

    def command(**given: Any) -> None:
        picked = {parameter.name: given.pop(parameter.name) for parameter in made if parameter.name in given}
        function(**given, options=DataOptions(**picked))

    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + made
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    return declare(command, parameters)


def describe_parts(parts: "Parts") -> str:
    """How many patches are in each part, in words."""
    from genmix_transforms.data.patches import describe_counts

    train, val, test = parts
    return f"{len(train)} to train ({describe_counts(train.class_counts)}), {len(val)} to validate, {len(test)} to test"


Share = Annotated[
    str | None,
    typer.Option(
        help="RANK/COUNT: draw every COUNT-th shard from number RANK on; 0/1: all of them. Default: as torchrun, "
        "accelerate launch or Slurm number the processes."
    ),
]


def parse_share(text: str | None) -> tuple[int, int] | None:
    """``1/4`` as ``(1, 4)``."""
    if text is None:
        return None
    rank, slash, count = text.partition("/")
    if not (slash and rank.isdecimal() and count.isdecimal()):
        raise InputError(f"--share: expected RANK/COUNT, such as 0/1 for all shards, got {text!r}")
    return int(rank), int(count)


def parse_window(text: str | None) -> tuple[float, float] | None:
    """``40,400`` as ``(40.0, 400.0)``."""
    if text is None:
        return None
    from genmix_transforms.data.windowing import check_level_width

    try:
        return check_level_width(comma_separated(text))
    except InputError as error:
        raise InputError(f"--window: {error}") from error


def comma_separated(text: str | None) -> list[str]:
    """``a, b`` as ``["a", "b"]``."""
    return [part.strip() for part in text.split(",") if part.strip()] if text else []


def propose_fill(out: Path) -> None:
    """Say that a generator is trained, and how a bank is filled with it."""
    command = shlex.join(["genmix", "fill", str(out), "--out", f"banks/{out.name}"])
    typer.echo(f"{out}: trained; fill a bank with it:\n  {command}")


def show_bank(out: Path, bank: "SyntheticBank") -> None:
    """Say what a new bank holds, and how to look at it."""
    command = shlex.join(["genmix", "bank", "sheet", str(out), "--out", f"{out.name}.png"])
    typer.echo(f"{out}: {bank.extra_repr()}\n  look at it: {command}")
