"""Image files: whatever Pillow reads, 8 and 16 bit, gray as one channel, sizes made equal; and PNG out."""

import functools
import io
import math
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files.progress import progress_bar

Fit = Literal["resize", "pad", "crop"]
_Mode = Literal["linear", "nearest"]

HIGHEST_PIXEL = {torch.uint8: 255, torch.uint16: 65535}
"""The pixel types there are, and the highest value of each."""

# Left out: what Pillow only writes or only recognizes, and EPS, for which it starts another program (Ghostscript).
_LEFT_OUT = frozenset({"PDF", "MPEG", "EPS", "WMF", "BUFR", "GRIB", "HDF5"})

_SLICE = 256
"""Images that stand in memory as floats at once while a whole data set is converted."""


@functools.cache
def _readers() -> tuple[frozenset[str], tuple[str, ...]]:
    """The suffixes and formats that Pillow reads. Asked for late: to answer, it imports all of its forty readers."""
    suffixes = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name not in _LEFT_OUT)
    return suffixes, tuple(name for name in Image.OPEN if name not in _LEFT_OUT)


def is_image_file(path: Path) -> bool:
    """Whether Pillow has a reader for this file name (hidden files are none of ours)."""
    return path.suffix.lower() in _readers()[0] and not path.name.startswith(".")


SCANS = {
    ".dcm": "pydicom", ".dicom": "pydicom", ".ima": "pydicom",
    ".nii": "nibabel", ".nii.gz": "nibabel", ".mgz": "nibabel",
    ".mha": "SimpleITK", ".mhd": "SimpleITK", ".nrrd": "SimpleITK",
}  # fmt: skip
"""Files of scanners and of those who work with scans, by suffix, and the library that opens them."""


def is_scan(path: Path) -> bool:
    """Whether the file is a scan by its name: none that is read here."""
    return _scan_suffix(path) is not None


def _scan_suffix(path: Path) -> str | None:
    return next((suffix for suffix in SCANS if path.name.lower().endswith(suffix)), None)


def describe_scans(paths: Sequence[Path]) -> str:
    """How many scans there are, and what opens them, in words for a message."""
    suffixes = sorted({suffix for path in paths if (suffix := _scan_suffix(path)) is not None})
    libraries = sorted({SCANS[suffix] for suffix in suffixes})
    count = "a file" if len(paths) == 1 else f"{len(paths)} files"
    return (
        f"{count} of scans ({', '.join(suffixes)}, such as {paths[0].name}), which {' and '.join(libraries)} opens: "
        "genmix patches cuts patches from scans with masks; of others, save the slices as PNG or .npz, in 8 bits after "
        "a window or in 16"
    )


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file, from its header alone.

    Raises:
        InputError: the file is no image; the message names it.
    """
    with open_image(path) as image:
        return image.height, image.width


def read_image(path: Path) -> Tensor:
    """Read one image file.

    Returns:
        ``(C, H, W)``, uint8, or uint16 for 16-bit gray files; C is 1 for gray files and 3 for color ones
        (a palette is resolved).

    Raises:
        InputError: the file is missing, corrupt or no image, has several images in it (slices, frames), or pixels that
            are transparent; the message names it.
    """
    with open_image(path) as image:
        _refuse_several(image, path)
        image.load()
        _refuse_transparent(image, path)
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM", "TIFF")):
            pixels = np.asarray(image)
            if pixels.min() < 0 or pixels.max() > 65535:
                raise InputError(f"{path}: pixel values {pixels.min()} to {pixels.max()} do not fit 16 bits")
            pixels = pixels.astype(np.uint16)
        elif image.mode in ("1", "L", "LA", "La"):
            pixels = np.asarray(image.convert("L"))
        elif image.mode in ("I", "F"):
            raise InputError(
                f"{path}: {image.mode!r} images (32-bit) have no fixed range: save them as 8- or 16-bit first"
            )
        else:
            pixels = np.asarray(image.convert("RGB"))
    tensor = torch.from_numpy(pixels.copy())
    return tensor.unsqueeze(0) if tensor.ndim == 2 else tensor.permute(2, 0, 1).contiguous()


def _refuse_several(image: Image.Image, path: Path) -> None:
    """A stack of slices or frames would give its first and lose the others. A photograph's previews are no frames."""
    count = getattr(image, "n_frames", 1)
    if count > 1 and image.format != "MPO":
        raise InputError(
            f"{path}: {count} images in one file (slices or frames), and a patch is one: save each as a file of its "
            "own, and list them in a .csv with a column group that says which belong together"
        )


