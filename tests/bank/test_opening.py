"""Opening a bank: a part of it, checked or not, in memory or not, and again when it has grown."""

import copy
import multiprocessing
import pickle
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms import GenMix
from genmix_transforms.bank import BankWriter, SyntheticBank, opening, synthetic_bank
from genmix_transforms.bank.curation import largest_remainder
from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError

CLASSES = ("cyst", "hemangioma", "metastasis")
COUNTS = (10, 3, 7)


@pytest.fixture
def folder(tmp_path):
    """Twenty images in five shards; image i is full of the value i."""
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 1, 4, 4).contiguous()
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
    with BankWriter(tmp_path / "bank", classes=CLASSES, image_shape=(1, 4, 4), shard_bytes=64) as writer:
        writer.add(images, labels, seeds=torch.arange(20) + 100)
    return tmp_path / "bank"


def values(bank):
    return bank.rows(torch.arange(len(bank)))[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("resident", [None, True, False])
def test_resident_or_not_it_is_the_same_bank(folder, resident):
    bank = SyntheticBank.load(folder, resident=resident)
    assert bank.resident == (resident is not False)
    assert values(bank) == list(range(20))
    assert (bank.seeds - 100).tolist() == list(range(20))
    assert bank.class_counts == dict(zip(CLASSES, COUNTS, strict=True))
    assert "on disk" in repr(bank) if resident is False else "on disk" not in repr(bank)


def test_all_images_of_a_bank_on_disk_are_brought_when_asked_for(folder):
    bank = SyntheticBank.load(folder, resident=False)
    assert bank.images[:, 0, 0, 0].tolist() == list(range(20))
    assert not bank.resident  # to look at them changes nothing
    assert (bank.seeds - 100).tolist() == list(range(20))


def test_the_ranks_have_every_image_once_and_even_shares(folder):
    banks = [SyntheticBank.load(folder, shard=(rank, 3)) for rank in range(3)]
    assert sorted(value for bank in banks for value in values(bank)) == list(range(20))
    for name, count in zip(CLASSES, COUNTS, strict=True):
        held = [bank.class_counts[name] for bank in banks]
        assert sum(held) == count
        assert max(held) - min(held) <= 1


@pytest.mark.parametrize(("limit", "expected"), [(10, [5, 2, 3]), (1, [1, 0, 0]), (20, [10, 3, 7]), (99, [10, 3, 7])])
def test_a_limit_keeps_the_shares_and_takes_the_first(folder, limit, expected):
    bank = SyntheticBank.load(folder, limit=limit)
    assert list(bank.class_counts.values()) == expected
    firsts = [0, 10, 13]
    assert values(bank) == [first + n for first, count in zip(firsts, expected, strict=True) for n in range(count)]


def test_a_part_with_the_datas_classes(folder):
    bank = SyntheticBank.load(folder, limit=10, shard=(1, 2), classes=["metastasis", "normal", "cyst", "hemangioma"])
    assert bank.class_counts == {"metastasis": 3, "normal": 0, "cyst": 5, "hemangioma": 1}
    assert values(bank) == [14, 16, 18, 1, 3, 5, 7, 9, 11]


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8), st.integers(1, 5000))
def test_largest_remainder(counts, total):
    array = np.array(counts)
    shares = largest_remainder(array, total)
    assert shares.sum() == min(total, array.sum())
    assert (shares <= array).all()
    if array.sum() > total:
        assert (abs(shares - array * total / array.sum()) < 1).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"limit": 0}, "limit must be a whole number, at least 1, got 0"),
        ({"limit": 2.5}, "limit must be a whole number"),
        ({"shard": 1}, r"shard must be \(rank, world\), got 1"),
        ({"shard": (2, 2)}, "shard: rank must be a whole number, from 0 to 1, got 2"),
        ({"shard": (0, 0)}, "shard: world must be a whole number, at least 1, got 0"),
        ({"classes": ["cyst"]}, "hemangioma, metastasis is no class of the data"),
    ],
)
def test_options_that_make_no_sense(folder, options, text):
    with pytest.raises(InputError, match=text):
        SyntheticBank.load(folder, **options)


def test_no_bank(tmp_path):
    with pytest.raises(MissingPathError, match="no such bank"):
        SyntheticBank.load(tmp_path / "none", limit=3)


