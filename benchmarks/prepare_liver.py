"""Make a file like ``liver_ct_256.npz`` from the published archive of liver CT: slices with a mask of the liver.

    pip install nibabel
    python benchmarks/prepare_liver.py Task03_Liver.tar --out liver_ct_256.npz

The archive is task 3 of the Medical Segmentation Decathlon (Antonelli et al., arXiv 2106.05735; CC BY-SA 4.0), which is
the training part of LiTS (Bilic et al., arXiv 1901.04056): a tar with ``imagesTr/liver_0.nii.gz`` and
``labelsTr/liver_0.nii.gz``, where 1 is liver and 2 is tumor.

Of each patient some slices that show liver are drawn at random, seeded. The file has ``images`` uint8
``(N, 256, 256)``, Hounsfield units clipped to 0..255; ``liver_mask`` uint8 ``(N, 256, 32)``, packed by
``np.packbits(mask, axis=-1)``, liver and tumor; ``patient`` int32 ``(N,)``, the number of the volume; and ``slice``
int32 ``(N,)``, counted from the feet. The patient's right is at the left of an image, the front at its top.

The results of this repository were computed with other slices of the same volumes (623, of 122 patients): your numbers
will be near ours, and not the same.
"""

import argparse
import gzip
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from genmix_transforms.errors import InputError
from genmix_transforms.files.arrays import write_npz

SIDE = 256
LOWEST, HIGHEST = 0, 255
"""Hounsfield units."""

_VOLUME = re.compile(r"(?:.*/)?imagesTr/liver_(?P<number>\d+)\.nii\.gz")


def read_volumes(path: Path) -> Iterator[tuple[int, NDArray[Any], NDArray[np.bool_]]]:
    """Each volume of the archive: its number, its Hounsfield units and its mask of the liver, by number.

    Args:
        path: the tar.

    Yields:
        The number; ``(H, W, slices)``, and bool of that shape: rows from front to back, columns from the patient's
        right to the left, slices from the feet to the head.

    Raises:
        InputError: no tar, one without volumes, or a volume without labels of its shape.
    """
    try:
        archive = tarfile.open(path)  # noqa: SIM115
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path}: cannot be read as a tar; give the archive as it was published") from error
    with archive:
        members = {member.name: member for member in archive.getmembers() if member.isfile()}
        images = sorted((int(match["number"]), match[0]) for match in map(_VOLUME.fullmatch, members) if match)
        if not images:
            raise InputError(f"{path}: no volumes; expected files such as Task03_Liver/imagesTr/liver_0.nii.gz")
        for number, name in images:
            labels = name.replace("imagesTr", "labelsTr")
            if labels not in members:
                raise InputError(f"{path}: {name} has no {labels}")
            units, classes = (_upright(_content(archive, members[each])) for each in (name, labels))
            if units.shape != classes.shape:
                raise InputError(f"{path}: {name} is of shape {units.shape}, its labels of {classes.shape}")
            yield number, units, classes > 0


def draw_slices(mask: NDArray[np.bool_], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Some of the slices that show liver, ascending; all of them where there are fewer.

    Args:
        mask: ``(H, W, slices)``.
        count: how many.
        generator: that draws.

    Example:
        >>> mask = np.zeros((2, 2, 9), dtype=bool)
        >>> mask[0, 0, 3:5] = True
        >>> draw_slices(mask, 5, np.random.default_rng(0)).tolist()
        [3, 4]
    """
    shown = np.flatnonzero(mask.any(axis=(0, 1)))
    return np.sort(generator.choice(shown, size=min(count, len(shown)), replace=False))


def to_side(values: NDArray[Any]) -> NDArray[np.float32]:
    """Slices ``(n, H, W)`` as ``(n, 256, 256)``: means over the area of each new pixel."""
    resized = interpolate(torch.from_numpy(values.astype(np.float32))[:, None], size=(SIDE, SIDE), mode="area")
    return resized[:, 0].numpy()


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None  # members are files
    return gzip.decompress(file.read())


def _upright(content: bytes) -> NDArray[Any]:
    """A NIfTI volume, turned as :func:`read_volumes` says."""
    try:
        import nibabel
    except ImportError as error:
        raise InputError("prepare_liver.py needs nibabel: pip install nibabel") from error
    image = nibabel.Nifti1Image.from_bytes(content)
    # Towards the right, the front and the head, whatever the file has; then as a radiologist looks at it.
    turned = nibabel.orientations.apply_orientation(
        np.asanyarray(image.dataobj), nibabel.orientations.io_orientation(image.affine)
    )
    return turned[::-1, ::-1].transpose(1, 0, 2)


def main() -> None:
    """Read the archive, write the file, and say what is in it."""
    parser = argparse.ArgumentParser(description="Make a file like liver_ct_256.npz from the published archive.")
    parser.add_argument("archive", type=Path, help="Task03_Liver.tar, as it was published")
    parser.add_argument("--out", type=Path, default=Path("liver_ct_256.npz"), help="the .npz to write")
    parser.add_argument("--slices", type=int, default=5, help="of each patient")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of slices")
    options = parser.parse_args()
    if options.slices < 1:
        raise InputError(f"--slices must be at least 1, got {options.slices}")
    generator = np.random.default_rng(options.seed)
    images, masks, patients, numbers = [], [], [], []
    for patient, units, mask in read_volumes(options.archive):
        chosen = draw_slices(mask, options.slices, generator)
        if not len(chosen):
            print(f"volume {patient} shows no liver and is left out")
            continue
        shown = to_side(units[:, :, chosen].transpose(2, 0, 1).clip(LOWEST, HIGHEST))
        images.append(np.rint(shown).astype(np.uint8))
        masks.append(np.packbits(to_side(mask[:, :, chosen].transpose(2, 0, 1)) >= 0.5, axis=-1))
        patients += [patient] * len(chosen)
        numbers += chosen.tolist()
    if not images:
        raise InputError(f"{options.archive}: no volume shows any liver")
    arrays = {
        "images": np.concatenate(images),
        "liver_mask": np.concatenate(masks),
        "patient": np.array(patients, dtype=np.int32),
        "slice": np.array(numbers, dtype=np.int32),
    }
    write_npz(options.out, arrays)
    print(f"{options.out}: {len(patients)} slices of {len(images)} patients")


if __name__ == "__main__":
    main()
