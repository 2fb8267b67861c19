"""Nothing of whom the images are, nor of who worked where, gets into a file: some is planted, and every byte searched.

Planted are names, numbers and dates of patients (in file names, in PNG text and EXIF, in the columns of a CSV, in the
arrays of an ``.npz``, as groups), and the user, the machine and the folders. Then everything that can be written is
written, from training to the hub, and searched, whatever it is packed in.
"""

import base64
import csv
import gzip
import importlib.util
import io
import os
import platform
import re
import socket
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.card import bank_card, bank_sheet
from genmix_transforms.bank.exporting import export_parquet, export_png, export_webdataset
from genmix_transforms.bank.hub import push_to_hub, seal
from genmix_transforms.data import open_dataset
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.evaluation import Protocol, evaluate
from genmix_transforms.evaluation.audit import AuditSettings, audit, save_audit
from genmix_transforms.generators import DCGAN, TextualInversion, fill_bank, load_generator
from tests.generators.textual_inversion.tiny_pipelines import save_ldm

USER, HOST = "jdoe-planted", "pacs-planted"
PATIENT, UID, BIRTH, CASE = "Mustermann", "1.2.826.0.1.3680043.8.498", "19570308", "ACC-0091827"
COHORT = "huber-cohort"
"""The data's file: results name it, as the documentation says, and nothing else does."""
NUMBER = 2**50 + 918_273_645
"""Of a patient, as a group."""
WORDS = (USER, HOST, PATIENT, UID, BIRTH, CASE, COHORT, str(NUMBER))

COUNT, CLASSES = 32, ("cyst", "metastasis")


# The search


def forms(word: str) -> list[bytes]:
    """How a word may stand in a file."""
    found = [word.lower().encode(coding) for coding in ("utf-8", "utf-16-le", "utf-32-le")]
    return [*found, struct.pack("<q", int(word)).lower()] if word.isdigit() and int(word) > 2**40 else found


def leaks(files: dict[str, bytes], words: tuple[str, ...]) -> list[tuple[str, str]]:
    """(place, word) of each word that is found in a file, or in what it packs."""
    found = []
    for name, content in files.items():
        for place, inside in unpacked(name, content):
            low = inside.lower()
            found += [(place, word) for word in words if any(form in low for form in forms(word))]
    return found


def unpacked(place: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """The file's name, its bytes, and those of everything packed in it."""
    yield f"{place} (name)", place.encode()
    yield place, content
    for name, inside in _inside(content):
        yield from unpacked(f"{place}: {name}", inside)


def _inside(content: bytes) -> Iterator[tuple[str, bytes]]:
    if content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield "comment", archive.comment
            for member in archive.infolist():
                yield member.filename, archive.read(member)
    elif content[:2] == b"\x1f\x8b":
        yield "gzip", gzip.decompress(content)
    elif content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive:
                facts = f"{member.uname} {member.gname} {member.linkname} {member.pax_headers}"
                yield f"{member.name} (header)", facts.encode()
                if member.isreg():
                    yield member.name, archive.extractfile(member).read()
    elif content[:8] == b"\x89PNG\r\n\x1a\n":
        yield from _png_chunks(content)
    elif content[:4] == b"PAR1":
        yield from _parquet(content)
    elif content[:15] == b"<!doctype html>":
        for number, packed in enumerate(re.findall(rb"base64,([A-Za-z0-9+/=]+)", content)):
            yield f"data {number}", base64.b64decode(packed)


def _png_chunks(content: bytes) -> Iterator[tuple[str, bytes]]:
    """What is compressed in a PNG file: texts, and the pixels as a picture shows them."""
    position = 8
    while position < len(content):
        length, kind = struct.unpack(">I4s", content[position : position + 8])
        data = content[position + 8 : position + 8 + length]
        position += length + 12
        for start in (place for place in range(len(data)) if kind != b"IDAT" and data[place] == 0x78):
            try:  # a compressed text follows its keyword
                yield kind.decode(), zlib.decompress(data[start:])
            except zlib.error:
                continue
    with Image.open(io.BytesIO(content)) as image:
        yield "pixels", image.tobytes()


def _parquet(content: bytes) -> Iterator[tuple[str, bytes]]:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = parquet.ParquetFile(io.BytesIO(content))
    for key, value in (file.metadata.metadata or {}).items():
        yield f"metadata {key.decode()}", value
        if key == b"ARROW:schema":
            yield f"metadata {key.decode()}, decoded", base64.b64decode(value)
    for row, record in enumerate(file.read().to_pylist()):
        for key, value in record.items():
            for name, part in value.items() if isinstance(value, dict) else [("", value)]:
                yield f"row {row}, {key} {name}", part if isinstance(part, bytes) else str(part).encode()


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What is planted


def picture(label: int, number: int) -> Image.Image:
    random = np.random.default_rng(number)
    pixels = random.integers(0, 100, (16, 16)) + 120 * label
    return Image.fromarray(pixels.astype(np.uint8))


def save_with_text(image: Image.Image, path: Path) -> None:
    """As a scanner's export might: the patient's name in PNG text and EXIF."""
    text = PngImagePlugin.PngInfo()
    text.add_text("PatientName", f"{PATIENT}^Erika")
    text.add_text("StudyInstanceUID", UID, zip=True)
    exif = Image.Exif()
    exif[0x010E] = f"{PATIENT} {BIRTH}"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, pnginfo=text, exif=exif)


