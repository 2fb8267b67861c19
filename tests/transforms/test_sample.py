"""What a sample holds: which of its tensors are images, where its labels are, and what the bank can be mixed with."""

import PIL.Image
import pytest
import torch
from torch.utils._pytree import tree_leaves
from torchvision import tv_tensors
from torchvision.transforms.v2._utils import _parse_labels_getter

from genmix_transforms.errors import InputError
from genmix_transforms.transforms.sample import (
    check_images,
    find_images,
    find_labels,
    parse_labels_getter,
    take_apart,
)

SHAPE = (3, 8, 8)
LABELS = torch.tensor([0, 1, 2, 1])
IMAGES = torch.rand(4, *SHAPE)

AGES, NAMES = torch.rand(4), ["a", "b", "c", "d"]
ROWS = torch.rand(4, 3)


# Finding


@pytest.mark.parametrize(
    ("flat", "places"),
    [
        ([IMAGES, LABELS], [0]),
        ([LABELS, IMAGES], [1]),
        ([AGES, IMAGES, LABELS, NAMES, ROWS, None, 3, "a"], [1]),  # other tensors pass, and what is no tensor
        ([IMAGES, LABELS, IMAGES.double(), AGES, IMAGES.clone()], [0]),  # several plain ones: the first, as v2.MixUp
        ([IMAGES, IMAGES, LABELS], [0]),  # the same tensor twice
        ([IMAGES, IMAGES.byte(), LABELS], [0]),  # a mask after the image
        ([IMAGES.byte(), IMAGES.byte(), IMAGES > 0.5, LABELS], [0]),  # of integers the first is the image, too
        ([tv_tensors.Image(IMAGES), LABELS], [0]),
        ([LABELS, tv_tensors.Video(IMAGES), tv_tensors.Image(IMAGES)], [1, 2]),
        ([IMAGES, LABELS, tv_tensors.Image(IMAGES)], [2]),  # beside wrapped images, plain tensors are something else
        ([torch.rand(4, 3, 8), IMAGES, LABELS, torch.rand(4, 3, 8, 8, 8)], [1]),  # by the number of dimensions
        ([torch.rand(0, *SHAPE), torch.empty(0, dtype=torch.int64)], [0]),
    ],
)
def test_places(flat, places):
    labels = next(item for item in flat if isinstance(item, torch.Tensor) and item.dtype == torch.int64)
    assert find_images(flat, labels, SHAPE) == places


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_a_mask_before_the_image_is_not_taken_for_it(dtype):
    """Nobody can tell which is which; it is not guessed."""
    mask = (IMAGES > 0.5).to(dtype)
    text = (
        rf"cannot tell the image from a mask: the sample's first tensor of 4 dimensions is {dtype}, and a later one is "
        r"floating-point; wrap the image with tv_tensors\.Image, or leave the mask out of the sample"
    )
    for flat in ([mask, IMAGES, LABELS], [LABELS, AGES, mask, mask, IMAGES.half()]):
        with pytest.raises(InputError, match=text):
            find_images(flat, LABELS, SHAPE)
    assert find_images([mask, tv_tensors.Image(IMAGES), LABELS], LABELS, SHAPE) == [1]


def test_the_labels_are_no_images_though_they_have_their_shape():
    """Labels with four dimensions are refused elsewhere, but they are not mixed as images."""
    labels = torch.rand(4, *SHAPE)
    assert find_images([labels, IMAGES], labels, SHAPE) == [1]
    with pytest.raises(InputError, match="holds labels but no images"):
        find_images([labels, "a", 3], labels, SHAPE)


@pytest.mark.parametrize(
    ("shape", "image_shape"),
    [((4, 1, 4, 8, 8), (1, 4, 8, 8)), ((4, 2, 9), (2, 9))],  # volumes, signals
)
def test_other_dimensions(shape, image_shape):
    images = torch.rand(shape)
    assert find_images([AGES, images, LABELS, IMAGES], LABELS, image_shape) == [1]
    assert find_images([LABELS, tv_tensors.Image(images)], LABELS, image_shape) == [1]


