"""What makes no bank, and the sentence that says so."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank import Flag, SyntheticBank
from genmix_transforms.bank.rows import (
    check_classes,
    check_masks,
    check_same_window,
    check_sources,
    check_tensors,
    check_window,
    take_rows,
)
from genmix_transforms.errors import InputError
from tests.pretend_cuda import DEVICE, PretendCuda

IMAGES = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
LABELS = torch.tensor([0, 1, 1])
CLASSES = ("cyst", "metastasis")


def test_classes_become_a_tuple():
    assert check_classes(["b", "a"]) == ("b", "a")
    assert check_classes(("a",)) == ("a",)


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ("abc", "must be a list of names, got 'abc'"),
        ([0, 1], r"must be a list of names, got \[0, 1\]"),
        ([], r"must be different names, at least one, got \(\)"),
        (["a", "b", "a"], r"must be different names.*\('a', 'b', 'a'\)"),
    ],
)
def test_classes_refused(classes, text):
    with pytest.raises(InputError, match=text):
        check_classes(classes)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16])
def test_whole_numbers_become_int64(dtype):
    labels = check_tensors(IMAGES, LABELS.to(dtype), CLASSES)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_rows_become_float32(dtype):
    rows = torch.tensor([[1, 0], [0, 1], [1, 1]])
    labels = check_tensors(IMAGES, rows.to(dtype), CLASSES)
    assert labels.dtype == torch.float32
    assert labels.tolist() == rows.tolist()


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        (IMAGES.float(), LABELS, r"must be a uint8 or uint16 tensor.*got torch.float32 of shape \(3, 1, 4, 4\)"),
        (IMAGES.float() / 255, LABELS, r"\(images \* 255\)\.round\(\)\.to\(torch\.uint8\)"),
        (IMAGES[:, 0, 0], LABELS, r"shape \(N, C, \*spatial\), got torch.uint8 of shape \(3, 4\)"),
        (IMAGES.numpy(), LABELS, "got ndarray"),
        (IMAGES, LABELS[:2], r"must be a tensor of shape \(3,\) or \(3, 2\), got \(2,\)"),
        (IMAGES, LABELS.view(3, 1, 1), r"got \(3, 1, 1\)"),
        (IMAGES, [0, 1, 1], r"labels must be a tensor of shape \(3,\) or \(3, 2\), got list"),
        (IMAGES, LABELS.to("meta"), "images are on cpu, labels on meta: bring them together"),
        (IMAGES, LABELS.float(), "must be whole numbers, got torch.float32"),
        (IMAGES, LABELS.bool(), "must be whole numbers, got torch.bool"),
        (IMAGES, LABELS.to(torch.complex64), "must be whole numbers, got torch.complex64"),
        (IMAGES, LABELS + 1, r"run from 1 to 2, but there are 2 classes \(cyst, metastasis\)"),
        (IMAGES, LABELS - 1, "run from -1 to 0"),
        (IMAGES, torch.ones(3, 3), "need a column a class, got 3 columns for 2 classes"),
        (IMAGES, torch.tensor([[1.0, 0]] * 2 + [[torch.nan, 1]]), "must be finite and not negative"),
        (IMAGES, torch.tensor([[1.0, 0]] * 2 + [[-0.5, 1.5]]), "must be finite and not negative"),
    ],
)
def test_tensors_refused(images, labels, text):
    with pytest.raises(InputError, match=text):
        check_tensors(images, labels, CLASSES)


def test_window():
    assert check_window(None) is None
    assert check_window([-100, 200]) == (-100.0, 200.0)
    assert all(type(edge) is float for edge in check_window(np.array([-100, 200])))


@pytest.mark.parametrize(
    "window", [(-100,), (1, 2, 3), (200, -100), (5, 5), (float("nan"), 1), (0, float("inf")), "ab", 3, (None, 1)]
)
def test_window_refused(window):
    with pytest.raises(InputError, match=r"window must be the Hounsfield units .* such as \(-100.0, 200.0\), got"):
        check_window(window)


def test_provenance_is_copied():
    given = {"generator": {"kind": "dcgan"}, "licence": None}
    (kept,) = check_sources(given)
    assert kept == given
    assert kept is not given
    assert check_sources(None) == ({},)
    assert check_sources([given, {}]) == (given, {})


@pytest.mark.parametrize(
    "provenance", [{"weights": torch.zeros(2)}, {"path": {1, 2}}, ["a"], {"loss": float("nan")}], ids=str
)
def test_provenance_that_json_cannot_hold(provenance):
    """Found when the bank is built, not after its shards were written."""
    with pytest.raises(InputError, match="provenance must be a dict of what JSON can hold"):
        check_sources(provenance)


def test_no_provenance_in_a_list():
    with pytest.raises(InputError, match="a list of provenances needs at least one"):
        check_sources([])


@pytest.mark.parametrize("name", ["a/b", "..", "", " cyst", "a\\b", "a\nb", "x" * 201])
def test_class_names_that_make_no_folder(name):
    with pytest.raises(InputError, match="SyntheticBank: class name"):
        check_classes(["metastasis", name])


# Flags: bits of one byte, which stay in a bank as they were set

OURS = {"NEAR_COPY": 1, "DUPLICATE": 2, "REJECTED": 4, "OUTLIER": 8}
USERS = {"USER_1": 16, "USER_2": 32, "USER_3": 64, "USER_4": 128}


def test_each_flag_is_a_bit_of_its_own():
    """The numbers stand in files, and in docs/reference/bank-format.md: they never change."""
    assert {flag.name: flag.value for flag in Flag} == {**OURS, **USERS}
    assert all(flag.value.bit_count() == 1 for flag in Flag)


def test_they_fill_one_byte():
    everything = sum(flag.value for flag in Flag)
    assert everything == 255
    assert int(torch.tensor([everything], dtype=torch.uint8)) == everything


@given(st.sets(st.sampled_from(list(Flag))))
def test_together_they_can_be_told_apart(flags):
    together = Flag(0)
    for flag in flags:
        together |= flag
    assert {flag for flag in Flag if flag in together} == flags
    column = torch.tensor([together], dtype=torch.uint8)
    for flag in Flag:
        assert bool(column & flag) == (flag in flags)


@pytest.mark.parametrize("real", [None, (-160, 240), (-160.0, 240.5)])
def test_the_same_window_or_one_that_nobody_knows(real):
    check_same_window((-160, 240), real, who="x")
    check_same_window(None, real, who="x")


def test_another_window():
    with pytest.raises(
        InputError, match=r"^x: the bank's gray values are -160 to 240 HU, those of the real .* -40 to 220"
    ):
        check_same_window((-160, 240), (-40, 220), who="x")
    with pytest.raises(InputError, match=r"Open the real images with .* \(level 40, width 400\)"):
        check_same_window((-160, 240), (-1024, 3071), who="x")


def test_of_tensors():
    flags = torch.tensor([0, 1, 5, 255], dtype=torch.uint8)
    assert (flags & Flag.REJECTED).bool().tolist() == [False, False, True, True]
    marked = flags | Flag.USER_1
    assert marked.dtype == torch.uint8
    assert marked.tolist() == [16, 17, 21, 255]
    assert (flags & ~Flag.NEAR_COPY & 255).tolist() == [0, 0, 4, 254]


def test_all_bits_come_back_from_a_file(tmp_path, make_bank):
    flags = torch.tensor([*(flag.value for flag in Flag), 0, 255], dtype=torch.uint8)
    make_bank([0] * 10, flags=flags).save(tmp_path / "bank")
    assert torch.equal(SyntheticBank.load(tmp_path / "bank").flags, flags)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.int8])
def test_other_numbers_are_no_flags(make_bank, dtype):
    with pytest.raises(InputError, match="flags must be uint8 of shape"):
        make_bank([0, 1], flags=torch.ones(2, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int64, torch.float32])
def test_rows_are_taken_by_their_numbers_on_any_device(dtype):
    top = 65535 if dtype == torch.uint16 else 255
    rows = [[0, top], [top - 1, top // 2 + 1], [7, 32767 % (top + 1)]]
    values, index = torch.tensor(rows).to(dtype).view(3, 1, 2, 1), torch.tensor([2, 0, 0, 1])
    expected = [[[[row[0]], [row[1]]]] for row in (rows[2], rows[0], rows[0], rows[1])]
    found = take_rows(values, index)
    assert found.dtype == dtype
    assert found.tolist() == expected
    assert take_rows(values.transpose(1, 2), index).tolist() == found.transpose(1, 2).tolist()  # whatever its layout
    with PretendCuda() as device:
        values, index = values.to(DEVICE), index.to(DEVICE)
        with device.no_waiting():
            found = take_rows(values, index)
            as_floats = found.float()
        assert found.dtype == dtype
        assert found.tolist() == expected == as_floats.long().tolist()


def test_sixteen_bits_of_a_bank_on_a_gpu():
    images = (torch.arange(8).view(4, 1, 1, 2) * 9362).to(torch.uint16)
    with PretendCuda() as device:
        bank = SyntheticBank(images.to(DEVICE), torch.tensor([1, 0, 1, 0]).to(DEVICE), classes=CLASSES)
        index = torch.tensor([3, 0]).to(DEVICE)
        with device.no_waiting():
            found = bank.rows(index)
        assert found.tolist() == [images[2].tolist(), images[1].tolist()]
        assert bank.take(torch.tensor([1])).images.tolist() == [images[3].tolist()]


# Masks

MASKS = torch.tensor([0, 1, 2], dtype=torch.uint8).view(3, 1, 1).expand(3, 4, 4)


def test_masks_have_the_names_that_are_given_or_numbers():
    assert check_masks(IMAGES, None, None) is None
    assert check_masks(IMAGES, MASKS, ["a", "b", "c", "d"]) == ("a", "b", "c", "d")
    assert check_masks(IMAGES, MASKS, None) == ("0", "1", "2")
    assert check_masks(IMAGES, MASKS * 0, None) == ("0", "1")
    assert check_masks(torch.zeros(2, 3, 2, 4, 5, dtype=torch.uint16), torch.zeros(2, 2, 4, 5).byte(), None)


@pytest.mark.parametrize(
    ("masks", "names", "text"),
    [
        (None, ["a", "b"], "mask_classes name the pixel values of masks; give masks= as well"),
        (MASKS.long(), None, r"masks must be uint8 class numbers of shape \(3, 4, 4\).*got torch.int64"),
        (
            MASKS.bool(),
            None,
            r"got torch.bool of shape \(3, 4, 4\); masks of 0 and 1 come there with .*\.to\(torch\.uint8",
        ),
        (MASKS.unsqueeze(1), None, r"without channels, got torch.uint8 of shape \(3, 1, 4, 4\)"),
        (MASKS[:2], None, r"one an image.*got torch.uint8 of shape \(2, 4, 4\)"),
        (MASKS[..., :3], None, r"got torch.uint8 of shape \(3, 4, 3\)"),
        ([0, 1, 2], None, "got list"),
        (MASKS.to("meta"), None, "images are on cpu, masks on meta"),
        (MASKS, ["a", "b"], r"masks run up to 2, but there are 2 mask_classes \(a, b\); pixels to ignore need a class"),
        (MASKS, ["a"], r"mask_classes must be 2 to 256 names, the background's among them, .*got 1"),
        (MASKS, "abc", "mask_classes must be a list of names, got 'abc'"),
        (MASKS, ["a", "a", "b"], "mask_classes must be different names"),
    ],
)
def test_masks_refused(masks, names, text):
    with pytest.raises(InputError, match=text):
        check_masks(IMAGES, masks, names)
