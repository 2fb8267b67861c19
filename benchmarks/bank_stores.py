"""The same images in our bank and in what else keeps them: how each is written, and how batches are read from it.

Written and read as each library's documentation does it, in one process, without workers. A store is read in one of
two ways: by index, or as a shuffled stream where there is no index.

    python benchmarks/bank_stores.py READER FOLDER    opens a store and reads a batch: a fresh process for bank.py
"""

import importlib.util
import io
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing of this needs a network
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from genmix_transforms import SyntheticBank
from genmix_transforms.bank import BankWriter

SHAPE = (3, 64, 64)
BATCH = 256
CLASSES = [str(number) for number in range(10)]
SHARD_BYTES = 32 * 2**20
"""Small shards, so that a bank that fits on any disk has several."""

BUFFER = 1000
"""Of WebDataset's shuffle: as in its documentation."""

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Indexed:
    """A store that was opened, read by index."""

    count: int
    fetch: Callable[[Tensor], Batch]

    def __len__(self) -> int:
        return self.count

    def everything(self) -> Batch:
        """In its own order."""
        images, labels = zip(*(self.fetch(part) for part in torch.arange(self.count).split(BATCH)), strict=True)
        return torch.cat(images), torch.cat(labels)


def shard_images() -> int:
    """In one shard of those stores that have shards of a size that is asked for."""
    return SHARD_BYTES // int(np.prod(SHAPE))


@dataclass(frozen=True)
class Writer:
    """How a store is written."""

    prepare: Callable[[Path, Tensor, Tensor, int], Callable[[], object]]
    """Of a folder (not there yet, or holding an older store), images, labels, images a shard: what writes them."""
    needs: str | None = None
    """A module."""

    def write(self, folder: Path, images: Tensor, labels: Tensor, *, each: int | None = None) -> None:
        self.prepare(folder, images, labels, each or shard_images())()


@dataclass(frozen=True)
class Reader:
    """How it is read."""

    store: str
    open: Callable[[Path], Any]
    """Returns an ``Indexed``, or an iterator of batches."""
    streams: bool = False
    by_class: bool = False
    """Its numbers are those of the images sorted by class."""

    def order(self, labels: Tensor) -> Tensor:
        """Which image each of its numbers is."""
        return labels.argsort(stable=True) if self.by_class else torch.arange(len(labels))


def installed(module: str | None) -> bool:
    return module is None or importlib.util.find_spec(module) is not None