def _refuse_transparent(image: Image.Image, path: Path) -> None:
    """What lies under transparent pixels is whatever a program has left there."""
    has_alpha = {"A", "a"} & set(image.getbands()) or "transparency" in image.info
    if has_alpha and np.asarray(image.convert("RGBA").getchannel("A")).min() < 255:
        raise InputError(
            f"{path}: transparent pixels, and nobody says what shines through them: save the image without "
            "transparency, on the background that is meant"
        )


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file; whatever is wrong with it becomes one error that names it."""
    try:
        with Image.open(path, formats=_readers()[1]) as image:
            yield image
    except InputError:
        raise
    except FileNotFoundError as error:
        raise MissingPathError(f"{path}: no such image file") from error
    except UnidentifiedImageError as error:
        if is_scan(path):
            raise InputError(f"{path}: {describe_scans([path])}") from error
        raise InputError(f"{path}: not a readable image (of no known format); repair or remove it") from error
    except Exception as error:  # each of Pillow's many parsers trips over damage in a way of its own
        raise InputError(f"{path}: not a readable image ({error}); repair or remove it") from error


def read_images(
    paths: Sequence[Path],
    *,
    size: int | None = None,
    fit: Fit = "resize",
    channels: int | None = None,
    when_read: Callable[[Tensor], object] | None = None,
) -> Tensor:
    """Read many image files into one tensor.

    Args:
        paths: the files.
        size: side of the square patches in pixels; None keeps the files' size, which must then be one and the same.
        fit: how a size is reached, see :func:`fit_images`.
        channels: 1 for gray, 3 for color; None: gray when every file is gray, else color.
        when_read: called with each image ``(C, H, W)`` as its file has it, in the order of ``paths``.

    Returns:
        ``(N, C, H, W)``, uint8 or uint16.

    Raises:
        InputError: no files, a missing or corrupt one, files of different sizes without ``size``, or of different
            bit depths.
    """
    if not paths:
        raise InputError("no image files to read")
    if size is None:  # from the headers: found before the first image is decoded
        height, width = image_size(paths[0])
        for path in paths[1:]:
            if (found := image_size(path)) != (height, width):
                raise InputError(
                    f"images of different sizes: {paths[0]} is {height}x{width}, {path} is "
                    f"{found[0]}x{found[1]}; give a size to bring them to (--size 64)"
                )
    return stack_images(paths, len(paths), size=size, fit=fit, channels=channels, when_read=when_read)


def stack_images(
    paths: Iterable[Path],
    count: int,
    *,
    size: int | None,
    fit: Fit,
    channels: int | None,
    when_read: Callable[[Tensor], object] | None = None,
) -> Tensor:
    """Stack ``count`` image files as :func:`read_images` does, opening each when its turn has come."""
    images: list[Tensor] = []
    for path in progress_bar(paths, total=count, desc="reading images", unit="img", disable=count < 200):
        image = read_image(path)
        if when_read is not None:
            when_read(image)
        image = image if channels is None else to_channels(image, channels)
        if not images:
            first, (height, width) = path, image.shape[1:]
        if images and image.dtype != images[0].dtype:
            eight, sixteen = (first, path) if image.dtype == torch.uint16 else (path, first)
            raise InputError(
                f"{path}: 8-bit and 16-bit images together ({eight}, {sixteen}): bring them to one depth first"
            )
        if size is None and image.shape[1:] != (height, width):
            raise InputError(
                f"{path}: images of different sizes: the first is {height}x{width}, this one "
                f"{image.shape[1]}x{image.shape[2]}; give a size to bring them to (size=64)"
            )
        # Each is brought to size as it comes: the images at their own size never stand in memory together.
        images.append(image if size is None else fit_images(image.unsqueeze(0), size, fit=fit).squeeze(0))
    most = max(image.shape[0] for image in images)
    return torch.stack([to_channels(image, channels or most) for image in images])


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Bring integer images to 1 or 3 channels (gray by the luma weights of ITU-R 601).

    Args:
        images: ``(C, H, W)``, ``(N, C, H, W)``, or volumes ``(N, C, D, H, W)``.
        channels: 1 for gray, 3 for color.

    Raises:
        InputError: another number of channels, here or there.
    """
    if channels not in (1, 3):
        raise InputError(f"channels must be 1 (grey) or 3 (colour), got {channels}")
    present = images.shape[1 if images.ndim == 5 else -3]
    if present == channels:
        return images
    if images.ndim == 5:  # the slices of a volume beneath each other are an image
        slices = to_channels(images.flatten(2, 3), channels)
        return slices.reshape(*slices.shape[:2], *images.shape[2:])
    if present == 1:
        return images.expand(*images.shape[:-3], 3, *images.shape[-2:]).clone()
    if present != 3:
        raise InputError(f"images with {present} channels cannot be brought to {channels}")
    if images.ndim == 4 and len(images) > _SLICE:
        return torch.cat([to_channels(part, channels) for part in images.split(_SLICE)])
    luma = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(3, 1, 1)
    return (images.float() * luma).sum(dim=-3, keepdim=True).round().to(images.dtype)


