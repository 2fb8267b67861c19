"""Filling banks: counts, seeds, going on after a kill, several processes, refusals."""

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank import SyntheticBank, kept_rows, manifest
from genmix_transforms.bank.card import bank_card
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import DiskFullError, InputError, OverwriteError
from genmix_transforms.generators import DCGAN, PerClass, fill_bank
from genmix_transforms.generators.filling import Plan, UnfinishedBankError, balanced_counts, make_plan
from genmix_transforms.generators.soft_labels import draw_soft_labels

TinyDCGAN = Callable[..., DCGAN]
COUNTS = {"cyst": 150, "metastasis": 80}


def fill(generator: DCGAN, out: Path, **options: Any) -> SyntheticBank:
    return fill_bank(generator, out=out, progress=False, **{"counts": COUNTS, **options})


@pytest.fixture(autouse=True)
def one_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest has a date; with SOURCE_DATE_EPOCH it is that, as in other reproducible files."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("bank*"))}


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any), st.integers(0, 2**31 - 1), st.integers(1, 17))
def test_a_plan_has_every_image_once(counts: list[int], seed: int, per_shard: int) -> None:
    plan = Plan(counts=tuple(counts), seed=seed, images_per_shard=per_shard)
    shards = [plan.shard(number) for number in range(plan.shards)]
    labels, seeds = (torch.cat(parts) for parts in zip(*shards, strict=True))
    assert torch.bincount(labels, minlength=len(counts)).tolist() == counts
    for part, _ in shards:
        assert part.tolist() == sorted(part.tolist())
        # Each shard has its share of every class, give or take one image.
        share = torch.bincount(part, minlength=len(counts)) - torch.tensor(counts) / plan.shards
        assert bool((share.abs() < 1).all())
    for label, count in enumerate(counts):
        assert sorted(seeds[labels == label].tolist()) == [seed * 2**32 + number for number in range(count)]
    sizes = {len(part) for part, _ in shards}
    assert max(sizes) <= per_shard
    assert max(sizes) - min(sizes) <= 1


