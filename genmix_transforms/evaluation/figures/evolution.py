"""How the images of fixed seeds change while a generator is trained, for print: the paper's Fig. 2."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
from torch import Tensor

from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError
from genmix_transforms.evaluation.figures import style
from genmix_transforms.files.sheet import as_pictures, to_eight_bits
from genmix_transforms.generators.evolution import Evolution
from genmix_transforms.generators.state import INDEX, read_record, unpack

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TRAINING = "training"
# Millimeters
_MARGIN, _GAP, _CLASS_GAP, _HEADING, _LARGEST = 20.0, 0.6, 2.0, 9.0, 22.0
_LETTERS = 8.0
"""Of the classes' names, in points."""


def evolution_figure(run: str | Path) -> "Figure":
    """The images of fixed seeds before, during and after a training, rows by class, columns by the images seen.

    The same images as in the run's ``evolution.png``, taken from its last checkpoint, with their own pixels.

    Args:
        run: the folder that ``ADM.fit(..., out=run)`` or ``genmix train adm`` has filled.

    Returns:
        A figure of matplotlib, at most as wide as a page, see :func:`save_figure`.

    Raises:
        MissingPathError: no such folder, or no training's state in it.
        InputError: a training that kept no such images.
        CorruptFileError: a checkpoint that cannot be read.
        MissingExtraError: matplotlib is not installed.

    Source: Lee, Lee, Hong (arXiv 2405.20650), Fig. 2.

    Example:
        >>> figure = evolution_figure("runs/busi")  # doctest: +SKIP
        >>> save_figure(figure, "evolution.pdf")  # doctest: +SKIP
    """
    evolution, batch_size = read_evolution(Path(run))
    columns, classes = len(evolution.images_seen), evolution.classes
    rows = evolution.rows()
    margin = max(_MARGIN, max(style.text_width(name, size=_LETTERS, weight="bold") for name in classes) + 4)
    side = min(_LARGEST, (style.WIDTH - margin - columns * _GAP) / columns)
    with style.house_style():
        width = margin + columns * (side + _GAP)
        height = _HEADING + len(rows) * (side + _GAP) + (len(classes) - 1) * _CLASS_GAP + 0.5
        figure = style.new_figure(height=height, width=width, layout="none")
        axes = figure.add_axes((0, 0, 1, 1))
        style.bare(axes)
        for column, seen in enumerate(evolution.images_seen):
            heading = f"{seen:,} images\n{seen // batch_size:,} steps" if seen else "before"
            middle = margin + column * (side + _GAP) + side / 2
            axes.text(middle, _HEADING - 1.2, heading, ha="center", va="bottom", size=6.5, linespacing=1.15)
        y, last = _HEADING, None
        for name, images in rows:
            if name != last:
                y += _CLASS_GAP if last is not None else 0
                block = sum(other == name for other, _ in rows) * (side + _GAP) - _GAP
                axes.text(margin - 2, y + block / 2, name, ha="right", va="center", size=_LETTERS, weight="bold")
                last = name
            for column, image in enumerate(images):
                left = margin + column * (side + _GAP)
                style.show_patch(axes, to_eight_bits(as_pictures(image[None])[0]), left=left, top=y, side=side)
            y += side + _GAP
        axes.set(xlim=(0, width), ylim=(height, 0))
        return style.finished(figure)


def read_evolution(run: Path) -> tuple[Evolution, int]:
    """The images that a run's last checkpoint holds for the figure, and how many images a step sees.

    Raises:
        MissingPathError, InputError, CorruptFileError: see :func:`evolution_figure`.
    """
    record = read_record(run / _TRAINING)
    if record is None:
        raise MissingPathError(
            f"{run}: no state of a training ({_TRAINING}/{INDEX}); give the folder of a training run"
        )
    outline = dict(record.get("outline", {}).get("dict", []))
    if "evolution" not in outline:
        raise InputError(f"{run}: this training kept no images of fixed seeds; that of an ADM does")
    file = run / _TRAINING / Path(record["file"]).name
    try:
        with safetensors.safe_open(file, framework="pt") as tensors:
            # A checkpoint may hold gigabytes of weights: only the images are read.
            state = unpack(outline["evolution"], _Stored(tensors))
    except (OSError, safetensors.SafetensorError) as error:
        raise CorruptFileError(f"{file}: cannot be read ({error})") from error
    evolution = Evolution(record["options"]["classes"], batch_size=int(record["batch_size"]))
    evolution.load_state_dict(state)
    if not evolution.images_seen:
        raise InputError(f"{run}: the training has kept no images yet; wait for its first sample sheet")
    return evolution, evolution.batch_size


class _Stored(Mapping[str, Tensor]):
    """The tensors of an open file by name, each read when it is asked for."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.keys())

    def __len__(self) -> int:
        return len(self._file.keys())
