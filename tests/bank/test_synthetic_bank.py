"""The bank in memory: sorted by class, with everything that belongs to an image staying with it."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError

CLASSES = ("cyst", "hemangioma", "metastasis")
MANY = 37  # images whose pixels are their own number, at most


def numbered(count, shape=(1, 2, 2)):
    """Image n is filled with n."""
    return torch.arange(count).view(-1, *[1] * len(shape)).expand(-1, *shape).to(torch.uint8)


def numbers(bank):
    """Which images a bank of numbered ones holds, in its order."""
    return bank.images[:, 0, 0, 0].tolist()


# From tensors


def test_sorted_by_class_and_stable(make_bank):
    bank = SyntheticBank(
        numbered(7), torch.tensor([2, 0, 1, 0, 2, 2, 1]), classes=CLASSES, seeds=1000 + torch.arange(7)
    )
    assert bank.labels.tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert numbers(bank) == [1, 3, 2, 6, 0, 4, 5]
    assert bank.seeds.tolist() == [1001, 1003, 1002, 1006, 1000, 1004, 1005]
    assert bank.class_start.tolist() == [0, 2, 4]
    assert bank.class_count.tolist() == [2, 2, 3]
    assert bank.class_counts == {"cyst": 2, "hemangioma": 2, "metastasis": 3}
    assert (len(bank), bank.num_classes, bank.image_shape) == (7, 3, (1, 2, 2))


@pytest.mark.parametrize("labels", [[1, 0, 2, 0, 1], [0, 0, 1, 1, 2]])
def test_the_order_says_which_of_the_given_images_each_is(labels, tmp_path):
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)
    bank = SyntheticBank(images, torch.tensor(labels), classes=["a", "b", "c"])
    assert torch.equal(bank.images, images[bank.order])
    assert torch.equal(bank.labels, torch.tensor(labels)[bank.order])
    rows = torch.eye(3)[labels]
    assert torch.equal(SyntheticBank(images, rows, classes=["a", "b", "c"]).order, bank.order)
    bank.save(tmp_path / "bank")
    assert SyntheticBank.load(tmp_path / "bank").order is None
    assert bank.take(torch.tensor([0])).order is None


def test_classes_without_images_count_zero():
    bank = SyntheticBank(numbered(3), torch.tensor([3, 1, 3]), classes=list("abcde"))
    assert bank.class_count.tolist() == [0, 1, 0, 2, 0]
    assert bank.class_start.tolist() == [0, 0, 1, 1, 3]


def test_an_empty_bank():
    bank = SyntheticBank(torch.zeros(0, 1, 4, 4, dtype=torch.uint8), torch.tensor([]).long(), classes=CLASSES)
    assert len(bank) == 0
    assert bank.class_counts == {"cyst": 0, "hemangioma": 0, "metastasis": 0}


def test_defaults():
    bank = SyntheticBank(numbered(2), torch.tensor([0, 1]), classes=["a", "b"])
    assert bank.seeds.tolist() == [-1, -1]
    assert (bank.window, bank.provenance) == (None, {})


def test_sorted_images_are_not_copied():
    images = numbered(4).contiguous()
    bank = SyntheticBank(images, torch.tensor([0, 0, 1, 2]), classes=CLASSES)
    assert bank.images.data_ptr() == images.data_ptr()


def test_what_was_given_is_not_changed():
    images, labels = numbered(4).clone(), torch.tensor([2, 0, 1, 0])
    SyntheticBank(images, labels, classes=CLASSES)
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert labels.tolist() == [2, 0, 1, 0]


def test_probabilities_sort_by_the_likeliest_class():
    rows = torch.tensor([[0.2, 0.8], [0.9, 0.1], [0.5, 0.5], [0.3, 0.7]], dtype=torch.float64)
    bank = SyntheticBank(numbered(4), rows, classes=["a", "b"])
    assert numbers(bank) == [1, 2, 0, 3]  # a tie counts for the first
    assert bank.labels.dtype == torch.float32
    assert torch.equal(bank.labels, rows[[1, 2, 0, 3]].float())
    assert bank.class_count.tolist() == [2, 2]
    assert bank.soft_labels is bank.labels
    assert "torch.uint8, soft labels, cpu; a 2, b 2" in repr(bank)
    hard = SyntheticBank(numbered(4), torch.tensor([0, 1, 0, 1]), classes=["a", "b"])
    assert hard.soft_labels is None
    assert "soft" not in repr(hard)


@given(
    labels=st.lists(st.integers(0, 4), max_size=MANY),
    soft=st.booleans(),
    dtype=st.sampled_from([torch.uint8, torch.uint16]),
)
def test_laws_of_a_bank(labels, soft, dtype):
    count = len(labels)
    index = torch.tensor(labels, dtype=torch.int64)
    given_labels = torch.eye(5)[index] if soft else index
    bank = SyntheticBank(numbered(count).to(dtype), given_labels, classes=list("abcde"), seeds=torch.arange(count))
    found = bank.labels.argmax(dim=1) if soft else bank.labels
    # Image, label and seed of each stay together, and none is lost.
    assert sorted(bank.seeds.tolist()) == list(range(count))
    assert numbers(bank) == bank.seeds.tolist()
    assert [labels[seed] for seed in bank.seeds.tolist()] == found.tolist()
    # A class lies from its start on, as long as its count, in the order it came in.
    assert int(bank.class_count.sum()) == count
    for number, (start, size) in enumerate(zip(bank.class_start.tolist(), bank.class_count.tolist(), strict=True)):
        assert found[start : start + size].tolist() == [number] * size
        seeds = bank.seeds[start : start + size].tolist()
        assert seeds == sorted(seeds)
        assert size == Counter(labels)[number]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"images": torch.zeros(2, 1, 4, 4)}, "images must be a uint8 or uint16 tensor"),
        ({"labels": torch.tensor([0, 3])}, "labels run from 0 to 3, but there are 3 classes"),
        ({"classes": ["a", "a", "b"]}, "classes must be different names"),
        ({"seeds": torch.zeros(2)}, "seeds must be int64"),
        ({"window": (1.0,)}, "window must be"),
        ({"provenance": {"x": torch.zeros(1)}}, "provenance must be"),
    ],
)
def test_refused_when_built(changes, text):
    arguments = {"images": numbered(2), "labels": torch.tensor([0, 1]), "classes": CLASSES, **changes}
    with pytest.raises(InputError, match=f"SyntheticBank: {text}"):
        SyntheticBank(arguments.pop("images"), arguments.pop("labels"), **arguments)


# As a module


def test_is_in_no_checkpoint_and_moves_with_the_model(make_bank):
    model = nn.ModuleDict({"net": nn.Linear(2, 2), "bank": make_bank()})
    assert model.state_dict().keys() == {"net.weight", "net.bias"}
    model.to("meta")
    assert {buffer.device.type for buffer in model["bank"].buffers()} == {"meta"}
    names = [name.rpartition(".")[2] for name, _ in model["bank"].named_buffers()]
    assert sorted(names) == ["class_count", "class_start", "labels", "pixels"]


@pytest.mark.parametrize("soft", [False, True])
def test_a_model_in_half_precision_leaves_the_bank_as_it_is(make_bank, same, soft):
    labels = torch.tensor([[0.1, 0.2, 0.7], [1 / 3, 1 / 3, 1 / 3]]) if soft else [1, 0]
    bank = make_bank(labels)
    nn.ModuleList([bank]).half().double().bfloat16()
    same(bank, make_bank(labels))


def test_print_says_what_is_in_it(make_bank):
    text = str(make_bank(shape=(3, 8, 8), dtype=torch.uint16))
    assert "7 images, 3 x 8 x 8, torch.uint16, cpu" in text
    assert "cyst 2, hemangioma 2, metastasis 3" in text


# Pixels and values


@pytest.mark.parametrize(("dtype", "highest"), [(torch.uint8, 255), (torch.uint16, 65535)])
def test_unit_brings_pixels_to_the_normalised_range(make_bank, dtype, highest):
    bank = make_bank(shape=(3, 2, 2), dtype=dtype)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    scale, shift = bank.unit(mean=mean, std=std)
    assert scale.shape == shift.shape == (3, 1, 1)
    assert scale.dtype == shift.dtype == torch.float32
    for pixel in (0, 1, highest // 3, highest):
        expected = [(pixel / highest - m) / s for m, s in zip(mean, std, strict=True)]
        assert (pixel * scale + shift).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_unit_without_a_normalisation_is_zero_to_one(make_bank):
    scale, shift = make_bank().unit()
    assert scale.tolist() == [[[pytest.approx(1 / 255)]]]
    assert shift.tolist() == [[[0]]]
    assert float(255 * scale) == 1


@pytest.mark.parametrize("mean", [0.5, [0.5], (0.5, 0.5), torch.tensor(0.5), np.array([0.5, 0.5])], ids=repr)
def test_unit_takes_one_value_for_all_channels(make_bank, mean):
    scale, shift = make_bank(shape=(2, 3, 4, 5)).unit(mean=mean, std=0.5)
    assert scale.shape == (2, 1, 1, 1)  # volumes
    assert shift.flatten().tolist() == [-1, -1]
    assert scale.flatten().tolist() == pytest.approx([2 / 255] * 2)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mean": (0.5, 0.5)}, "mean must have one value, or one for each of the bank's 3 channels, got 2"),
        ({"std": (1, 1, 1, 1)}, "std must have one value, or one for each of the bank's 3 channels, got 4"),
        ({"std": (1, 0, 1)}, r"std must be positive, got \(1, 0, 1\)"),
        ({"std": -1.0}, r"std must be positive, got -1.0"),
        ({"std": float("nan")}, "std must be finite"),
        ({"mean": (float("inf"),)}, "mean must be finite"),
        ({"mean": "a"}, "mean must be numbers, one a channel"),
    ],
)
def test_unit_refused(make_bank, options, text):
    with pytest.raises(InputError, match=text):
        make_bank(shape=(3, 2, 2)).unit(**options)


# Classes by name


def named(bank):
    """What each seed's image is: ``{seed: (pixels, class name)}``, whatever the order of the bank."""
    labels = bank.labels.argmax(dim=1) if bank.labels.ndim == 2 else bank.labels
    return {
        seed: (image.tolist(), bank.classes[label])
        for seed, image, label in zip(bank.seeds.tolist(), bank.images, labels.tolist(), strict=True)
    }