def test_a_bank_holds_what_was_asked_for(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    generator = tiny_dcgan()
    bank = fill(generator, tmp_path / "bank", seed=3)
    assert bank.class_counts == COUNTS
    assert bank.classes == generator.classes
    for row in (0, 149, 150, 229):
        image = generator.sample([int(bank.labels[row])], [int(bank.seeds[row])])[0]
        assert torch.equal(bank.images[row], image)
    assert bank.seeds.min() == 3 * 2**32
    assert bank.provenance["generator"]["weights"] == f"sha256:{generator.weights_hash}"
    bank.verify()


def test_as_many_as_the_generator_was_trained_on(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    generator = tiny_dcgan()
    generator.provenance = {"training_set": {"class_counts": {"cyst": 5, "metastasis": 3}, "fingerprint": "f"}}
    bank = fill_bank(generator, out=tmp_path / "bank", progress=False)
    assert bank.class_counts == {"cyst": 5, "metastasis": 3}
    assert bank.provenance["training_set"] == generator.provenance["training_set"]


@pytest.mark.parametrize("per_class", [False, True])
def test_the_training_sets_images_are_recorded_once(
    per_class: bool, tiny_dcgan: TinyDCGAN, tiny_patches: Callable[..., PatchDataset], tmp_path: Path
) -> None:
    patches = tiny_patches()
    generator: Any = tiny_dcgan()
    if per_class:
        generator = PerClass.of(DCGAN, classes=patches.classes, resolution=16, base_width=4)
    generator.fit(patches, out=tmp_path / "run", steps=1, batch_size=4, device="cpu", progress=False)
    bank = fill_bank(generator, counts={patches.classes[0]: 2}, out=tmp_path / "bank", progress=False)
    assert bank.provenance["training_set"] == patches.training_set()
    described = json.dumps(bank.provenance["generator"])
    assert patches.training_set()["fingerprint"] in described
    assert '"images":' not in described


def test_a_licence_is_kept_and_is_part_of_what_the_bank_is(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    bank = fill(tiny_dcgan(), tmp_path / "bank", counts={"cyst": 2}, licence="cc-by-4.0")
    assert bank.provenance["licence"] == "cc-by-4.0"
    assert "license: cc-by-4.0" in bank_card(bank)
    with pytest.raises(OverwriteError, match="of another generator, other counts or another seed"):
        fill(tiny_dcgan(), tmp_path / "bank", counts={"cyst": 2}, licence="mit")
    assert "licence" not in fill(tiny_dcgan(), tmp_path / "other", counts={"cyst": 2}).provenance
    with pytest.raises(InputError, match="licence must be a short identifier, such as 'cc-by-4.0', got 'ask /home/me'"):
        fill(tiny_dcgan(), tmp_path / "third", counts={"cyst": 2}, licence="ask /home/me")


def test_balance_fills_up_to_the_largest(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    assert balanced_counts(COUNTS) == {"cyst": 0, "metastasis": 70}
    bank = fill(tiny_dcgan(), tmp_path / "bank", balance=True)
    assert bank.class_counts == {"cyst": 0, "metastasis": 70}


def test_soft_labels_are_what_the_images_are_drawn_from(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    generator = tiny_dcgan()
    bank = fill(generator, tmp_path / "bank", seed=3, soft=2.0)
    assert bank.class_counts == COUNTS
    assert bank.soft_labels is not None
    assert torch.equal(bank.soft_labels.argmax(dim=1), torch.tensor([0] * 150 + [1] * 80))
    assert float(bank.soft_labels.max()) < 1
    assert torch.equal(generator.sample(bank.labels, bank.seeds), bank.images)
    labels = bank.soft_labels.argmax(dim=1).tolist()
    assert torch.equal(bank.labels, draw_soft_labels(labels, bank.seeds.tolist(), classes=2, alpha=2.0))
    assert bank.provenance["soft"] == 2.0
    assert "soft labels' concentration | 2" in bank_card(bank)
    bank.verify()
    hard = fill(generator, tmp_path / "hard", seed=3)
    assert "soft" not in hard.provenance
    assert hard.soft_labels is None


def test_a_bank_of_soft_labels_goes_on_and_is_shared(
    tiny_dcgan: TinyDCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tiny_dcgan(), tmp_path / "whole", soft=3)
    with pytest.raises(UnfinishedBankError):
        fill(tiny_dcgan(), tmp_path / "shared", soft=3.0, share=(1, 2))
    fill(tiny_dcgan(), tmp_path / "shared", soft=3.0, share=(0, 2))
    draw, calls = DCGAN.sample, []

    def failing(self: DCGAN, labels: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        calls.append(len(labels))
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return draw(self, labels, seeds)

    monkeypatch.setattr(DCGAN, "sample", failing)
    with pytest.raises(OSError, match="No space left"):
        fill(tiny_dcgan(), tmp_path / "broken", soft=3.0)
    fill(tiny_dcgan(), tmp_path / "broken", soft=3.0)
    assert sum(calls) - calls[2] == 230  # nothing is drawn twice
    assert hashes(tmp_path / "shared") == hashes(tmp_path / "broken") == hashes(tmp_path / "whole")


def test_soft_labels_that_cannot_be(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    per_class = PerClass.of(DCGAN, classes=["cyst", "metastasis"], resolution=16, base_width=4)
    for generator, soft, message in (
        (tiny_dcgan(), 0.5, "fill_bank: soft must be a number from 1 to 1,000,000, got 0.5"),
        (per_class, 2.0, "a per-class generator draws nothing between classes: each class has its own network"),
        (tiny_dcgan(classes=["cyst"]), 2.0, "a soft label mixes classes, and the generator has cyst alone"),
    ):
        with pytest.raises(InputError, match=message):
            fill_bank(generator, counts={"cyst": 2}, out=tmp_path / "bank", soft=soft, progress=False)
    assert not (tmp_path / "bank").exists()
    fill(tiny_dcgan(), tmp_path / "bank", counts={"cyst": 2}, soft=2.0)
    with pytest.raises(OverwriteError, match="of another generator, other counts or another seed"):
        fill(tiny_dcgan(), tmp_path / "bank", counts={"cyst": 2}, soft=4.0)
    with pytest.raises(InputError, match="labels"):
        fill(tiny_dcgan(), tmp_path / "bank", counts={"cyst": 2}, seed=1, append=True)
    both = fill(tiny_dcgan(), tmp_path / "bank", counts={"cyst": 2}, seed=1, soft=4.0, append=True)
    assert [source["soft"] for source in both.sources] == [2.0, 4.0]
    other = fill(tiny_dcgan(), tmp_path / "other", counts={"cyst": 2}, soft=8.0)
    assert len(both.merge(other)) == 6  # of the same seeds as the first two, and no images twice


def test_other_seeds_other_images(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    one, two = (fill(tiny_dcgan(), tmp_path / str(seed), counts={"cyst": 4}, seed=seed) for seed in (0, 1))
    assert not {image.numpy().tobytes() for image in one.images} & {image.numpy().tobytes() for image in two.images}


def test_a_finished_bank_is_opened_not_drawn_again(
    tiny_dcgan: TinyDCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tiny_dcgan(), tmp_path / "bank")
    monkeypatch.setattr(DCGAN, "sample", lambda *_: pytest.fail("drawn again"))
    assert fill(tiny_dcgan(), tmp_path / "bank").class_counts == COUNTS


def test_it_goes_on_where_it_stopped(tiny_dcgan: TinyDCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tiny_dcgan(), tmp_path / "whole")
    draw, drawn = DCGAN.sample, []

    def failing(self: DCGAN, labels: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        drawn.append(len(labels))
        if len(drawn) == 3:
            raise OSError(28, "No space left on device")
        return draw(self, labels, seeds)

    monkeypatch.setattr(DCGAN, "sample", failing)
    with pytest.raises(OSError, match="No space left"):
        fill(tiny_dcgan(), tmp_path / "broken")
    with pytest.raises(InputError, match="a bank whose first shard is not finished; run the same command again"):
        SyntheticBank.load(tmp_path / "broken")
    before = sum(drawn[:2])
    drawn.extend([0] * 10)
    fill(tiny_dcgan(), tmp_path / "broken")
    assert sum(drawn[13:]) == 230 - before  # nothing is drawn twice
    assert hashes(tmp_path / "broken") == hashes(tmp_path / "whole")


def test_four_processes_write_the_files_that_one_writes(
    tiny_dcgan: TinyDCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tiny_dcgan(), tmp_path / "one")
    for count in (2, 4):
        out = tmp_path / str(count)
        for rank in reversed(range(count)):  # in any order: nobody waits for anybody
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", str(count))
            if rank:
                with pytest.raises(UnfinishedBankError, match="this process's share is done"):
                    fill(tiny_dcgan(), out)
            else:
                fill(tiny_dcgan(), out)
        assert hashes(out) == hashes(tmp_path / "one")


def test_several_processes_cannot_overwrite(
    tiny_dcgan: TinyDCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="several processes cannot overwrite a bank: remove the folder first"):
        fill(tiny_dcgan(), tmp_path / "bank", overwrite=True)


# Stopped in the middle: in processes of their own, which are killed


def fill_slowly(generator: DCGAN, out: Path, drawn: Path, pause: float, **options: Any) -> None:
    """Fill, and write down after every batch how many images have been drawn."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests run in the background have it ignored
    draw, count = type(generator).sample, 0

    def slow(self: DCGAN, labels: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        nonlocal count
        images = draw(self, labels, seeds)
        count += len(labels)
        drawn.write_text(str(count))
        time.sleep(pause)
        return images

    type(generator).sample = slow  # type: ignore[method-assign]
    with suppress(UnfinishedBankError):
        fill(generator, out, **options)


def start(generator: DCGAN, out: Path, drawn: Path, *, pause: float = 0, **options: Any) -> multiprocessing.Process:
    context = multiprocessing.get_context("fork")
    process = context.Process(target=fill_slowly, args=(generator, out, drawn, pause), kwargs=options, daemon=True)
    process.start()
    return process  # type: ignore[return-value]


def wait_for(condition: Callable[[], bool], process: multiprocessing.Process) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.is_alive(), "it was over before it could be stopped"
        assert time.monotonic() < deadline, "it never came to where it was to be stopped"
        time.sleep(0.005)


def stop(process: multiprocessing.Process, number: signal.Signals) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == (-9 if number == signal.SIGKILL else 1)


def drawn_by(generator: DCGAN, out: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> int:
    draw, counts = DCGAN.sample, [0]

    def counting(self: DCGAN, labels: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        counts.append(len(labels))
        return draw(self, labels, seeds)

    with monkeypatch.context() as patch:
        patch.setattr(DCGAN, "sample", counting)
        fill(generator, out, **options)
    return sum(counts)


ONE_SHARD = {"cyst": 40, "metastasis": 24}
MANY_SHARDS = {"cyst": 600, "metastasis": 500}


def test_a_kill_in_the_middle_of_the_only_shard_loses_little(
    tiny_dcgan: TinyDCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network draws 32 images at a time: two batches, and the kill comes between them."""
    out, counts, fills = tmp_path / "killed", tmp_path / "drawn", {"counts": ONE_SHARD}
    fill(tiny_dcgan(), tmp_path / "whole", **fills)
    monkeypatch.setattr(kept_rows, "KEEP_EVERY", 0)
    process = start(tiny_dcgan(), out, counts, pause=30, **fills)
    wait_for(counts.exists, process)
    stop(process, signal.SIGKILL)
    assert not list(out.glob("bank-*"))
    # Killed before it was kept, the batch is lost; a second kill comes after.
    assert [path.name for path in out.glob("*.kept")] == []
    process = start(tiny_dcgan(), out, counts, pause=1, **fills)
    wait_for(lambda: (out / "bank.0of1.kept").exists(), process)
    stop(process, signal.SIGKILL)
    with pytest.raises(InputError, match="a bank whose first shard is not finished; run the same command again"):
        SyntheticBank.load(out)
    assert drawn_by(tiny_dcgan(), out, monkeypatch, **fills) == 32
    assert hashes(out) == hashes(tmp_path / "whole")
    assert not list(out.glob("*.kept"))


def test_ctrl_c_loses_no_batch(tiny_dcgan: TinyDCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, counts, fills = tmp_path / "stopped", tmp_path / "drawn", {"counts": ONE_SHARD}
    fill(tiny_dcgan(), tmp_path / "whole", **fills)
    process = start(tiny_dcgan(), out, counts, pause=0.3, **fills)
    wait_for(counts.exists, process)
    time.sleep(0.4)  # in the second batch
    stop(process, signal.SIGINT)
    assert drawn_by(tiny_dcgan(), out, monkeypatch, **fills) == 32
    assert hashes(out) == hashes(tmp_path / "whole")


def test_killed_and_run_again_and_shared_the_bytes_are_the_same(
    tiny_dcgan: TinyDCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fills = {"counts": MANY_SHARDS}
    fill(tiny_dcgan(), tmp_path / "whole", **fills)
    out, shared = tmp_path / "killed", tmp_path / "shared"
    process = start(tiny_dcgan(), out, tmp_path / "drawn", pause=0.05, **fills)
    wait_for(lambda: len(list(out.glob("bank-*"))) >= 2, process)
    stop(process, signal.SIGKILL)
    # Three real processes at once, of which one is stopped; another share of the work then goes on.
    three = [start(tiny_dcgan(), shared, tmp_path / f"{n}", pause=0.03, share=(n, 3), **fills) for n in range(3)]
    wait_for(lambda: len(list(shared.glob("bank-*"))) >= 3, three[1])
    stop(three[1], signal.SIGINT)
    for done in (three[0], three[2]):
        done.join(60)
        assert done.exitcode == 0
    for folder in (out, shared):
        assert drawn_by(tiny_dcgan(), folder, monkeypatch, **fills) <= 1100 - 2 * 61
        assert hashes(folder) == hashes(tmp_path / "whole")
        assert not list(folder.glob("*.kept"))
        SyntheticBank.load(folder, verify=True)


def test_what_other_shares_have_kept_is_used(
    tiny_dcgan: TinyDCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tiny_dcgan(), tmp_path / "whole")
    out, draw = tmp_path / "bank", DCGAN.sample
    for rank in range(3):
        calls = []

        def stopped(*arguments: Any, calls: list[int] = calls) -> torch.Tensor:
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return draw(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(DCGAN, "sample", stopped)
            with pytest.raises(KeyboardInterrupt):
                fill(tiny_dcgan(), out, share=(rank, 3))
    assert len(list(out.glob("*.kept"))) == 3
    assert drawn_by(tiny_dcgan(), out, monkeypatch) == sum(COUNTS.values()) - 3 * 32
    assert hashes(out) == hashes(tmp_path / "whole")
    assert not list(out.glob("*.kept"))


def test_an_overwriting_fill_that_was_stopped_goes_on(
    tiny_dcgan: TinyDCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "Run the same command again to go on" is said of this command too."""
    out, draw, calls = tmp_path / "bank", DCGAN.sample, []
    fill(tiny_dcgan(), out, seed=1)

    def stopped(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return draw(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(DCGAN, "sample", stopped)
        with pytest.raises(KeyboardInterrupt):
            fill(tiny_dcgan(), out, overwrite=True)
    assert drawn_by(tiny_dcgan(), out, monkeypatch, overwrite=True) == sum(COUNTS.values()) - 3 * 32
    fill(tiny_dcgan(), tmp_path / "whole")
    assert SyntheticBank.load(out).images.equal(SyntheticBank.load(tmp_path / "whole").images)
    # A finished one is thrown away: that is how a damaged bank is mended.
    assert drawn_by(tiny_dcgan(), out, monkeypatch, overwrite=True) == sum(COUNTS.values())


def test_a_disk_without_room_is_refused_before_anything_is_drawn(
    tiny_dcgan: TinyDCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tiny_dcgan(), tmp_path / "old", seed=1)
    before = hashes(tmp_path / "old")

    def usage(_: Path) -> SimpleNamespace:
        return SimpleNamespace(free=150_000 - sum(file.stat().st_size for file in tmp_path.glob("*/bank-*")))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with monkeypatch.context() as patch:
        patch.setattr(DCGAN, "sample", lambda *_: pytest.fail("drawn"))
        message = "new: the bank needs .* kB, but only .* kB are free on that disk; free some space, or give a folder"
        with pytest.raises(InputError, match=message):
            fill(tiny_dcgan(), tmp_path / "new", counts={"cyst": 400})
        with pytest.raises(InputError, match="old: the bank needs"):
            fill(tiny_dcgan(), tmp_path / "old", counts={"cyst": 4000}, overwrite=True)
    assert hashes(tmp_path / "old") == before
    # The room of the bank that is thrown away counts, and what is there need not be written again.
    fill(tiny_dcgan(), tmp_path / "old", overwrite=True)
    fill(tiny_dcgan(), tmp_path / "old")


def test_a_disk_that_fills_up_loses_no_image(
    tiny_dcgan: TinyDCGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == "bank-00001.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(DiskFullError, match=r"bank-00001.safetensors: the disk is full .* run the same command"):
            fill(tiny_dcgan(), tmp_path / "bank")
    drawn = drawn_by(tiny_dcgan(), tmp_path / "bank", monkeypatch)
    assert drawn == sum(COUNTS.values()) - 4 * 32  # two shards of 58 were drawn: four batches


def test_another_bank_is_not_touched(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    fill(tiny_dcgan(), tmp_path / "bank")
    for generator, options in (
        (tiny_dcgan(), {"seed": 1}),
        (tiny_dcgan(), {"counts": {"cyst": 1}}),
        (tiny_dcgan(base_width=2), {}),
    ):
        with pytest.raises(OverwriteError, match="holds a bank of another generator, other counts or another seed"):
            fill(generator, tmp_path / "bank", **options)
    assert fill(tiny_dcgan(), tmp_path / "bank", seed=1, overwrite=True).seeds.min() == 2**32


def test_overwriting_removes_the_bank_and_nothing_else(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    fill(tiny_dcgan(), bank)
    (bank / "sheet.png").write_bytes(b"a picture")
    (bank / "bank-mine.safetensors").write_bytes(b"mine")
    assert fill(tiny_dcgan(), bank, seed=1, overwrite=True).seeds.min() == 2**32
    assert (bank / "sheet.png").read_bytes() == b"a picture"
    assert (bank / "bank-mine.safetensors").read_bytes() == b"mine"


def test_an_overwrite_that_is_refused_removes_nothing(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    fill(tiny_dcgan(), bank)
    (bank / manifest.INDEX).unlink()
    (bank / "notes.txt").write_text("mine")
    before = hashes(bank)
    with pytest.raises(OverwriteError, match=r"holds other files and no bank \(notes.txt\)"):
        fill(tiny_dcgan(), bank, seed=1, overwrite=True)
    assert hashes(bank) == before


def test_shards_of_another_fill_are_not_taken_over(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    fill(tiny_dcgan(), tmp_path / "bank")
    (tmp_path / "bank" / manifest.INDEX).unlink()
    with pytest.raises(OverwriteError, match=r"bank-00000.safetensors belongs to a bank of another generator"):
        fill(tiny_dcgan(), tmp_path / "bank", seed=1)


def test_a_folder_with_other_things_is_refused(tiny_dcgan: TinyDCGAN, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OverwriteError, match="holds other files and no bank"):
        fill(tiny_dcgan(), tmp_path)
    with pytest.raises(OverwriteError, match="cannot be a folder, for .*notes.txt is a file"):
        fill(tiny_dcgan(), tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": {"cyst": 1, "abscess": 2}}, "the generator's classes are cyst, metastasis; it cannot draw abscess"),
        ({"counts": {"cyst": -1}}, "the count of cyst must be a whole number, at least 0, got -1"),
        ({"counts": {"cyst": 1.5}}, "the count of cyst must be a whole number, at least 0, got 1.5"),
        ({"counts": [1, 2]}, r"counts must be \{class name: number\}, got a list"),
        ({"counts": {"cyst": 0}}, "nothing to draw: the counts are"),
        ({"counts": {"cyst": 2, "metastasis": 2}, "balance": True}, "every class is as large as the largest already"),
        ({"counts": None}, "does not record its training set's class counts: give counts, for the classes cyst, meta"),
        (
            {"counts": {"cyst": 10**16}},
            "10,000,000,000,000,000 images would be .* shards, a bank has at most 1",
        ),
        ({"counts": {"cyst": 1}, "seed": -1}, "seed must be a whole number, from 0 to 2147483647, got -1"),
    ],
)
def test_plans_that_cannot_be(options: dict[str, Any], message: str, tiny_dcgan: TinyDCGAN) -> None:
    with pytest.raises(InputError, match=message):
        make_plan(tiny_dcgan(), **options)