def flip_a_pixel(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 16
    path.write_bytes(content)


def test_a_small_bank_is_always_held_to_its_checksums(folder):
    flip_a_pixel(folder / "bank-00003.safetensors")
    with pytest.raises(CorruptFileError, match=r"bank-00003\.safetensors: not the bytes that were written"):
        SyntheticBank.load(folder)
    SyntheticBank.load(folder, verify=False)


def test_a_large_bank_is_held_to_them_when_asked(folder, monkeypatch):
    monkeypatch.setattr(opening, "SMALL_BYTES", 100)
    flip_a_pixel(folder / "bank-00003.safetensors")
    assert not SyntheticBank.load(folder).resident
    with pytest.raises(CorruptFileError, match=r"bank-00003\.safetensors: not the bytes that were written"):
        SyntheticBank.load(folder, verify=True)


@pytest.mark.parametrize("pairing", ["any", "same", "balanced"])
@pytest.mark.parametrize("real_partner", [0.0, 0.5])
def test_genmix_does_not_notice_that_a_bank_is_on_disk(folder, pairing, real_partner):
    images, labels = torch.rand(9, 1, 4, 4), torch.arange(9) % 3
    mixed = []
    for resident in (True, False):
        genmix = GenMix(
            SyntheticBank.load(folder, resident=resident),
            pairing=pairing,
            real_partner=real_partner,
            generator=torch.Generator().manual_seed(3),
        )
        mixed.append(genmix(images, labels))
        assert genmix.bank.resident == resident
    for one, other in zip(*mixed, strict=True):
        assert torch.equal(one, other)


def test_a_copy_of_a_bank_on_disk(folder):
    bank = SyntheticBank.load(folder, resident=False)
    other = copy.deepcopy(bank)
    assert values(other) == values(bank)
    assert not other.resident


def append(folder, count, **options):
    images = torch.full((count, 1, 4, 4), 200, dtype=torch.uint8)
    with BankWriter(folder, classes=CLASSES, image_shape=(1, 4, 4), append=True, **options) as writer:
        writer.add(images, torch.zeros(count, dtype=torch.int64))


@pytest.mark.parametrize("resident", [True, False])
def test_refresh_finds_what_was_added(folder, resident):
    bank = SyntheticBank.load(folder, classes=["metastasis", "cyst", "hemangioma"], resident=resident)
    assert bank.refresh() == 0
    append(folder, 4, provenance={"by": "another"})
    assert len(bank) == 20
    assert bank.refresh() == 4
    assert bank.class_counts == {"metastasis": 7, "cyst": 14, "hemangioma": 3}
    assert values(bank) == [*range(13, 20), *range(10), 200, 200, 200, 200, 10, 11, 12]
    assert bank.source.tolist() == [0] * 17 + [1] * 4 + [0] * 3
    assert bank.sources == ({}, {"by": "another"})
    assert bank.resident == resident
    assert bank.refresh() == 0


@pytest.mark.parametrize("resident", [True, False])
def test_refresh_keeps_the_order_of_classes_that_was_asked_for_later(folder, resident):
    order = ["metastasis", "ghost", "hemangioma", "cyst"]
    bank = SyntheticBank.load(folder, resident=resident).with_classes(order)
    with BankWriter(folder, classes=CLASSES, image_shape=(1, 4, 4), append=True) as writer:
        writer.add(torch.full((2, 1, 4, 4), 77, dtype=torch.uint8), torch.tensor([0, 2]))
    assert bank.refresh() == 2
    assert bank.class_counts == {"metastasis": 8, "ghost": 0, "hemangioma": 3, "cyst": 11}
    assert values(bank) == [*range(13, 20), 77, *range(10, 13), *range(10), 77]


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize(
    ("classes", "shape", "soft"),
    [
        (CLASSES[:2], (1, 4, 4), False),
        (tuple(reversed(CLASSES)), (1, 4, 4), False),
        (CLASSES, (1, 2, 2), False),
        (CLASSES, (1, 4, 4), True),
    ],
    ids=["fewer classes", "another order", "smaller images", "soft labels"],
)
def test_another_bank_in_the_place_of_this_one(tmp_path, resident, classes, shape, soft):
    """GenMix has been made for the old one: it would read beyond the end of the new one."""
    labels = torch.arange(6) % len(classes)
    old = SyntheticBank(torch.zeros(6, 1, 4, 4, dtype=torch.uint8), torch.arange(6) % 3, classes=CLASSES)
    old.save(tmp_path / "bank")
    bank = SyntheticBank.load(tmp_path / "bank", resident=resident)
    given = torch.nn.functional.one_hot(labels).float() if soft else labels
    SyntheticBank(torch.ones(6, *shape, dtype=torch.uint8), given, classes=classes).save(
        tmp_path / "bank", overwrite=True
    )
    with pytest.raises(InputError, match="refresh: .* holds another bank now: .*; open it with SyntheticBank.load"):
        bank.refresh()
    assert (bank.classes, bank.image_shape, len(bank)) == (CLASSES, (1, 4, 4), 6)


def test_a_bank_just_saved_is_up_to_date(folder, tmp_path, monkeypatch):
    bank = SyntheticBank.load(folder)
    bank.save(tmp_path / "other")
    monkeypatch.setattr(synthetic_bank, "open_rows", None)  # nothing is opened again
    assert bank.refresh() == 0


def test_a_bank_in_no_folder_cannot_be_refreshed():
    bank = SyntheticBank(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.tensor([0]), classes=["a"])
    with pytest.raises(InputError, match="neither saved nor loaded: there are no files to look at"):
        bank.refresh()


def write_two_hundred_times(folder):
    with BankWriter(folder, classes=CLASSES, image_shape=(1, 4, 4), append=True, shard_bytes=32) as writer:
        for number in range(200):
            writer.add(torch.full((3, 1, 4, 4), number, dtype=torch.uint8), torch.tensor([0, 1, 2]))


def test_a_training_run_takes_in_what_another_process_is_filling(folder):
    """Whole shards only: every image is one that the writer wrote, with its label, and the bank only ever grows."""
    bank = SyntheticBank.load(folder, resident=False)
    genmix = GenMix(bank, pairing="same")
    genmix(torch.rand(6, 1, 4, 4), torch.arange(6) % 3)  # compiled now, and not while the writer is at work
    # Forked: this process would otherwise look for seconds at a folder that nobody writes to yet.
    writer = multiprocessing.get_context("fork").Process(target=write_two_hundred_times, args=(folder,), daemon=True)
    writer.start()
    sizes = [len(bank)]
    deadline = time.monotonic() + 120
    while writer.is_alive() and time.monotonic() < deadline:
        bank.refresh()
        sizes.append(len(bank))
        mixed, _ = genmix(torch.rand(6, 1, 4, 4), torch.arange(6) % 3)
        assert bool(mixed.isfinite().all())
        last = bank.rows(torch.tensor([len(bank) - 1]))
        assert len(last.unique()) == 1
        time.sleep(0.005)  # a training does something else too, and the writer needs the processor
    writer.join(timeout=60)
    assert writer.exitcode == 0
    bank.refresh()
    assert len(bank) == 620
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 3
    assert bank.class_counts == {"cyst": 210, "hemangioma": 203, "metastasis": 207}


def test_the_version_grows_with_every_change_of_the_content(folder):
    bank = SyntheticBank.load(folder)
    before = bank.version
    assert (bank.refresh(), bank.version) == (0, before)
    with BankWriter(folder, classes=CLASSES, image_shape=(1, 4, 4), append=True) as writer:
        writer.add(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]))
    assert bank.version == before
    assert bank.refresh() == 1
    assert bank.version > before