def plant(home: Path) -> dict[str, PatchDataset]:
    """The same patients in each way that data can be read."""
    rows = []
    for number in range(COUNT):
        label = number % 2
        name = f"{PATIENT.lower()}_erika_{CASE}_{number:02d}.png"
        save_with_text(picture(label, number), home / "folder" / CLASSES[label] / name)
        rows.append([f"folder/{CLASSES[label]}/{name}", CLASSES[label], f"{UID}.{number // 2}", BIRTH, CASE])
    with open(home / f"{COHORT}.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "patient_id", "birth", "accession"], *rows])
    images = np.stack([np.asarray(picture(number % 2, number)) for number in range(COUNT)])
    labels = np.arange(COUNT) % 2
    patients = np.array([f"{PATIENT} {UID}.{number // 2}" for number in range(COUNT)])
    np.savez(home / f"{COHORT}.npz", images=images, labels=labels, label_names=CLASSES, patient=patients, note=CASE)
    return {
        "folder": open_dataset(home / "folder"),
        "csv": open_dataset(home / f"{COHORT}.csv"),
        "npz": open_dataset(home / f"{COHORT}.npz"),
        "memory": PatchDataset(
            images=torch.from_numpy(images)[:, None],
            labels=torch.from_numpy(labels),
            classes=CLASSES,
            groups=torch.tensor([NUMBER] * 2 + list(range(COUNT - 2))),
            name=COHORT,
        ),
    }


def work(patches: PatchDataset, out: Path) -> None:
    """All that is done with a data set, tiny."""
    generator = DCGAN(classes=patches.classes, resolution=16, base_width=4, latent_size=8)
    generator.fit(patches, out=out / "run", steps=2, batch_size=4, checkpoint_every=1, device="cpu", progress=False)
    generator = load_generator(out / "run")
    generator.save_pretrained(out / "generator")
    bank = fill_bank(generator, counts=dict.fromkeys(CLASSES, 3), out=out / "bank", progress=False)
    seal(out / "bank")
    bank.save(out / "saved")
    bank_sheet(bank).save(out / "sheet.png")
    (out / "card.md").write_text(bank_card(bank), encoding="utf-8")


def work_upon_a_base_model(patches: PatchDataset, base: Path, out: Path) -> None:
    """With a generator that stands on a folder of this machine."""
    generator = TextualInversion(classes=patches.classes, base=base, resolution=16, vectors=1, sampler={"steps": 1})
    generator.fit(patches, out=out / "run", steps=2, batch_size=4, checkpoint_every=1, device="cpu", progress=False)
    generator = load_generator(out / "run")
    bank = fill_bank(generator, counts=dict.fromkeys(CLASSES, 3), out=out / "bank", progress=False)
    seal(out / "bank")
    (out / "card.md").write_text(bank_card(bank), encoding="utf-8")
    started = generator.with_start_images(patches, strength=1.0)
    fill_bank(started, counts=dict.fromkeys(CLASSES, 3), out=out / "started", progress=False)


def show(bank: SyntheticBank, out: Path) -> None:
    """All that a bank is given away as."""
    export_png(bank, out / "png")
    export_webdataset(bank, out / "tar")
    if importlib.util.find_spec("pyarrow"):
        export_parquet(bank, out / "parquet")


def look_into(patches: PatchDataset, out: Path) -> None:
    """The report of a bank that copies."""
    bank = SyntheticBank(patches.images, patches.labels, classes=patches.classes, provenance={"data": str(out)})
    settings = AuditSettings(features="pixels", draws=2, train=False, tsne=False, calibration=10)
    save_audit(audit(bank, (patches, patches, patches), settings=settings), out)


def hub_stand_in() -> type:
    spec = importlib.util.spec_from_file_location("stand_in", Path(__file__).parent / "bank" / "hub_stand_in.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.HubStandIn


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[Path]:
    """The user's folder, on the machine with that name."""
    home = tmp_path_factory.mktemp("home") / USER
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("USER", "LOGNAME", "USERNAME"):
            patch.setenv(variable, USER)
        for variable in ("HOSTNAME", "COMPUTERNAME", "SLURMD_NODENAME"):
            patch.setenv(variable, HOST)
        patch.setenv("HOME", str(home))
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        names = list(os.uname())
        names[1] = HOST
        patch.setattr(os, "uname", lambda: os.uname_result(names))
        patch.setattr(socket, "gethostname", lambda: HOST)
        patch.setattr(socket, "getfqdn", lambda *_: HOST)
        patch.setattr(platform, "node", lambda: HOST)
        patch.chdir(home)
        yield home


@pytest.fixture(scope="module")
def written(home) -> dict[str, bytes]:
    """Every file that was written, by its name below ``out``; what was published is below ``hub``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of so few images, which is right
        for name, patches in plant(home).items():
            patches.save_split(home / f"{name}-split.csv")  # it names every file, and nothing is copied from it
            splits = patches.with_split(home / f"{name}-split.csv").split()
            work(splits[0] if name == "csv" else patches, home / "out" / name)
            if name == "memory":
                look_into(patches, home / "out/audit")
            if name == "csv":
                work_upon_a_base_model(patches, save_ldm(home / "tiny-ldm"), home / "out/ti")
                bank = SyntheticBank.load(home / "out/csv/bank")
                quick = Protocol(steps=2, batch_size=4, validate_every=2)
                options = {"arms": ("baseline", "genmix"), "seeds": 1, "protocol": quick, "device": "cpu"}
                evaluate(splits, bank=bank, out=home / "out/results", progress=False, **options)
    show(SyntheticBank.load(home / "out/csv/bank"), home / "out/exports")
    SyntheticBank.from_folder(home / "folder").save(home / "out/imported/folder")
    SyntheticBank.from_npz(home / f"{COHORT}.npz").save(home / "out/imported/npz")
    with hub_stand_in()() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # the stand-in speaks the older way
        push_to_hub(home / "out/csv/bank", "me/bank", endpoint=hub.endpoint, token=hub.token)
        published = {f"hub/{name}": content for name, content in hub.files("me/bank").items()}
        messages = "\n".join(hub.commits("me/bank")).encode()
    return {**files_below(home / "out"), **published, "hub (messages)": messages}


# What is not found


BASE = "ti/run/base_model.json"
"""Where a base model lies on this machine: the one file that may hold a path, as the documentation says."""


def places(home: Path) -> tuple[str, ...]:
    """The folders that everything happened in."""
    return (str(home), str(home.parent), home.parent.name)


def test_everything_was_written(written):
    """A search of no files finds nothing."""
    for name in ("folder", "csv", "npz", "memory"):
        for file in ("bank/bank.index.json", "bank/bank-00000.safetensors", "run/config.json", "card.md", "sheet.png"):
            assert len(written[f"{name}/{file}"]) > 100
        assert any(path.startswith(f"{name}/run/samples/") for path in written)
        assert any(path.startswith(f"{name}/run/training/") for path in written), list(written)
    for prefix in (
        "exports/png/cyst",
        "exports/tar/000000.tar",
        "results/",
        "audit/report.html",
        "hub/README.md",
        "hub/sheet.png",
    ):
        assert any(path.startswith(prefix) for path in written), prefix


def test_what_may_stand_there_is_found(written):
    """Class names stand everywhere: the search looks into each kind of file."""
    where = {place.partition(":")[0] for place, _ in leaks(written, ("metastasis",))}
    expected = ("csv/bank/bank.index.json", "csv/bank/bank-00000.safetensors", "csv/run/config.json", "csv/card.md")
    assert where >= {*expected, "exports/tar/000000.tar", "exports/png/metadata.csv", "hub/README.md"}
    assert any(place.startswith("results/") for place in where)
    if importlib.util.find_spec("pyarrow"):
        assert "exports/parquet/train-00000-of-00001.parquet" in where


def test_what_was_planted_is_there(home):
    """In what was read: the search finds every word in the sources."""
    sources = {name: content for name, content in files_below(home).items() if not name.startswith("out/")}
    found = {word for _, word in leaks(sources, WORDS)}
    assert found >= {PATIENT, UID, BIRTH, CASE, COHORT}


def test_nobody_is_named(written, home):
    words = (*WORDS, *places(home))
    elsewhere = {name: content for name, content in written.items() if name != BASE and not name.startswith("results/")}
    assert leaks(elsewhere, words) == []


def test_the_one_file_with_a_path_is_not_given_away(written, home):
    assert {word for _, word in leaks({BASE: written[BASE]}, places(home))}  # it is there, and the search finds it
    assert [name for name in written if name.endswith("base_model.json")] == [BASE]
    record = written["ti/bank/bank.index.json"]
    assert b"tiny-ldm" in record  # by name
    assert re.search(rb'"weights": "sha256:[0-9a-f]{64}"', record)  # and by hash


def test_results_name_the_datas_file_and_nobody(written, home):
    results = {name: content for name, content in written.items() if name.startswith("results/")}
    assert leaks(results, tuple(word for word in (*WORDS, *places(home)) if word != COHORT)) == []


def test_tar_files_say_nothing_of_the_machine(written):
    tars = [content for name, content in written.items() if name.endswith(".tar")]
    assert tars
    for content in tars:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            facts = {(one.uid, one.gid, one.uname, one.gname, one.mtime) for one in archive}
        assert facts == {(0, 0, "", "", 0)}


def test_pictures_hold_pixels_alone(written):
    """No text, no EXIF, no time."""
    pictures = {name: content for name, content in written.items() if name.endswith(".png")}
    assert len(pictures) > 10
    for name, content in pictures.items():
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            assert image.info == {}, name
            assert not image.getexif(), name


# The search itself finds what is there


def packed(kind: str, word: str) -> dict[str, bytes]:
    """Files with the word in some place."""
    buffer, image = io.BytesIO(), Image.new("L", (4, 4))
    text = PngImagePlugin.PngInfo()
    match kind:
        case "text" | "capitals" | "UTF-16":
            content = {"text": word, "capitals": word.upper(), "UTF-16": word}[kind]
            return {"file": content.encode("utf-16-le" if kind == "UTF-16" else "utf-8")}
        case "name":
            return {f"folder/{word}.txt": b""}
        case "number":
            return {"file": b"x" + struct.pack("<q", NUMBER)}
        case "zip":
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("inside", word * 9)
        case "npz":
            np.savez_compressed(buffer, groups=np.array([word, "other"]))
        case "gzip":
            buffer.write(gzip.compress(word.encode()))
        case "tar's user" | "tar's member" | "tar's content":
            with tarfile.open(fileobj=buffer, mode="w") as archive:
                member = tarfile.TarInfo(word if kind == "tar's member" else "x")
                member.uname = word if kind == "tar's user" else ""
                inside = gzip.compress(word.encode()) if kind == "tar's content" else b"x"
                member.size = len(inside)
                archive.addfile(member, io.BytesIO(inside))
        case "PNG text" | "PNG packed text" | "PNG international text":
            add = text.add_itxt if "international" in kind else text.add_text
            add("key", word * 9, zip=kind != "PNG text")
            image.save(buffer, format="PNG", pnginfo=text)
        case "EXIF":
            exif = Image.Exif()
            exif[0x010E] = word
            image.save(buffer, format="PNG", exif=exif)
        case "pixels":
            raw = np.frombuffer(word.encode(), np.uint8)
            Image.fromarray(np.tile(raw, (4, 1))).save(buffer, format="PNG")
        case "safetensors":
            buffer.write(save({"x": torch.zeros(1)}, {"key": word}))
        case "Parquet" | "Parquet's schema" | "PNG in Parquet":
            arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            value = {"Parquet": word, "Parquet's schema": "x"}.get(kind)
            value = packed("PNG packed text", word)["file"] if value is None else value
            column = word if kind == "Parquet's schema" else "x"
            parquet.write_table(arrow.table({column: [value, value]}), buffer, compression="zstd", use_dictionary=True)
    return {"file": buffer.getvalue()}


@pytest.mark.parametrize(
    "kind",
    [
        *("text", "capitals", "UTF-16", "name", "number", "zip", "npz", "gzip", "tar's user", "tar's member"),
        *("tar's content", "PNG text", "PNG packed text", "PNG international text", "EXIF", "pixels", "safetensors"),
        *("Parquet", "Parquet's schema", "PNG in Parquet"),
    ],
)
def test_the_search_finds_it(kind):
    word = str(NUMBER) if kind == "number" else PATIENT
    assert {found for _, found in leaks(packed(kind, word), WORDS)} == {word}
    assert leaks(packed(kind, "harmless") if kind != "number" else {"x": b"12345"}, WORDS) == []