def fit_images(images: Tensor, size: int, *, fit: Fit = "resize") -> Tensor:
    """Bring integer images ``(N, C, H, W)`` to ``(N, C, size, size)``, dtype kept; volumes to cubes.

    Args:
        images: uint8 or uint16, ``(N, C, H, W)`` or ``(N, C, D, H, W)``.
        size: side of the result in pixels.
        fit: ``"resize"``: bilinear (of volumes trilinear) with antialiasing, the aspect changes if the images are not
            square; ``"crop"``: the largest central square, then resized; ``"pad"``: scaled down so that the longer side
            fits, if it does not, then zeros around (small images are never enlarged).

    Raises:
        InputError: another ``fit``.
    """
    return _fitted(images, size, fit=fit, mode="linear")


def fit_masks(masks: Tensor, size: int, *, fit: Fit = "resize") -> Tensor:
    """Bring masks to the size of their images, as :func:`fit_images` does.

    Masks are uint8 ``(N, H, W)`` and become ``(N, size, size)``; of volumes ``(N, D, H, W)`` they become cubes.
    Each pixel takes the value of the nearest one, so that values stay class numbers; ``"pad"`` puts class 0 around.

    Raises:
        InputError: another ``fit``.
    """
    return _fitted(masks.unsqueeze(1), size, fit=fit, mode="nearest").squeeze(1)


