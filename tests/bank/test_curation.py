"""Curation: every image of a new bank is one of the old, with all that was known of it; the others are not in it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank import BankWriter, Flag, SyntheticBank
from genmix_transforms.bank.curation import largest_remainder
from genmix_transforms.errors import InputError

CLASSES = ("cyst", "hemangioma", "metastasis", "normal")
COUNTS = (10, 3, 7, 0)
TOTAL = sum(COUNTS)
SOURCES = ({"by": "one"}, {"by": "two"}, {"by": "three"})

LABELS = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
NUMBER = torch.arange(TOTAL)
COLUMNS = {
    "seeds": NUMBER + 100,
    "source": (NUMBER % 3).to(torch.int32),
    "distance": NUMBER / 10,
    "flags": (NUMBER % 8).to(torch.uint8),
}


def images_of(number):
    """Image i is full of the value i."""
    return number.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()


def in_memory(*, soft=False, **columns):
    labels = torch.nn.functional.one_hot(LABELS, len(CLASSES)) * 0.7 + 0.3 / len(CLASSES) if soft else LABELS
    return SyntheticBank(
        images_of(NUMBER), labels, classes=CLASSES, provenance=SOURCES, window=(-100, 200), **(COLUMNS | columns)
    )


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """The same twenty images in the same order, dealt to five shards so that each has some of every class."""
    folder = tmp_path_factory.mktemp("bank")
    place = NUMBER - torch.tensor([0, 10, 13, 20])[LABELS]
    order = torch.argsort((place + 0.5) / torch.tensor(COUNTS)[LABELS], stable=True)
    with BankWriter(
        folder, classes=CLASSES, image_shape=(1, 4, 4), shard_bytes=64, provenance=SOURCES, window=(-100, 200)
    ) as writer:
        writer.add(images_of(order), LABELS[order], **{name: column[order] for name, column in COLUMNS.items()})
    return SyntheticBank.load(folder, resident=False)


BANKS = ["in memory", "on disk", "probabilities"]


@pytest.fixture(params=BANKS)
def bank(request, on_disk):
    return {"in memory": in_memory(), "on disk": on_disk, "probabilities": in_memory(soft=True)}[request.param]


def numbers(bank):
    """Which of the twenty images it holds; all that is known of them is that which was."""
    values = bank.rows(torch.arange(len(bank)))[:, 0, 0, 0].long()
    labels = bank.labels if bank.labels.ndim == 1 else bank.labels.argmax(dim=1)
    assert labels.tolist() == LABELS[values].tolist() == sorted(labels.tolist())
    for name, column in COLUMNS.items():
        assert torch.equal(getattr(bank, name), column[values]), name
    assert bank.class_counts == dict(zip(CLASSES, torch.bincount(labels, minlength=4).tolist(), strict=True))
    assert (bank.classes, bank.window, tuple(bank.sources)) == (CLASSES, (-100, 200), SOURCES)
    return values.tolist()


def where(mask):
    return NUMBER[mask].tolist()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"classes": ["metastasis"]}, where(LABELS == 2)),
        ({"classes": ("metastasis", "cyst", "normal")}, where(LABELS != 1)),
        ({"mask": NUMBER % 2 == 0}, where(NUMBER % 2 == 0)),
        ({"mask": (NUMBER == 3).numpy()}, [3]),
        ({"mask": (NUMBER == 3).tolist()}, [3]),
        ({"min_distance": 1.5}, where(NUMBER >= 15)),
        ({"max_distance": 1.5}, where(NUMBER <= 15)),
        ({"min_distance": torch.tensor(0.5), "max_distance": np.float32(0.75)}, [5, 6, 7]),
        ({"flags": Flag.REJECTED}, where(NUMBER % 8 >= 4)),
        ({"flags": Flag.NEAR_COPY | Flag.DUPLICATE}, where(NUMBER % 4 > 0)),
        ({"without_flags": Flag.NEAR_COPY | Flag.DUPLICATE}, where(NUMBER % 4 == 0)),
        ({"sources": 1}, where(NUMBER % 3 == 1)),
        ({"sources": [2, 0]}, where(NUMBER % 3 != 1)),
        ({"classes": ["cyst"], "sources": [1], "without_flags": 4, "max_distance": 0.5}, [1]),
    ],
    ids=str,
)
def test_select(bank, asked, expected):
    resident = bank.resident
    chosen = bank.select(**asked)
    assert chosen.resident == bank.resident == resident
    assert numbers(chosen) == expected
    assert numbers(bank) == NUMBER.tolist()


@pytest.mark.parametrize(
    ("asked", "dropped"),
    [
        ({"index": [3, 3, 0]}, [0, 3]),
        ({"index": torch.tensor([19])}, [19]),
        ({"index": np.array([19, 2])}, [2, 19]),
        ({"index": []}, []),
        ({"classes": ["cyst"]}, where(LABELS == 0)),
        ({"mask": NUMBER < 4}, [0, 1, 2, 3]),
        ({"flags": Flag.DUPLICATE | Flag.REJECTED}, where(NUMBER % 8 >= 2)),
        ({"sources": 0, "classes": ["cyst"]}, [0, 3, 6, 9]),
    ],
    ids=str,
)
def test_drop(bank, asked, dropped):
    assert numbers(bank.drop(**asked)) == [number for number in range(TOTAL) if number not in dropped]


@given(
    classes=st.none() | st.lists(st.sampled_from(CLASSES), max_size=3),
    mask=st.none() | st.lists(st.booleans(), min_size=TOTAL, max_size=TOTAL),
    flags=st.none() | st.integers(1, 7),
    sources=st.none() | st.lists(st.integers(0, 2), max_size=2),
)
def test_select_and_drop_share_the_images_out(on_disk, **asked):
    nothing_asked = all(value is None for value in asked.values())
    refused = "say which images" if nothing_asked else "an empty bank cannot be drawn from"
    parts = []
    for bank in (in_memory(), on_disk):
        for choose in (bank.select, bank.drop):
            try:
                parts.append(numbers(choose(**asked)))
            except InputError as error:
                parts.append([str(error)] if refused not in str(error) else [])
    assert parts[:2] == parts[2:]
    assert sorted(parts[0] + parts[1]) == ([] if nothing_asked else NUMBER.tolist())


@given(flags=st.integers(1, 255))
def test_with_and_without_a_flag_are_all(flags):
    bank = in_memory()
    found = []
    for asked in ({"flags": flags}, {"without_flags": flags}):
        try:
            found += numbers(bank.select(**asked))
        except InputError:
            continue
    assert sorted(found) == NUMBER.tolist()


def test_one_after_the_other_is_both_at_once(bank):
    chain = bank.select(classes=["cyst", "metastasis"]).select(sources=1).drop(flags=4)
    assert numbers(chain) == numbers(bank.select(classes=["cyst", "metastasis"], sources=1, without_flags=4))


def test_what_nobody_has_measured_is_neither_kept_nor_dropped():
    distance = COLUMNS["distance"].clone()
    distance[[2, 12]] = torch.nan
    bank = in_memory(distance=distance)
    for asked in ({"min_distance": 0.1}, {"max_distance": 9}):
        with pytest.raises(
            InputError, match="the distance of 2 of 20 images was never measured, .*mask=~bank.distance"
        ):
            bank.select(**asked)
    with pytest.raises(InputError, match="the distance of 1 of 10 images was never measured"):
        bank.select(max_distance=1, classes=["cyst"])
    chosen = bank.select(mask=~bank.distance.isnan(), max_distance=0.35)
    assert (chosen.seeds - 100).tolist() == [0, 1, 3]


def test_a_class_without_images_stays_a_class(bank):
    chosen = bank.select(classes=["metastasis"])
    assert chosen.class_counts == {"cyst": 0, "hemangioma": 0, "metastasis": 7, "normal": 0}
    index = chosen.labels if chosen.labels.ndim == 1 else chosen.labels.argmax(1)
    assert set(index.tolist()) == {2}


@pytest.mark.parametrize("n", [1, 2, 7, 19, 20])
def test_a_subsample_has_the_banks_proportions(bank, n):
    drawn = bank.subsample(n, seed=3)
    assert len(set(numbers(drawn))) == len(drawn) == n
    assert list(drawn.class_counts.values()) == largest_remainder(np.array(COUNTS), n).tolist()
    assert drawn.resident == bank.resident


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_a_subsample_follows_from_the_seed(on_disk, seed):
    for options in ({"n": 6}, {"n": 2, "per_class": True}):
        drawn = numbers(in_memory().subsample(**options, seed=seed))
        assert drawn == numbers(on_disk.subsample(**options, seed=seed))
        assert drawn == numbers(in_memory(soft=True).subsample(**options, seed=seed))
    assert numbers(on_disk.balance(seed=seed)) == numbers(in_memory().balance(seed=seed))


def test_seeds_differ_and_every_image_has_its_chance():
    bank = in_memory()
    drawn = [numbers(bank.subsample(3, seed=seed, per_class=True)) for seed in range(200)]
    assert len({tuple(some) for some in drawn}) > 150
    times = np.bincount(np.concatenate(drawn), minlength=TOTAL)
    assert times[10:13].tolist() == [200] * 3  # all that the class has
    # 3 of 10, and 3 of 7, in 200 draws: within four standard deviations.
    assert (abs(times[:10] - 60) < 4 * np.sqrt(200 * 0.3 * 0.7)).all()
    assert (abs(times[13:] - 600 / 7) < 4 * np.sqrt(200 * 3 / 7 * 4 / 7)).all()


def test_a_larger_subsample_of_one_seed_has_the_smaller():
    bank = in_memory()
    drawn = [set(numbers(bank.subsample(n, seed=5, per_class=True))) for n in (1, 2, 3)]
    assert drawn[0] < drawn[1] < drawn[2]


def test_classes_are_drawn_independently():
    """Not the same places in two classes of one size."""
    place = torch.arange(200) // 2
    pixels = torch.zeros(200, 1, 4, 4, dtype=torch.uint8)
    bank = SyntheticBank(pixels, torch.arange(200) % 2, classes=["a", "b"], seeds=place)
    first, second = bank.subsample(10, seed=0, per_class=True).seeds.split(10)
    assert first.tolist() != second.tolist()


def test_balance(bank):
    assert bank.balance(seed=1).class_counts == {"cyst": 3, "hemangioma": 3, "metastasis": 3, "normal": 0}
    two = bank.balance(2, seed=1)
    assert two.class_counts == {"cyst": 2, "hemangioma": 2, "metastasis": 2, "normal": 0}
    assert len(set(numbers(two))) == 6
    assert numbers(two) == numbers(bank.subsample(2, seed=1, per_class=True))


def test_a_curated_bank_is_saved_and_comes_back(bank, tmp_path):
    chosen = bank.drop(flags=Flag.REJECTED).subsample(5, seed=0)
    with pytest.raises(InputError, match="no files to check"):
        chosen.verify()
    chosen.save(tmp_path / "bank")
    again = SyntheticBank.load(tmp_path / "bank", verify=True)
    assert numbers(again) == numbers(chosen)
    assert torch.equal(again.labels, chosen.labels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_an_accelerator():
    bank = in_memory().to("cuda")
    chosen = bank.select(classes=["cyst"], mask=(NUMBER < 5).cuda()).subsample(2, seed=0)
    assert chosen.device.type == "cuda"
    assert numbers(chosen.to("cpu")) == numbers(
        in_memory().select(classes=["cyst"], mask=NUMBER < 5).subsample(2, seed=0)
    )


def test_merged_in_memory():
    """Its laws are those of merge_banks, see test_merging.py."""
    one, two = in_memory(), in_memory()
    merged = one.merge(two)
    assert list(merged.class_counts.values()) == [20, 6, 14, 0]
    assert tuple(merged.sources) == SOURCES


def test_select_by_confidence():
    sure = torch.arange(20) / 20
    chosen = in_memory().select(min_confidence=0.5, confidence=sure)
    assert torch.equal(chosen.images, in_memory().images[10:])
    assert len(in_memory().select(min_confidence=0.5, confidence=sure.tolist(), mask=torch.arange(20) < 12)) == 2


# Bad input


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {},
            "select: say which images: give at least one of classes, mask, min_distance, max_distance, flags, without",
        ),
        ({"classes": "cyst"}, "classes must be a list of names, got 'cyst'"),
        ({"classes": ["cyst", "liver"]}, "the bank's classes are cyst, hemangioma, metastasis, normal; not liver"),
        (
            {"classes": ["normal"]},
            "of the bank's 20 images, no image meets all of these conditions; an empty bank cannot be",
        ),
        ({"classes": []}, "no image meets all of these conditions"),
        ({"mask": NUMBER}, r"mask must be bool of shape \(20,\), got int64 of shape \(20,\); .* bank.take\(index\)"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, r"mask must be bool of shape \(20,\), got bool of shape \(3,\)"),
        ({"mask": "all"}, r"mask must be bool of shape \(20,\), got 'all'"),
        ({"min_distance": -1}, "min_distance must be a number, at least 0, got -1"),
        ({"max_distance": "far"}, "max_distance must be a number, at least 0, got 'far'"),
        ({"max_distance": float("nan")}, "max_distance must be a number, at least 0, got nan"),
        ({"max_distance": torch.ones(2)}, "max_distance must be a number, at least 0"),
        ({"min_distance": 2, "max_distance": 1}, "min_distance 2 is larger than max_distance 1"),
        ({"min_distance": 5}, "no image meets all of these conditions"),
        ({"flags": 0}, "select: flags must be a whole number, from 1 to 255, got 0"),
        ({"without_flags": 256}, "select: without_flags must be a whole number, from 1 to 255, got 256"),
        ({"flags": "rejected"}, "flags must be a whole number, from 1 to 255, got 'rejected'"),
        ({"sources": 3}, "a number of the bank's sources must be a whole number, from 0 to 2, got 3"),
        ({"sources": "one"}, "a number of the bank's sources must be a whole number, from 0 to 2, got 'one'"),
        ({"sources": []}, "no image meets all of these conditions"),
        ({"min_confidence": 0.5}, "select: min_confidence is a bound, .*: give both or neither"),
        ({"confidence": torch.ones(20)}, "give both or neither"),
        ({"min_confidence": 2, "confidence": torch.ones(20)}, "a probability, from 0 to 1, got 2"),
        (
            {"min_confidence": 0.5, "confidence": torch.ones(3)},
            r"floats of shape \(20,\), .*got float32 of shape \(3,\)",
        ),
        ({"min_confidence": 0.5, "confidence": NUMBER}, r"floats of shape \(20,\), .*got int64"),
        ({"min_confidence": 0.5, "confidence": torch.full((20,), torch.nan)}, "must be probabilities"),
    ],
    ids=str,
)
def test_what_cannot_be_selected(asked, message):
    with pytest.raises(InputError, match=message):
        in_memory().select(**asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "drop: say which images: give at least one of index, classes, mask, flags, sources"),
        ({"index": [0, 20]}, "images have the numbers 0 to 19, got 0 to 20"),
        ({"index": [-1]}, "images have the numbers 0 to 19, got -1 to -1"),
        ({"index": torch.ones(20, dtype=torch.bool)}, r"int64 of shape \(n,\), got bool of shape \(20,\)"),
        ({"index": 3}, r"index must be numbers, int64 of shape \(n,\), got int64 of shape \(\)"),
        ({"index": [[1]]}, r"got int64 of shape \(1, 1\)"),
        ({"index": "all"}, "index must be numbers, .*got 'all'"),
        ({"mask": [True]}, r"mask must be bool of shape \(20,\), got bool of shape \(1,\); .* with index="),
        ({"classes": CLASSES}, "of the bank's 20 images, no image would be left; an empty bank cannot be drawn from"),
    ],
    ids=str,
)
def test_what_cannot_be_dropped(asked, message):
    with pytest.raises(InputError, match=message):
        in_memory().drop(**asked)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("subsample", {"n": 21, "seed": 0}, "the bank has 20 images, and none is taken twice; got n=21"),
        ("subsample", {"n": 0, "seed": 0}, "subsample: n must be a whole number, at least 1, got 0"),
        ("subsample", {"n": 0.5, "seed": 0}, "subsample: n must be a whole number, at least 1, got 0.5"),
        ("subsample", {"n": 4, "seed": 0, "per_class": True}, "not every class has 4 images, .*twice: hemangioma 3$"),
        ("subsample", {"n": 4, "seed": -1}, "subsample: seed must be a whole number, from 0 to"),
        ("balance", {"n": 8, "seed": 0}, "not every class has 8 images, .*: hemangioma 3, metastasis 7$"),
        ("balance", {"n": 0, "seed": 0}, "balance: n must be a whole number, at least 1, got 0"),
        ("balance", {"seed": 1.5}, "balance: seed must be a whole number"),
    ],
)
def test_what_cannot_be_drawn(method, arguments, message):
    with pytest.raises(InputError, match=message):
        getattr(in_memory(), method)(**arguments)


def test_of_a_bank_without_images():
    empty = SyntheticBank(torch.zeros(0, 1, 4, 4, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), classes=["a"])
    with pytest.raises(InputError, match="a bank without images has none to choose from"):
        empty.balance(seed=0)
    with pytest.raises(InputError, match="the bank has 0 images"):
        empty.subsample(1, seed=0)
    with pytest.raises(InputError, match="of the bank's 0 images"):
        empty.select(classes=["a"])
