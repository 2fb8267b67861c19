"""Banks in: images that somebody keeps in the format of Hugging Face's datasets library."""

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from genmix_transforms.bank.synthetic_bank import SyntheticBank
from genmix_transforms.errors import InputError, MissingExtraError, MissingPathError
from genmix_transforms.files.images import Fit, is_image_file, stack_images


def from_datasets(
    folder: str | Path,
    *,
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    size: int | None = None,
    fit: Fit = "resize",
    channels: int | None = None,
) -> SyntheticBank:
    """A bank from a local folder that the datasets library reads. Nothing is downloaded, and no code in it is run.

    Args:
        folder: that ``save_to_disk`` wrote (a Dataset or a DatasetDict); or of Parquet files, at any depth; or of
            images in class folders, or with a ``metadata.csv``, as the library's ``imagefolder`` has them.
        split: which, where there are several.
        image_column: of the images; None: the only column whose feature is an Image.
        label_column: of the labels; None: the only ClassLabel. When it is named, a column of texts or of whole numbers
            is taken too (the classes are then those that occur, sorted), and one of lists of probabilities (the
            classes are then those of the only ClassLabel, if they are as many, else numbers).
        size: side of the square patches in pixels; None keeps the images' size, which must be one and the same.
        fit: "resize", "pad" or "crop", see :func:`genmix_transforms.files.images.fit_images`.
        channels: 1 for gray, 3 for color; None: gray when every image is gray, else color.

    Returns:
        The bank; its classes are the ClassLabel's names in their order, those that no image has included.

    Raises:
        InputError: no such folder, none that the library reads, no such split or column or several of them, a corrupt
            or missing image, images without a label, of different sizes (without ``size``) or bit depths.
        MissingExtraError: the datasets library is not installed.

    Example:
        >>> from genmix_transforms.bank.exporting import export_parquet
        >>> images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
        >>> bank = SyntheticBank(images, torch.tensor([1, 0, 1, 0, 1, 1]), classes=["cyst", "metastasis"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_parquet(bank, folder, seed=None)
        ...     again = from_datasets(folder)
        >>> torch.equal(again.images, bank.images)
        True
    """
    library = _library()
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingPathError(f"{folder}: no such folder")
    with tempfile.TemporaryDirectory(prefix="genmix-") as cache:  # the library's own would keep a copy for ever
        data = _one_split(folder, _opened(library, folder, cache), split).with_format(None)
        image_column = _column(folder, data, image_column, library.Image, "images (an Image feature)", "image_column")
        if not isinstance(data.features[image_column], library.Image):
            raise InputError(f"{folder}: column {image_column!r} holds no images; the columns are {_listed(data)}")
        label_column = _column(folder, data, label_column, library.ClassLabel, "labels (a ClassLabel)", "label_column")
        labels, classes = _labels(library, folder, data, label_column)
        # Not decoded there: the library would open whatever a path in the data names, in whatever format it has.
        encoded = data.select_columns([image_column]).cast_column(image_column, library.Image(decode=False))
        files = (_source(folder, image_column, row, record[image_column]) for row, record in enumerate(encoded))
        images = stack_images(files, len(encoded), size=size, fit=fit, channels=channels)
    facts = {"split": str(data.split) if data.split is not None else None, "license": data.info.license}
    provenance = {"source": "Hugging Face dataset", **{name: value for name, value in facts.items() if value}}
    return SyntheticBank(images, labels, classes=classes, provenance=provenance)


def _library() -> Any:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise MissingExtraError(
            "from_datasets needs the datasets library: install it with pip install 'genmix-transforms[datasets]'"
        ) from error


def _opened(library: Any, folder: Path, cache: str) -> Any:
    """The folder as a Dataset, or a mapping of splits to such."""
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            _refuse_other_folders(folder)
            return library.load_from_disk(str(folder), keep_in_memory=False)
        kind, name = _kind(folder)
        # Not load_dataset, which tells the hub's counter of downloads, and takes some files for settings of its own.
        make_builder = getattr(import_module(f"datasets.packaged_modules.{kind}.{kind}"), name)
        builder = make_builder(cache_dir=cache, data_files=_files_by_split(library, folder, kind))
        builder.download_and_prepare()
        return builder.as_dataset()
    except InputError:
        raise
    except Exception as error:  # the library, pyarrow and pandas each have errors of their own for damage
        raise InputError(f"{folder}: the datasets library cannot read it ({type(error).__name__}: {error})") from error


def _refuse_other_folders(folder: Path) -> None:
    """``state.json`` names the Arrow files: they must be those beside it."""
    for state in folder.rglob("state.json"):
        for entry in json.loads(state.read_text(encoding="utf-8"))["_data_files"]:
            if Path(entry["filename"]).name != entry["filename"]:
                raise InputError(f"{state}: names a file outside its folder ({entry['filename']}); it is not read")


def _kind(folder: Path) -> tuple[str, str]:
    """Tell which of the library's builders reads the folder: its module and its class."""
    files = [path for path in folder.rglob("*") if path.is_file() and not _hidden(path, folder)]
    if any(path.suffix == ".parquet" and path.stem != "metadata" for path in files):
        return "parquet", "Parquet"
    if any(is_image_file(path) for path in files):
        return "imagefolder", "ImageFolder"
    found = sorted(path.relative_to(folder).as_posix() for path in files)
    raise InputError(
        f"{folder}: expected a folder that save_to_disk wrote (dataset_info.json and state.json), Parquet files or "
        f"images; found {', '.join(found[:5]) or 'no files'}{', ...' if len(found) > 5 else ''}"
    )


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)