def _fitted(images: Tensor, size: int, *, fit: Fit, mode: _Mode) -> Tensor:
    if fit not in get_args(Fit):
        raise InputError(f"fit must be 'resize', 'pad' or 'crop', got {fit!r}")
    sides = tuple(images.shape[2:])
    whole = (size,) * len(sides)
    if sides == whole:
        return images
    if fit == "crop":
        side = min(sides)
        for axis, length in enumerate(sides):
            images = images.narrow(2 + axis, (length - side) // 2, side)
        return _resize(images, whole, mode)
    if fit == "pad":
        scale = min(1.0, size / max(sides))
        sides = tuple(max(1, round(length * scale)) for length in sides)
        images = _resize(images, sides, mode)
        margins = [((size - length) // 2, size - length - (size - length) // 2) for length in reversed(sides)]
        return F.pad(images, [margin for pair in margins for margin in pair])
    return _resize(images, whole, mode)


def describe_fit(sizes: Collection[tuple[int, ...]], size: int, *, fit: Fit = "resize") -> str:
    """What :func:`fit_images` does to images of these ``(height, width)``, in words for a note; "" for nothing.

    Of volumes the sizes are ``(depth, height, width)``.
    """
    found = sorted(set(sizes), key=lambda shape: (math.prod(shape), shape))
    if all(length == size for shape in found for length in shape):
        return ""
    linear = "bilinear" if len(found[0]) == 2 else "trilinear"
    done = {"resize": f"resized ({linear}, antialiased)", "crop": "cropped and resized"}.get(fit, "padded with zeros")
    if fit == "pad" and any(max(shape) > size for shape in found):
        alike = all(len(set(shape)) == 1 and shape[0] >= size for shape in found)
        done = "scaled down" if alike else "scaled down where larger, padded with zeros"
    several = f"{len(found)} sizes from {_by(found[0])} to " if len(found) > 1 else ""
    return f"{several}{_by(found[-1])} pixels {done} to {_by((size,) * len(found[-1]))}"


def _by(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


def _resize(images: Tensor, size: tuple[int, ...], mode: _Mode) -> Tensor:
    if tuple(images.shape[2:]) == size:
        return images
    # In slices, so that a large data set never stands in memory as floats all at once.
    change = _interpolated if mode == "linear" else _nearest
    resized = (change(part.float(), size) for part in images.split(_SLICE))
    return torch.cat([part.round().to(images.dtype) for part in resized])


def _interpolated(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Linear along each axis, antialiased; what PyTorch has for two axes serves the third in a second pass."""
    if len(size) == 3:
        depth, height, width = size
        slices = _interpolated(values.flatten(1, 2), (height, width))
        columns = slices.reshape(*values.shape[:3], height * width)
        return _interpolated(columns, (depth, height * width)).reshape(*values.shape[:2], *size)
    return F.interpolate(values, size, mode="bilinear", antialias=True)


def _nearest(values: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(values, size, mode="nearest-exact")


def class_folders(folder: Path) -> dict[str, list[Path]]:
    """The image files of a folder of class folders: ``{class name: sorted files}``, classes sorted by name.

    Raises:
        InputError: no such folder, no class folders, or no images in any of them (in some: a warning names those).
    """
    if not folder.exists():
        raise MissingPathError(f"{folder}: no such folder")
    subfolders = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not subfolders:
        raise InputError(f"{folder}: expected one folder of images a class, found no folders in it")
    files = {
        entry.name: sorted(path for path in entry.rglob("*") if is_image_file(path) and path.is_file())
        for entry in subfolders
    }
    scans = [path for entry in subfolders for path in sorted(entry.rglob("*")) if is_scan(path)]
    empty = [name for name, paths in files.items() if not paths]
    if len(empty) == len(files):
        found = f"; there is {describe_scans(scans)}" if scans else ""
        raise InputError(f"{folder}: no image files in {', '.join(empty)}{found}")
    if scans:
        warnings.warn(f"{folder}: left out: {describe_scans(scans)}", stacklevel=2)
    if empty:
        warnings.warn(f"{folder}: no images in {', '.join(empty)}: left out", stacklevel=2)
    return {name: paths for name, paths in files.items() if paths}


def to_picture(image: Tensor) -> Image.Image:
    """Convert an image ``(C, H, W)`` to Pillow's kind: color if C is 3, else its first channel as gray."""
    pixels = image.permute(1, 2, 0).contiguous() if image.shape[0] == 3 else image[0]
    return Image.fromarray(pixels.numpy())


def encode_png(picture: Image.Image) -> bytes:
    """Encode a picture as the content of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
