"""What GenMix refuses, when it is built and when it is called; and options that are set later."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.transforms.drawing import draw_of

# What is refused: when it is built


BANK = SyntheticBank(
    torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 0, 1, 1]), classes=["cyst", "metastasis", "hemangioma"]
)


def test_a_bank_of_another_window():
    bank = BANK.replace(images=BANK.images)
    bank.window = (-160.0, 240.0)
    GenMix(bank, window=(-160, 240))
    with pytest.raises(InputError, match=r"^GenMix: the bank's gray values are -160 to 240 HU, those of the real"):
        GenMix(bank, window=(-40, 220))
    with pytest.raises(InputError, match="window must be the Hounsfield units of the lowest"):
        GenMix(bank, window=(40,))


def test_numbers_of_numpy_are_numbers():
    genmix = GenMix(BANK, alpha=np.float32(0.5), p=np.float64(1), real_partner=np.int64(0), num_classes=3)
    assert (genmix.alpha, genmix.p, genmix.real_partner) == (0.5, 1.0, 0.0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        *(({"alpha": alpha}, "alpha must be a positive number, got .*; the paper's is 0.3")
          for alpha in (0, -1, float("nan"), float("inf"), "0.3", None, (0.3, 0.3))),
        *(({name: value}, f"{name} is a probability, from 0 to 1, got")
          for name in ("p", "real_partner") for value in (-0.1, 1.1, float("nan"), "1", None)),
        ({"num_classes": 2}, r"num_classes is 2, the bank has 3 classes \(cyst, metastasis, hemangioma\); leave"),
        ({"generator": 7}, r"generator must be a torch.Generator, got int; from a seed: .*manual_seed\(seed\)"),
        ({"labels_getter": "targets"}, "labels_getter must be 'default' or a callable, got 'targets'"),
        ({"class_counts": {"cyst": 3}}, "class_counts lacks metastasis, hemangioma"),
        ({"pairing": "inverse", "class_counts": [1, 2]}, "class_counts must be 3 positive numbers"),
        ({"pairing": "inverse"}, "needs to know how often the real data has each class"),
        ({"pairing": "some"}, "pairing must be one of"),
        ({"pairing": "same"}, "'same' draws from hemangioma, but the bank has no images of it"),
        ({"pairing": torch.full((3, 3), 1 / 3)}, "'matrix' draws from hemangioma"),
    ],
)  # fmt: skip
def test_refused_when_built(options, text):
    with pytest.raises(InputError, match=f"GenMix: .*{text}"):
        GenMix(BANK, **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mean": (1, 2)}, "mean must have one value, or one for each of the bank's 1 channels"),
        ({"std": 0}, "std must be positive"),
    ],
)
def test_refused_normalisation(options, text):
    with pytest.raises(InputError, match=text):
        GenMix(BANK, **options)


@pytest.mark.parametrize("bank", [None, "banks/busi", torch.zeros(4, 1, 2, 2)], ids=["None", "path", "tensor"])
def test_refused_bank(bank):
    with pytest.raises(InputError, match=r"bank must be a SyntheticBank, got .*; open one with SyntheticBank\.load"):
        GenMix(bank)


def test_options_are_by_keyword_only():
    with pytest.raises(TypeError, match="positional"):
        GenMix(BANK, 0.3)


# What is refused: when it is called


IMAGES = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 1])


def text_alone(value):
    """The id of a case: the words of its message, not the pixels of its images."""
    return value if isinstance(value, str) else None


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("sample", "text"),
    [
        ((IMAGES[..., :1], LABELS), r"bank's images are 1 x 2 x 2 \(C x spatial\), .*\(4, 1, 2, 1\); expected"),
        ((IMAGES.expand(4, 3, 2, 2), LABELS), r"batch has shape \(4, 3, 2, 2\); expected \(N, 1, 2, 2\): resize"),
        ((IMAGES[0], LABELS), r"batch has shape \(1, 2, 2\)"),
        ((IMAGES[:3], LABELS), "one label for each image, got 3 images and 4 labels"),
        (((IMAGES * 255).long(), LABELS), r"float64, uint8 or uint16, got torch.int64: put v2\.ToDtype\("),
        ((IMAGES > 0.5, LABELS), "float64, uint8 or uint16, got torch.bool.*leave a mask out"),
        ({"mask": (IMAGES > 0.5).byte(), "image": IMAGES, "label": LABELS}, r"cannot tell .*tv_tensors\.Image"),
        ((tv_tensors.Image(torch.rand(4, 1, 3, 3)), LABELS, IMAGES), r"shape \(4, 1, 3, 3\); expected \(N, 1, 2, 2\)"),
        ((IMAGES.to("meta"), LABELS), r"images are on meta, its labels on cpu, the bank on .*genmix\.to\('meta'\)"),
        ((IMAGES, LABELS.to("meta")), "images are on cpu, its labels on meta"),
        ((IMAGES, LABELS + 1), "labels run from 1 to 3, but there are 3 classes"),
        ((IMAGES, LABELS.float()), "must be class indices, whole numbers, got torch.float32"),
        ((IMAGES, torch.ones(4, 2)), r"must have a column a class, got \(4, 2\) for 3 classes"),
        ((IMAGES, [0, 1, 2, 1]), "the labels must be a tensor, got a list"),
        ({"image": IMAGES, "labels": [0, 1, 2, 1]}, "the labels must be a tensor, got a list"),
        ({"image": IMAGES, "target": LABELS}, "could not tell where the labels are"),
        (IMAGES, "expected a sample of images and labels, got one tensor"),
        ((IMAGES,), "expected a sample of images and labels, got one tensor"),
        ((), "expected a sample of images and labels, got 0 item"),
        ({"labels": LABELS, "path": "a.png"}, "the sample holds labels but no images"),
        ((tv_tensors.Mask(torch.zeros(4, 2, 2)), LABELS), "got a Mask: masks, boxes, keypoints and PIL images"),
        ({"image": IMAGES, "label": LABELS, "mask": tv_tensors.Mask(torch.zeros(4, 2, 2))}, "got a Mask"),
        ((IMAGES, LABELS, tv_tensors.BoundingBoxes([0, 0, 1, 1], format="XYXY", canvas_size=(2, 2))), "BoundingBoxes"),
        ((IMAGES, LABELS, tv_tensors.KeyPoints([[0, 0]], canvas_size=(2, 2))), "got a KeyPoints"),
        (([Image.new("L", (2, 2))], LABELS), "got a Image: masks"),
    ],
    ids=text_alone,
)  # fmt: skip
def test_refused_when_called(sample, text, training):
    """In eval() too: what is wrong in training should not wait for it."""
    genmix = GenMix(BANK).train(training)
    before = IMAGES.clone()
    with pytest.raises(InputError, match=text):
        genmix(*sample) if isinstance(sample, tuple) else genmix(sample)
    assert torch.equal(before, IMAGES)


@pytest.mark.parametrize(
    ("images", "change", "text"),
    [
        (IMAGES[:3], {}, r"params must have the tensors lam, index, from_batch, each of shape \(3,\)"),
        (torch.rand(7, 1, 2, 2), {}, r"each of shape \(7,\)"),
        (IMAGES, {"index": torch.tensor([0, 0, 10**9, 0])}, "params point outside the bank"),
        (torch.rand(4, 1, 64, 64), {}, r"batch has shape \(4, 1, 64, 64\); expected \(N, 1, 2, 2\)"),
        (torch.rand(4, 3, 2, 2), {}, r"batch has shape \(4, 3, 2, 2\)"),
        (IMAGES.long(), {}, "uint8 or uint16, got torch.int64"),
    ],
)
def test_a_draw_is_applied_to_nothing_that_it_does_not_fit(images, change, text):
    """The compiled loops look at no bounds: they would read what lies behind the bank, or leave images unwritten."""
    genmix = GenMix(BANK)
    params = genmix.make_params([IMAGES, LABELS])
    with pytest.raises(InputError, match=f"GenMix: .*{text}"):
        genmix.transform(images, {**params, **change})


@pytest.mark.parametrize(
    ("getter", "text"),
    [
        (
            lambda sample: sample[1].long() + 0,
            "must return one of the sample's own tensors, not a new one made from it",
        ),
        (lambda sample: None, "the labels must be a tensor, got a NoneType"),
        (lambda sample: [0, 1], "the labels must be a tensor, got a list"),
    ],
)
def test_refused_labels_of_a_getter(getter, text):
    with pytest.raises(InputError, match=text):
        GenMix(BANK, labels_getter=getter)(IMAGES, LABELS)


def test_a_bank_without_classes_of_the_batch_is_found_by_the_labels():
    """A bank of two classes in the training of three: refused at the first batch, not mixed in silently."""
    bank = SyntheticBank(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1]), classes=["a", "b"])
    with pytest.raises(InputError, match="labels run from 0 to 2, but there are 2 classes"):
        GenMix(bank)(IMAGES, LABELS)


def test_v2_transforms_of_masks_stand_before_it():
    """What is refused here is what MixUp refuses as well."""
    with pytest.raises(ValueError, match="does not support PIL images, bounding boxes, keypoints and masks"):
        v2.MixUp(num_classes=3)(tv_tensors.Mask(torch.zeros(4, 2, 2)), LABELS)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("alpha", 0, "alpha must be a positive number, got 0"),
        ("p", 1.5, "p is a probability, from 0 to 1, got 1.5"),
        ("real_partner", "half", "real_partner is a probability, from 0 to 1, got 'half'"),
    ],
)
def test_options_that_are_set_later_are_checked_too(name, value, text):
    genmix = GenMix(BANK)
    before = getattr(genmix, name)
    with pytest.raises(InputError, match=f"GenMix: {text}"):
        setattr(genmix, name, value)
    assert getattr(genmix, name) == before


def test_options_can_change_as_training_goes_on():
    """A schedule of alpha, an end of mixing."""
    genmix = GenMix(BANK)
    genmix(IMAGES, LABELS)
    assert bool((genmix.params["lam"] > 0).all())
    genmix.p = 0.0
    assert torch.equal(genmix(IMAGES, LABELS)[0], IMAGES)
    genmix.p, genmix.alpha = 1.0, 1e6
    genmix(IMAGES, LABELS)
    assert bool((genmix.params["lam"] > 0.99).all())
    genmix.real_partner, genmix.per_sample = 1.0, False
    genmix(IMAGES, LABELS)
    assert bool(genmix.params["from_batch"].all())
    assert len(genmix.params["lam"].unique()) == 1
    assert "alpha=1000000.0" in str(genmix)


def test_in_place_is_refused_where_images_share_memory():
    with pytest.raises(InputError, match=r"cannot write into an expanded batch, .*; give images.clone\(\)"):
        GenMix(BANK, inplace=True)(IMAGES[:1].expand(4, 1, 2, 2), LABELS)


# Another bank


def test_the_bank_cannot_be_replaced():
    """Shapes, units and pairing follow from it: another one was read beyond its end, or with its classes swapped."""
    genmix = GenMix(BANK)
    small = SyntheticBank(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), torch.tensor([0]), classes=BANK.classes)
    swapped = SyntheticBank(BANK.images, BANK.labels, classes=["metastasis", "cyst", "hemangioma"])
    for other in (small, swapped, BANK, None):
        with pytest.raises(InputError, match=r"GenMix: the bank cannot be replaced: .*; make a new one, GenMix\(bank"):
            genmix.bank = other
    assert genmix.bank is BANK
    assert dict(genmix.named_children()) == {"bank": BANK}


def test_a_foreign_bank_is_never_read_beyond_its_end():
    """Whoever puts one in by the back door: its shape is looked at whenever it is mixed with, and so is every row."""
    genmix = GenMix(SyntheticBank(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4).long(), classes=["a"]))
    small = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    genmix._modules["bank"] = SyntheticBank(small, torch.zeros(4).long(), classes=["a"])
    with pytest.raises(InputError, match="the bank's images are 1 x 2 x 2"):
        genmix(torch.zeros(4, 1, 8, 8), torch.zeros(4).long())


@pytest.mark.parametrize("index", [4, -1, 2**40])
def test_a_replayed_draw_of_another_bank_poisons_what_cannot_be_looked_at(index):
    """On an accelerator, and in a graph, nobody may wait: the row is 0, and lambda is NaN, as is the loss then."""
    params = {
        "lam": torch.full((4,), 0.5),
        "index": torch.tensor([0, index, 1, 5]),
        "from_batch": torch.tensor([False, False, True, True]),
    }
    step = torch.compile(
        lambda: draw_of(params, 4, bank_size=4, device=torch.device("cpu")), fullgraph=True, backend="eager"
    )
    torch._dynamo.reset()
    lam, rows, from_batch = step()
    assert rows.tolist() == [0, 0, 1, 0]
    assert lam.isnan().tolist() == [False, True, False, True]
    assert torch.equal(from_batch, params["from_batch"])
    there = draw_of(params, 4, bank_size=4, device=torch.device("meta"))  # and nothing is read
    assert there.index.device.type == "meta"


def test_what_another_genmix_drew_is_looked_at():
    """A dict that remembers its draw is trusted for banks that are at least as large as the one that was drawn from."""
    large = SyntheticBank(torch.zeros(400, 1, 2, 2, dtype=torch.uint8), torch.zeros(400).long(), classes=["a"])
    small = SyntheticBank(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.tensor([0]), classes=["a"])
    labels = torch.zeros(50, dtype=torch.int64)
    images = torch.zeros(50, 1, 2, 2)
    params = GenMix(large).make_params([images, labels])
    for apply in (
        lambda: GenMix(small).transform(images, params),
        lambda: GenMix(small)(images, labels, params=params),
    ):
        with pytest.raises(InputError, match=r"params point outside the bank \(1 images\)"):
            apply()
    assert torch.equal(GenMix(large).transform(images, params), torch.zeros(50, 1, 2, 2))


@pytest.mark.parametrize("name", ["index", "from_batch"])
def test_what_is_written_into_a_draw_is_looked_at(name):
    genmix = GenMix(BANK)
    params = genmix.make_params([IMAGES, LABELS])
    params[name].fill_(1)
    expected = genmix(IMAGES, LABELS, params=dict(params))
    assert torch.equal(genmix.transform(IMAGES, params), expected[0])
    params["index"].fill_(9)
    with pytest.raises(InputError, match="params point outside"):
        genmix.transform(IMAGES, params)