@pytest.mark.parametrize("part", [None, [0, 11, 19]], ids=["all", "a part"])
def test_a_bank_on_disk_that_is_saved_over_its_own_files(folder, part):
    """It can still be sent to another process, which maps the files itself."""
    bank = SyntheticBank.load(folder, resident=False)
    bank = bank if part is None else bank.take(torch.tensor(part))
    bank.save(folder, overwrite=True)
    assert not bank.resident
    again = pickle.loads(pickle.dumps(bank))
    assert values(again) == values(bank) == (list(range(20)) if part is None else part)
    assert again.seeds.tolist() == bank.seeds.tolist()
    assert bank.refresh() == 0


def test_copies_are_left_out_of_a_bank_in_which_they_were_looked_for(tmp_path):
    images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 1, 4, 4).contiguous()
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    flags = torch.tensor([1, 0, 4, 5, 0, 2], dtype=torch.uint8)
    bank = SyntheticBank(images, labels, classes=["a", "b"], distance=torch.full((6,), 0.5))
    bank.replace(flags=flags).save(tmp_path / "marked")
    kept = SyntheticBank.load(tmp_path / "marked", exclude="copies")
    assert kept.images[:, 0, 0, 0].tolist() == [1, 2, 4, 5]
    assert kept.class_counts == {"a": 2, "b": 2}
    renamed = SyntheticBank.load(tmp_path / "marked", exclude="copies", classes=["b", "a"], limit=2, resident=False)
    assert renamed.images[:, 0, 0, 0].tolist() == [4, 1]
    bank.save(tmp_path / "none")
    assert len(SyntheticBank.load(tmp_path / "none", exclude="copies")) == 6
    bank.replace(flags=torch.ones(6, dtype=torch.uint8)).save(tmp_path / "all")
    bank.replace(distance=torch.full((6,), torch.nan)).save(tmp_path / "unmeasured")
    for name, exclude, message in (
        ("all", "copies", "leaves no image: all 6 are near copies"),
        ("unmeasured", "copies", "nobody has looked for copies in this bank; run genmix bank check"),
        ("none", "duplicates", "exclude must be one of copies, got 'duplicates'"),
    ):
        with pytest.raises(InputError, match=message):
            SyntheticBank.load(tmp_path / name, exclude=exclude)