@pytest.mark.parametrize("soft", [False, True])
@given(order=st.permutations([*CLASSES, "abscess", "normal"]))
def test_with_classes_keeps_every_name(soft, order):
    index = torch.tensor([2, 0, 1, 0, 2, 2, 1])
    rows = torch.eye(3)[index] * 0.6 + 0.4 / 3
    bank = SyntheticBank(
        numbered(7),
        rows if soft else index,
        classes=CLASSES,
        seeds=torch.arange(7),
        window=(0, 1),
        provenance={"a": 1},
    )
    mapped = bank.with_classes(order)
    assert mapped.classes == tuple(order)
    assert named(mapped) == named(bank)
    assert mapped.class_counts == {"abscess": 0, "normal": 0, **bank.class_counts}
    assert (mapped.window, mapped.provenance) == ((0.0, 1.0), {"a": 1})
    if soft:  # each column goes where its name goes, the new ones are 0
        by_name = dict(zip(order, mapped.labels[mapped.seeds.argsort()].T, strict=True))
        for name, column in zip(CLASSES, rows.T, strict=True):
            assert torch.equal(by_name[name], column)
        assert not by_name["abscess"].any()
    assert torch.equal(mapped.with_classes(order).images, mapped.images)


def test_replace_keeps_everything_else_of_each_image(tmp_path):
    bank = SyntheticBank(
        numbered(6),
        torch.tensor([2, 0, 1, 0, 2, 1]),
        classes=CLASSES,
        seeds=1000 + torch.arange(6),
        source=torch.tensor([0, 1, 0, 1, 0, 1], dtype=torch.int32),
        distance=torch.arange(6).float(),
        flags=torch.arange(6, dtype=torch.uint8),
        window=(-160, 240),
        provenance=[{"seed": 0}, {"seed": 1}],
    )
    bank.save(tmp_path)
    for held in (bank, SyntheticBank.load(tmp_path, resident=False)):
        inverted = held.replace(
            images=255 - held.images, provenance=[{"inverted": True, **one} for one in held.sources]
        )
        assert torch.equal(inverted.images, 255 - bank.images)
        for name in ("labels", "seeds", "source", "distance", "flags"):
            assert torch.equal(getattr(inverted, name), getattr(bank, name)), name
        assert (inverted.classes, inverted.window) == (CLASSES, (-160, 240))
        assert [one["seed"] for one in inverted.sources] == [0, 1]
        assert inverted.provenance == {"inverted": True}
    assert numbers(bank) == [1, 3, 2, 5, 0, 4]


def test_replace_refuses_what_does_not_fit(make_bank):
    bank = make_bank()
    with pytest.raises(InputError, match="flags must be uint8"):
        bank.replace(flags=torch.zeros(1))
    with pytest.raises(TypeError, match="colour"):
        bank.replace(colour=1)


def test_with_the_same_classes_it_is_the_same_bank(make_bank):
    bank = make_bank()
    assert bank.with_classes(list(CLASSES)) is bank


def test_with_classes_changes_nothing_in_the_bank_it_was_called_on(make_bank, same):
    bank = make_bank()
    bank.with_classes(CLASSES[::-1])
    same(bank, make_bank())


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        (["cyst", "hemangioma"], "the data's cyst, hemangioma: metastasis is no class of the data"),
        (["Cyst", "hemangioma", "metastases"], "cyst, metastasis is no class of the data"),
        ("cyst", "must be a list of names"),
        ([], "at least one"),
    ],
)
def test_with_classes_refused(make_bank, classes, text):
    with pytest.raises(InputError, match=text):
        make_bank().with_classes(classes)