REFUSED = {
    "Mask": tv_tensors.Mask(torch.zeros(4, 8, 8)),
    "BoundingBoxes": tv_tensors.BoundingBoxes(torch.zeros(4, 4), format="XYXY", canvas_size=(8, 8)),
    "KeyPoints": tv_tensors.KeyPoints(torch.zeros(4, 2), canvas_size=(8, 8)),
    "Image": PIL.Image.new("L", (8, 8)),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("images", [IMAGES, tv_tensors.Image(IMAGES)])
def test_what_cannot_be_mixed(images, name):
    """Also beside images: a mask that stays as it is would no longer fit them."""
    text = (
        f"GenMix: takes batches of images and class labels, got a {name}: masks, boxes, keypoints and PIL images "
        "cannot be mixed; leave them out of the sample"
    )
    for flat in ([images, LABELS, REFUSED[name]], [REFUSED[name], images, LABELS], [REFUSED[name], LABELS]):
        with pytest.raises(InputError, match=text):
            find_images(flat, LABELS, SHAPE)


@pytest.mark.parametrize("flat", [[LABELS], [LABELS, "a", 3, None]])
def test_no_images(flat):
    with pytest.raises(InputError, match="GenMix: the sample holds labels but no images"):
        find_images(flat, LABELS, SHAPE)


def test_nothing_with_the_dimensions_of_the_banks_images():
    """The first other tensor is taken for what was meant as the images, and told about."""
    text = (
        r"GenMix: the bank's images are 3 x 8 x 8 \(C x spatial\), the batch has shape \(4, 3, 8, 8, 8\); "
        r"expected \(N, 3, 8, 8\): resize one to the other"
    )
    with pytest.raises(InputError, match=text):
        find_images([LABELS, torch.rand(4, 3, 8, 8, 8), AGES], LABELS, SHAPE)


# Taking apart


@pytest.mark.parametrize(
    "sample",
    [
        (IMAGES, LABELS),
        [IMAGES, LABELS],
        {"labels": LABELS, "image": IMAGES},
        (IMAGES, {"label": LABELS, "age": AGES}, "a"),
    ],
)
def test_a_sample_is_taken_apart_and_put_together(sample):
    parts = take_apart(sample, LABELS, SHAPE)
    assert [parts.flat[place] is IMAGES for place in parts.images] == [True]
    assert parts.flat[parts.labels] is LABELS
    again = parts.put_together()
    assert type(again) is type(sample)
    for one, other in zip(tree_leaves(again), tree_leaves(sample), strict=True):
        assert one is other


def test_labels_that_are_not_the_samples_own():
    with pytest.raises(InputError, match="labels_getter must return one of the sample's own tensors, not a new one"):
        take_apart((IMAGES, LABELS), LABELS.clone(), SHAPE)


# Checking


@pytest.mark.parametrize(
    "shape", [(4, 1, 8, 8), (4, 3, 8, 9), (4, 3, 4, 16), (3, 8, 8), (4, 3, 8, 8, 1), (4, 192), (4,)]
)
def test_another_shape(shape):
    text = rf"the bank's images are 3 x 8 x 8 .*the batch has shape \({', '.join(map(str, shape))},?\); expected"
    with pytest.raises(InputError, match=text):
        check_images(torch.rand(shape), LABELS, SHAPE)


@pytest.mark.parametrize("count", [0, 3, 5])
def test_another_number(count):
    with pytest.raises(InputError, match=f"GenMix: one label for each image, got {count} images and 4 labels"):
        check_images(torch.rand(count, *SHAPE), LABELS, SHAPE)
    with pytest.raises(InputError, match=f"GenMix: one label for each image, got 4 images and {count} labels"):
        check_images(IMAGES, torch.zeros(count, 3), SHAPE)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.bool, torch.complex64])
