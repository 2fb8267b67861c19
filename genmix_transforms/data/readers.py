"""Read patches from class folders, ``.npz`` files, CSV manifests or the phantom, with or without labels."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

from genmix_transforms.data.archives import read_archive
from genmix_transforms.data.findings import describe_range
from genmix_transforms.data.image_files import read_class_folders, read_manifest, read_unlabelled_folder
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.data.windowing import check_level_width
from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files.checks import whole_number
from genmix_transforms.files.images import Fit, describe_scans, is_scan

MIN_SIZE = 8
"""The smallest patch side, in pixels."""

MAX_SIZE = 4096
"""The largest patch side, in pixels: four times that of the largest generator."""

_READABLE = (
    "read are a folder of class folders, a MedMNIST or plain .npz, a .csv with the columns path and label, "
    "or a column of 0 and 1 for each class, and the word phantom"
)


def open_dataset(
    path: str | Path,
    *,
    size: int | None = None,
    fit: Fit = "resize",
    channels: int | None = None,
    group_key: str | None = None,
    labelled: bool = True,
    window: tuple[float, float] | None = None,
    hu_of_zero: float | None = None,
    masks: bool = False,
) -> PatchDataset:
    """Read patches into memory.

    ``path`` may be:

    - a folder with one folder of image files per class (any format Pillow reads, 8 and 16 bit; gray stays one channel);
      or a folder of such folders named train, val (valid, validation) and test, whose split is then kept;
    - a MedMNIST ``.npz`` (``train_images``, ``train_labels``, ...), whose split is kept;
    - a plain ``.npz``: ``images`` ``(N, H, W)`` or ``(N, H, W, C)``, or volumes ``(N, D, H, W)`` or
      ``(N, D, H, W, C)``, uint8 or uint16, C at most 7; ``labels`` ``(N,)`` or ``(N, 1)``, class numbers or class
      names, or ``(N, K)`` of 0 and 1, several per image; optionally ``label_names``, ``split`` (names or 0, 1, 2) and
      groups;
    - a ``.csv`` with a header: columns ``path`` (relative to the CSV's folder) and ``label`` (a class name), or instead
      of ``label`` a column of 0 and 1 for each class, several per image; optionally ``split`` and groups;
    - the word ``phantom``: :class:`genmix_transforms.data.LesionPhantom`, which needs no file.

    To read images without labels, as a pool to pre-train a generator on, pass ``labelled=False``: a folder of images,
    nested or not; or an ``.npz`` or ``.csv`` as above, whose labels may be missing and are ignored. All images get one
    class, "unlabelled".

    To read segmentation masks, pass ``masks=True``; each image must then have one. In an ``.npz`` they are the array
    ``masks``, uint8 or bool ``(N, H, W)``, and ``mask_classes`` may name the values. In a ``.csv`` they are files in
    column ``mask``. In a folder that contains ``images`` and ``masks``, the mask has the same path in ``masks``.
    Mask files are gray, palette or 1-bit images of the size of their image, not JPEG. A pixel is a class number; if all
    pixels are 0 or 255, 255 is class 1. For a ``.csv`` or a folder, a ``dataset_info.json`` may list ``mask_classes``.

    Args:
        path: the folder, the file, or ``"phantom"``.
        size: side of the square patches (of volumes: cubes) in pixels, from 8 to 4096; None keeps the size of the
            source.
        fit: how images are resized, see :func:`genmix_transforms.files.images.fit_images`.
        channels: 1 for gray, 3 for color; None: as in the source.
        group_key: array of the ``.npz`` or column of the CSV that holds the groups (a patient, a set of
            near-duplicates); None: the first of :data:`genmix_transforms.data.labelling.GROUP_KEYS` that exists.
        labelled: whether to read labels.
        window: for CT in 16 bits, level and width in Hounsfield units of the window that converts it to 8 bits, such as
            (40, 400), see :meth:`PatchDataset.with_window`; None: the values do not change.
        hu_of_zero: with ``window``, the Hounsfield units of a stored 0; None: as recorded in the source, else -1024.
        masks: whether to read masks; they are resized with their images, without new values.

    Returns:
        The patches: images ``(N, C, H, W)`` or volumes ``(N, C, D, H, W)``, uint8 or uint16; with several labels per
        image, a :class:`~genmix_transforms.data.MultiLabelPatches`. Their notes say what was resized, and where groups
        were found.

    Raises:
        MissingPathError: no such path, or a CSV that lists missing images.
        InputError: data that cannot be used for any other reason: a corrupt image, images of different sizes without
            ``size``, more data than fits into memory, fewer than two classes, an ``.npz`` that contains objects, an
            unknown file type, masks that are missing or of another size than their image, ...

    Example:
        >>> images, labels = np.zeros((4, 16, 16), np.uint8), np.array([0, 0, 1, 1])
        >>> np.savez("patches.npz", images=images, labels=labels, label_names=["cyst", "metastasis"])
        >>> open_dataset("patches.npz", size=32)
        patches.npz: 4 patches, 1 x 32 x 32 (cyst 2, metastasis 2)
        >>> open_dataset("patches.npz", labelled=False).class_counts
        {'unlabelled': 4}
    """
    if size is not None:
        size = whole_number(size, name="size (the side of the patches in pixels)", least=MIN_SIZE, most=MAX_SIZE)
    if fit not in get_args(Fit):
        raise InputError(f"fit must be 'resize', 'pad' or 'crop', got {fit!r}")
    if channels not in (None, 1, 3):
        raise InputError(f"channels must be 1 (gray) or 3 (color), got {channels!r}")
    if window is None and hu_of_zero is not None:
        raise InputError(f"hu_of_zero={hu_of_zero:g} is for a window; give one too, such as window=(40, 400)")
    ends = None if window is None else check_level_width(window)
    patches = _read(path, size=size, fit=fit, channels=channels, group_key=group_key, labelled=labelled, masks=masks)
    if ends is not None:
        return patches.with_window(*ends, hu_of_zero=hu_of_zero)
    return replace(patches, notes=(*patches.notes, *describe_range(patches)))


def _read(
    path: str | Path,
    *,
    size: int | None,
    fit: Fit,
    channels: int | None,
    group_key: str | None,
    labelled: bool,
    masks: bool,
) -> PatchDataset:
    """What :func:`open_dataset` reads, with the values that the source has."""
    word, path = str(path), Path(path)
    if not word or not path.exists():
        if word != "phantom":
            raise MissingPathError(f"{word!r}: no such file or folder; {_READABLE}")
        if group_key is not None:
            raise InputError(f"the phantom brings its own groups; leave group_key out (got {group_key!r})")
        if masks:
            raise InputError("the phantom's patches have no masks; its scans do (LesionPhantom().write_scans)")
        from genmix_transforms.data.phantom import LesionPhantom

        drawn = LesionPhantom(size=size or 64).dataset()
        return _brought_to(drawn if labelled else drawn.without_labels(), size=size, fit=fit, channels=channels)
    if path.is_dir():
        if group_key is not None:
            raise InputError(
                f"{path}: class folders hold no groups (group_key={group_key!r}): list the files in a .csv"
            )
        read_folder = read_class_folders if labelled else read_unlabelled_folder
        return read_folder(path, size=size, fit=fit, channels=channels, masks=masks)
    if is_scan(path):
        raise InputError(f"{path}: {describe_scans([path])}; {_READABLE}")
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return read_manifest(
            path, size=size, fit=fit, channels=channels, group_key=group_key, labelled=labelled, masks=masks
        )
    if suffix == ".npz":
        archive = read_archive(path, group_key, labelled=labelled, masks=masks)
        return _brought_to(archive, size=size, fit=fit, channels=channels)
    raise InputError(f"{path}: files of type {suffix or '(none)'!r} are not read; {_READABLE}")


def _brought_to(patches: PatchDataset, *, size: int | None, fit: Fit, channels: int | None) -> PatchDataset:
    """Patches from memory at the size and channel count that were asked for."""
    if channels == 1:  # before resizing and, below, after it: whichever handles fewer pixels
        patches = patches.with_channels(1)
    if size is not None:
        patches = patches.resized(size, fit=fit)
    return patches if channels is None else patches.with_channels(channels)
