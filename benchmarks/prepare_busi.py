"""Make ``busi_128.npz`` from the published archive of BUSI: breast ultrasound, 780 images of three classes.

    python benchmarks/prepare_busi.py Dataset_BUSI.zip --out busi_128.npz

The archive comes with Al-Dhabyani et al., "Dataset of breast ultrasound images" (doi 10.1016/j.dib.2019.104863): a
zip whose folder ``Dataset_BUSI_with_GT`` has ``benign/benign (1).png`` and so on, with masks that are left out here.

BUSI shows some lesions several times. Images that are alike become one group, which no split divides: two images of
``ALIKE_SIDE`` pixels whose correlation is above ``ALIKE`` are alike, and so are images that a chain of such pairs
joins. On the file that the results of this repository were computed with, this finds its 640 groups exactly.

The file has ``images`` uint8 ``(N, 128, 128)``, ``labels`` uint8 ``(N,)``, ``label_names``, ``dup_group`` int32
``(N,)`` and ``files``. Images are squeezed to a square. How they are resampled changes gray values by a few units: a
table made with your file need not have our numbers to the last digit.
"""

import argparse
import io
import re
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from genmix_transforms.errors import InputError
from genmix_transforms.files.arrays import write_npz

LABEL_NAMES = ("normal", "benign", "malignant")
SIDE = 128
PUBLISHED = 780
"""Images in the archive."""

ALIKE_SIDE = 32
ALIKE = 0.98

_IMAGE = re.compile(r"(?:.*/)?(?P<folder>normal|benign|malignant)/(?P=folder) \((?P<number>\d+)\)\.png")


def read_archive(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[str]]:
    """The images, their labels and the names of their files; by class, then by number.

    Args:
        path: the zip.

    Returns:
        uint8 ``(N, 128, 128)``; uint8 ``(N,)``, indices into ``LABEL_NAMES``; and the names.

    Raises:
        InputError: no zip, or one without images of each class.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = sorted(
                (match["folder"], int(match["number"]), match[0])
                for match in map(_IMAGE.fullmatch, archive.namelist())
                if match
            )
            images = [_square(archive.read(name)) for _, _, name in found]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as a zip ({error}); give the archive as it was published") from error
    missing = [name for name in LABEL_NAMES if name not in {folder for folder, _, _ in found}]
    if missing:
        raise InputError(
            f"{path}: no images of {', '.join(missing)}; "
            "expected files such as Dataset_BUSI_with_GT/normal/normal (1).png"
        )
    labels = np.array([LABEL_NAMES.index(folder) for folder, _, _ in found], dtype=np.uint8)
    return np.stack(images), labels, [name for _, _, name in found]


def group_duplicates(images: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Give images that are alike one number.

    Args:
        images: uint8 ``(N, H, W)``.

    Returns:
        int32 ``(N,)``, from 0 up in the order in which the groups first appear.

    Example:
        >>> dark, bright = np.eye(64, dtype=np.uint8) * 9, np.tri(64, dtype=np.uint8) * 200
        >>> group_duplicates(np.stack([dark, bright, dark + 1])).tolist()
        [0, 1, 0]
    """
    small = [Image.fromarray(image).resize((ALIKE_SIDE, ALIKE_SIDE), Image.Resampling.BOX) for image in images]
    values = np.stack([np.asarray(image, dtype=np.float32).ravel() for image in small])
    values -= values.mean(axis=1, keepdims=True)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
    first = np.arange(len(images))  # of each image's group
    for one, other in zip(*np.nonzero(np.triu(values @ values.T > ALIKE, k=1)), strict=True):
        low, high = sorted((first[one], first[other]))
        first[first == high] = low
    return np.unique(first, return_inverse=True)[1].astype(np.int32)


def _square(content: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def main() -> None:
    """Read the archive, write the file, and say what is in it."""
    parser = argparse.ArgumentParser(description="Make busi_128.npz from the published archive of BUSI.")
    parser.add_argument("archive", type=Path, help="the zip, as it was published")
    parser.add_argument("--out", type=Path, default=Path("busi_128.npz"), help="the .npz to write")
    options = parser.parse_args()
    images, labels, files = read_archive(options.archive)
    groups = group_duplicates(images)
    arrays = {
        "images": images,
        "labels": labels,
        "label_names": np.array(LABEL_NAMES),
        "dup_group": groups,
        "files": np.array(files),
    }
    write_npz(options.out, arrays)
    counts = ", ".join(f"{name} {(labels == number).sum()}" for number, name in enumerate(LABEL_NAMES))
    print(f"{options.out}: {len(images)} images ({counts}) in {groups.max() + 1} groups")
    if len(images) != PUBLISHED:
        print(f"the published archive has {PUBLISHED} images")


if __name__ == "__main__":
    main()