def test_another_dtype(dtype):
    """Among them are masks that are not marked as such: whole numbers that are no pixels."""
    text = (
        f"GenMix: images must be float16, bfloat16, float32, float64, uint8 or uint16, got {dtype}: "
        r"put v2\.ToDtype\(torch\.float32, scale=True\) before, or leave a mask out of the sample"
    )
    with pytest.raises(InputError, match=text):
        check_images(IMAGES.to(dtype), LABELS, SHAPE)


def test_eight_bit_floats_are_refused():
    with pytest.raises(
        InputError, match="images must be float16, bfloat16, float32, float64, uint8 or uint16, got torch.float8_e4m3fn"
    ):
        check_images(IMAGES.to(torch.float8_e4m3fn), LABELS, SHAPE)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.uint16]
)
def test_what_can_be_mixed(dtype):
    for images in (IMAGES.to(dtype), tv_tensors.Image(IMAGES.to(dtype)), torch.empty(4, *SHAPE, dtype=dtype)):
        check_images(images, LABELS, SHAPE)
    check_images(torch.empty(0, *SHAPE, dtype=dtype), LABELS[:0], SHAPE)
    check_images(IMAGES.to(dtype).to(memory_format=torch.channels_last), torch.rand(4, 3), SHAPE)


def test_where_there_are_no_values():
    """Nothing is read: a check on every step must not wait for a GPU."""
    check_images(torch.empty(4, *SHAPE, device="meta"), torch.empty(4, dtype=torch.int64, device="meta"), SHAPE)


# Labels: the same places as torchvision's MixUp looks

KEYS = ["labels", "Labels", "LABELS", "label", "label_ids", "my_Label", "gt_labels"]
BOTH_FIND = [
    (IMAGES, LABELS),
    [IMAGES, LABELS],
    (IMAGES, LABELS, torch.zeros(2)),
    *({"image": IMAGES, key: LABELS} for key in KEYS),
    *((IMAGES, {"path": "a", key: LABELS}) for key in KEYS),
    {"label": IMAGES, "labels": LABELS},  # "labels" before what only contains "label"
    {"label": LABELS, "other_label": IMAGES},  # of several, the first
]


@pytest.mark.parametrize("sample", BOTH_FIND)
def test_finds_what_torchvision_finds(sample):
    assert find_labels(sample) is LABELS
    assert _parse_labels_getter("default")(sample) is LABELS


def test_keys_need_not_be_strings():
    assert find_labels({3: IMAGES, None: 1, "labels": LABELS}) is LABELS


def test_a_value_that_is_no_tensor_is_handed_on():
    """What it is, GenMix says: it knows what it expects."""
    assert find_labels({"labels": [0, 1]}) == [0, 1]


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        (IMAGES, r"expected a sample of images and labels, got one tensor: genmix\(images, labels\)"),
        ((IMAGES,), r"expected a sample of images and labels, got 1 item"),
        ((), r"expected a sample of images and labels, got 0 item"),
        ({"image": IMAGES, "target": LABELS}, r"could not tell where the labels are.*pass a callable as labels_getter"),
        ({3: LABELS}, "could not tell where the labels are"),
        ((IMAGES, "cyst"), "could not tell where the labels are.*got str"),
        ("images", "could not tell where the labels are.*got str"),
        ((IMAGES, [0, 1]), "the labels must be a tensor, got a list"),
        ((IMAGES, (LABELS,)), "the labels must be a tensor, got a tuple"),
    ],
)
def test_not_found(sample, text):
    with pytest.raises(InputError, match=f"GenMix: {text}"):
        find_labels(sample)


def test_the_getter():
    def getter(sample):
        return sample["y"]

    assert parse_labels_getter("default") is find_labels
    assert parse_labels_getter(getter) is getter


@pytest.mark.parametrize("wrong", ["labels", None, 1, ("default",)])
def test_a_getter_that_is_none(wrong):
    with pytest.raises(InputError, match=r"labels_getter must be 'default' or a callable, got"):
        parse_labels_getter(wrong)