def make_images(count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth, with some noise: PNG makes something of them, as of images. Labels are in no order."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.empty(count, *SHAPE, dtype=torch.uint8)
    for part in images.split(1000):
        coarse = torch.rand(len(part), SHAPE[0], 8, 8, generator=generator) * 255
        smooth = torch.nn.functional.interpolate(coarse, SHAPE[1:], mode="bilinear")
        part.copy_((smooth + 4 * torch.randn(part.shape, generator=generator)).clamp_(0, 255))
    return images, torch.randint(0, len(CLASSES), (count,), generator=torch.Generator().manual_seed(0))


def png(image: Tensor) -> bytes:
    buffer = io.BytesIO()
    picture(image).save(buffer, "png")
    return buffer.getvalue()


def picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def _together(samples: list[Any]) -> Batch:
    images, labels = zip(*samples, strict=True)
    return torch.stack(images), torch.tensor(labels)


def _in_one_step(
    write: Callable[..., None], **options: Any
) -> Callable[[Path, Tensor, Tensor, int], Callable[[], object]]:
    return lambda folder, images, labels, each: partial(write, folder, images, labels, each, **options)


# Ours


def _write_bank(folder: Path, images: Tensor, labels: Tensor, each: int) -> None:
    overwrite = folder.exists()
    with BankWriter(
        folder,
        classes=CLASSES,
        image_shape=SHAPE,
        shard_bytes=each * images[0].nbytes,
        overwrite=overwrite,
        publish="close",
    ) as writer:
        for part, some in zip(images.split(each), labels.split(each), strict=True):
            writer.add(part, some)


def _open_bank(folder: Path, **options: Any) -> Indexed:
    bank = SyntheticBank.load(folder, **options)
    return Indexed(len(bank), lambda index: (bank.rows(index), bank.labels.index_select(0, index)))


# A folder of PNG files, a folder a class


def _write_png(folder: Path, images: Tensor, labels: Tensor, each: int) -> None:
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        picture(image).save(folder / CLASSES[label] / f"{number:08d}.png")


def _open_png(folder: Path) -> Indexed:
    data = ImageFolder(str(folder), transform=pil_to_tensor, allow_empty=True)
    return Indexed(len(data), lambda index: _together([data[number] for number in index.tolist()]))


# WebDataset


def _write_tar(folder: Path, images: Tensor, labels: Tensor, each: int, *, kind: str) -> None:
    import webdataset

    folder.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(str(folder / "bank-%05d.tar"), maxcount=each, verbose=0) as writer:
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            content = png(image) if kind == "png" else image.numpy()
            writer.write({"__key__": f"{number:08d}", kind: content, "cls": label})


def _stream_tar(folder: Path, *, kind: str, endless: bool = True) -> Iterator[Batch]:
    import webdataset

    shards = sorted(str(file) for file in folder.glob("*.tar"))
    while True:
        stream = webdataset.WebDataset(shards, shardshuffle=len(shards), empty_check=False).shuffle(BUFFER)
        stream = stream.decode("torchrgb8").to_tuple(kind, "cls").batched(BATCH)
        for images, labels in stream:
            yield torch.as_tensor(images), torch.as_tensor(labels)
        if not endless:
            return


# Hugging Face datasets


def _prepare_arrow(folder: Path, images: Tensor, labels: Tensor, each: int, *, kind: str) -> Callable[[], object]:
    import datasets

    image = {
        "png": lambda: datasets.Image(),
        "array": lambda: datasets.Array3D(SHAPE, "uint8"),
        "bytes": lambda: datasets.Value("binary"),
    }[kind]()
    convert: dict[str, Callable[[Tensor], Any]] = {
        "png": picture,
        "array": lambda image: image.numpy(),
        "bytes": lambda image: image.numpy().tobytes(),
    }

    def samples() -> Iterator[dict[str, Any]]:
        for image, label in zip(images, labels.tolist(), strict=True):
            yield {"image": convert[kind](image), "label": label}

    features = datasets.Features({"image": image, "label": datasets.ClassLabel(names=CLASSES)})
    cache = folder.with_name(f"{folder.name}-cache")  # from_generator writes a file first, save_to_disk another
    name = secrets.token_hex(8)  # without a name, it would pickle the images to make one
    made = datasets.Dataset.from_generator(samples, features=features, cache_dir=str(cache), fingerprint=name)
    return partial(made.save_to_disk, str(folder))


def _open_arrow(folder: Path) -> Indexed:
    import datasets

    data = datasets.load_from_disk(str(folder)).with_format("torch", dtype=torch.uint8)

    def fetch(index: Tensor) -> Batch:
        batch = data[index.numpy()]
        return batch["image"], batch["label"].long()

    return Indexed(len(data), fetch)


def _open_arrow_bytes(folder: Path) -> Indexed:
    import datasets

    data = datasets.load_from_disk(str(folder)).with_format("arrow")

    def fetch(index: Tensor) -> Batch:
        batch = data[index.numpy()]
        pixels = bytearray(b"".join(batch["image"].to_pylist()))
        return torch.frombuffer(pixels, dtype=torch.uint8).view(-1, *SHAPE), torch.tensor(batch["label"].to_pylist())

    return Indexed(len(data), fetch)


# litdata


def _sample(number: int, *, images: Tensor, labels: Tensor) -> dict[str, Any]:
    return {"image": images[number], "label": int(labels[number])}


def _write_litdata(folder: Path, images: Tensor, labels: Tensor, each: int) -> None:
    import litdata

    litdata.optimize(
        partial(_sample, images=images, labels=labels),
        list(range(len(images))),
        output_dir=str(folder),
        chunk_size=each,
        num_workers=1,
        keep_data_ordered=True,
        verbose=False,
        start_method="fork",  # its default, spawn, adds some ten seconds of imports, whatever the number of images
        mode="overwrite" if folder.exists() else None,
    )


def _open_litdata(folder: Path) -> Indexed:
    import litdata

    data = litdata.StreamingDataset(str(folder))

    def fetch(index: Tensor) -> Batch:
        samples = [data[number] for number in index.tolist()]
        return _together([(sample["image"], sample["label"]) for sample in samples])

    return Indexed(len(data), fetch)


def _stream_litdata(folder: Path, *, endless: bool = True) -> Iterator[Batch]:
    import litdata

    data = litdata.StreamingDataset(str(folder), shuffle=True)
    loader = litdata.StreamingDataLoader(data, batch_size=BATCH, num_workers=0)
    while True:
        for batch in loader:
            yield batch["image"], torch.as_tensor(batch["label"])
        if not endless:
            return


OURS, OURS_MAPPED, OURS_DEFAULT = "ours, in memory", "ours, mapped", "ours, opened without options"

WRITERS = {
    "ours": Writer(_in_one_step(_write_bank)),
    "PNG folder": Writer(_in_one_step(_write_png)),
    "WebDataset, PNG": Writer(_in_one_step(_write_tar, kind="png"), "webdataset"),
    "WebDataset, npy": Writer(_in_one_step(_write_tar, kind="npy"), "webdataset"),
    "datasets, Image (PNG)": Writer(partial(_prepare_arrow, kind="png"), "datasets"),
    "datasets, Array3D": Writer(partial(_prepare_arrow, kind="array"), "datasets"),
    "datasets, bytes": Writer(partial(_prepare_arrow, kind="bytes"), "datasets"),
    "litdata": Writer(_in_one_step(_write_litdata), "litdata"),
}

READERS = {
    OURS: Reader("ours", partial(_open_bank, resident=True, verify=False), by_class=True),
    OURS_MAPPED: Reader("ours", partial(_open_bank, resident=False, verify=False), by_class=True),
    OURS_DEFAULT: Reader("ours", _open_bank, by_class=True),
    "PNG folder": Reader("PNG folder", _open_png, by_class=True),
    "WebDataset, PNG, stream": Reader("WebDataset, PNG", partial(_stream_tar, kind="png"), streams=True),
    "WebDataset, npy, stream": Reader("WebDataset, npy", partial(_stream_tar, kind="npy"), streams=True),
    "datasets, Image (PNG)": Reader("datasets, Image (PNG)", _open_arrow),
    "datasets, Array3D": Reader("datasets, Array3D", _open_arrow),
    "datasets, bytes": Reader("datasets, bytes", _open_arrow_bytes),
    "litdata, by index": Reader("litdata", _open_litdata),
    "litdata, stream": Reader("litdata", _stream_litdata, streams=True),
}


def read_all(reader: Reader, folder: Path) -> Batch:
    """Every image of a store, in its own order, or as they come from its stream."""
    if not reader.streams:
        return reader.open(folder).everything()  # type: ignore[no-any-return]
    images, labels = zip(*reader.open(folder, endless=False), strict=True)
    return torch.cat(images), torch.cat(labels)


def check(name: str, folder: Path, images: Tensor, labels: Tensor) -> None:
    """Whether some batches are the images and the labels that were written."""
    reader = READERS[name]
    opened = reader.open(folder)
    if reader.streams:
        label_of = {image.numpy().tobytes(): label for image, label in zip(images, labels.tolist(), strict=True)}
        for _ in range(2):
            batch, found = next(opened)
            assert [label_of[image.numpy().tobytes()] for image in batch] == found.tolist(), name
        return
    order = reader.order(labels)
    index = torch.randint(0, len(labels), (BATCH,))
    assert len(opened) == len(labels), name
    batch, found = opened.fetch(index)
    assert batch.dtype == images.dtype, name
    assert batch.equal(images[order[index]]), name
    assert found.equal(labels[order[index]]), name


def main() -> None:
    """Open a store, read a batch, and print the seconds until each, imports not counted."""
    name, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    reader = READERS[name]
    for module in ("webdataset", "datasets", "litdata"):
        if WRITERS[reader.store].needs == module:
            importlib.import_module(module)
    torch.set_num_threads(1)
    index = torch.randint(0, count, (BATCH,), generator=torch.Generator().manual_seed(0))
    index.clone().index_select(0, index % BATCH)  # torch's first operation takes longer
    start = time.perf_counter()
    opened = reader.open(folder)
    middle = time.perf_counter()
    batch, _ = next(opened) if reader.streams else opened.fetch(index)
    end = time.perf_counter()
    assert batch.shape == (BATCH, *SHAPE)
    print(json.dumps([middle - start, end - start]))


if __name__ == "__main__":
    main()