def _files_by_split(library: Any, folder: Path, kind: str) -> dict[str, list[str]]:
    """The folder's data files by split, as the library tells splits apart by the names of files and folders."""
    base = str(folder.resolve())
    by_split = {}
    for split, patterns in library.data_files.get_data_patterns(base).items():
        files = library.data_files.DataFilesList.from_patterns(patterns, base_path=base)
        by_split[str(split)] = [file for file in files if kind != "parquet" or file.endswith(".parquet")]
    return {split: files for split, files in by_split.items() if files}


def _one_split(folder: Path, data: Any, split: str | None) -> Any:
    splits = data if isinstance(data, Mapping) else {str(data.split or "train"): data}
    if split is None and len(splits) > 1:
        raise InputError(f"{folder}: has the splits {', '.join(splits)}; say which (split={next(iter(splits))!r})")
    if split is not None and split not in splits:
        raise InputError(f"{folder}: no split {split!r}; it has {', '.join(splits)}")
    chosen = next(iter(splits.values())) if split is None else splits[split]
    if not len(chosen):
        raise InputError(f"{folder}: no rows in it")
    return chosen


def _listed(data: Any) -> str:
    """The columns and what they are, for errors."""
    return ", ".join(
        f"{name} ({type(feature).__name__}{f' {feature.dtype}' if hasattr(feature, 'pa_type') else ''})"
        for name, feature in data.features.items()
    )


def _column(folder: Path, data: Any, name: str | None, feature: type, wanted: str, argument: str) -> str:
    """Check that there is the column that was named; without a name find the only one of this feature."""
    if name is None:
        names: list[str] = [name for name, kind in data.features.items() if isinstance(kind, feature)]
        if len(names) != 1:
            found = f"has several: {', '.join(names)}" if names else f"has none; its columns are {_listed(data)}"
            raise InputError(f"{folder}: expected one column of {wanted}, {found}; name it with {argument}=")
        return names[0]
    if name not in data.features:
        raise InputError(f"{folder}: no column {name!r} ({argument}); its columns are {_listed(data)}")
    return name


def _labels(library: Any, folder: Path, data: Any, name: str) -> tuple[Tensor, Sequence[str]]:
    """Read labels, int64 ``(N,)`` or float32 ``(N, K)``, and the class names."""
    values = data.with_format("arrow").select_columns([name])[:][name].to_pylist()
    missing = [row for row, value in enumerate(values) if value is None or value == -1]
    if missing:
        raise InputError(
            f"{folder}: column {name!r}: {len(missing)} rows without a label, the first is row {missing[0]}"
        )
    if isinstance(data.features[name], library.ClassLabel):
        return torch.tensor(values, dtype=torch.int64), data.features[name].names
    if isinstance(values[0], list):
        return _probabilities(library, folder, data, name, values)
    if not isinstance(values[0], str | int) or isinstance(values[0], bool):
        raise InputError(
            f"{folder}: column {name!r} holds no labels: expected a ClassLabel, texts, whole numbers or lists of "
            f"probabilities; the columns are {_listed(data)}"
        )
    present = sorted(set(values))
    index = {value: number for number, value in enumerate(present)}
    return torch.tensor([index[value] for value in values]), [str(value) for value in present]


def _probabilities(
    library: Any, folder: Path, data: Any, name: str, values: list[list[Any]]
) -> tuple[Tensor, Sequence[str]]:
    lengths = {len(row) for row in values}
    numbers = all(isinstance(value, int | float) for row in values for value in row)
    if len(lengths) != 1 or not numbers:
        raise InputError(
            f"{folder}: column {name!r}: expected as many probabilities in each row, "
            + (f"got rows of {', '.join(map(str, sorted(lengths)))}" if numbers else f"got {str(values[0])[:80]}")
        )
    labels = torch.from_numpy(np.array(values, dtype=np.float32))
    named = [kind.names for kind in data.features.values() if isinstance(kind, library.ClassLabel)]
    if len(named) == 1 and len(named[0]) == labels.shape[1]:
        return labels, named[0]
    return labels, [str(column) for column in range(labels.shape[1])]


class _Encoded(io.BytesIO):
    """An image file in memory, which says in errors where it comes from."""

    name = ""
    """Of no file: no suffix tells what it is."""

    def __init__(self, content: bytes, place: str) -> None:
        super().__init__(content)
        self.place = place

    def __str__(self) -> str:
        return self.place


def _source(folder: Path, column: str, row: int, value: Mapping[str, Any] | None) -> Path:
    """Find where to read an image from: its bytes, or a file in the folder."""
    place = f"{folder}: column {column!r}, row {row}"
    if value is None or (value["bytes"] is None and not value["path"]):
        raise InputError(f"{place}: no image; leave such rows out")
    if value["bytes"] is not None:
        return cast(Path, _Encoded(value["bytes"], place))  # Pillow opens either
    path = Path(value["path"])
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{place}: the image is not in the folder but at {value['path']}, which is not read")
    return path
