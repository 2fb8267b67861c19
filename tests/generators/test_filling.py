"""Filling banks: counts, seeds, going on after a kill, several processes, refusals."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank import SyntheticBank, manifest
from genmix_transforms.bank.card import bank_card
from genmix_transforms.errors import InputError, OverwriteError
from genmix_transforms.generators import DCGAN, fill_bank
from genmix_transforms.generators.filling import Plan, UnfinishedBankError, balanced_counts, make_plan

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


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "SOURCE_DATE_EPOCH": "1700000000"}


@pytest.fixture(scope="module")
def generator_folder(tmp_path_factory: pytest.TempPathFactory, tiny_dcgan: TinyDCGAN) -> Path:
    folder = tmp_path_factory.mktemp("generator")
    tiny_dcgan(base_width=32).save_pretrained(folder)
    return folder


def fill_command(generator: Path, out: Path) -> list[str]:
    options = ["--counts", "cyst=6000,metastasis=5000", "--device", "cpu"]
    return ["-m", "genmix_transforms", "-q", "fill", str(generator), "--out", str(out), *options]


def test_killed_and_run_again_and_shared_the_bytes_are_the_same(generator_folder: Path, tmp_path: Path) -> None:
    out, shared = tmp_path / "killed", tmp_path / "shared"
    process = subprocess.Popen([sys.executable, *fill_command(generator_folder, out)], env=ENVIRONMENT)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and len(list(out.glob("bank-*"))) < 2:
        time.sleep(0.005)
    assert process.poll() is None, "the fill was over before it could be killed: make it longer"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    for arguments in (
        fill_command(generator_folder, out),
        # Two real processes at once.
        [*"-m torch.distributed.run --standalone --nproc_per_node=2".split(), *fill_command(generator_folder, shared)],
    ):
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, timeout=300, env=ENVIRONMENT
        )
        assert done.returncode == 0, done.stderr
    assert hashes(out) == hashes(shared)
    bank = SyntheticBank.load(out, verify=True)
    assert bank.class_counts == {"cyst": 6000, "metastasis": 5000}


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
        ({"counts": {"cyst": 1}, "seed": -1}, "seed must be a whole number, from 0 to 2147483647, got -1"),
    ],
)
def test_plans_that_cannot_be(options: dict[str, Any], message: str, tiny_dcgan: TinyDCGAN) -> None:
    with pytest.raises(InputError, match=message):
        make_plan(tiny_dcgan(), **options)
