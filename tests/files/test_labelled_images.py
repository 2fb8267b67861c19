"""Images that another program made become a bank, bit for bit: from a folder of class folders, or an ``.npz``."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files.labelled_images import images_from_folder, images_from_npz


def numbers(bank):
    """Which images a bank of numbered ones holds, in its order."""
    return bank.images[:, 0, 0, 0].tolist()


# From a folder of images


def save_image(folder, name, array):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(folder / name)


def grey(level, size=(6, 5), dtype=np.uint8):
    return np.full(size, level, dtype)


def test_from_folder(tmp_path):
    save_image(tmp_path / "metastasis", "b.png", grey(30))
    save_image(tmp_path / "cyst", "2.png", grey(20))
    save_image(tmp_path / "cyst", "1.png", grey(10))
    bank = SyntheticBank.from_folder(tmp_path)
    assert bank.classes == ("cyst", "metastasis")
    assert bank.images.shape == (3, 1, 6, 5)
    assert numbers(bank) == [10, 20, 30]
    assert bank.labels.tolist() == [0, 0, 1]
    assert bank.seeds.tolist() == [-1] * 3
    assert bank.provenance == {"source": "folder of images"}


def test_from_folder_in_colour_and_to_a_size(tmp_path):
    colour = np.stack([grey(10), grey(20), grey(30)], -1)
    save_image(tmp_path / "a", "x.png", colour)
    save_image(tmp_path / "b", "x.png", grey(200, size=(3, 9)))
    bank = SyntheticBank.from_folder(str(tmp_path), size=8, channels=3)
    assert bank.images.shape == (2, 3, 8, 8)
    assert bank.images[:, :, 4, 4].tolist() == [[10, 20, 30], [200, 200, 200]]
    padded = SyntheticBank.from_folder(tmp_path, size=16, fit="pad", channels=1)
    assert int((padded.images[1] == 200).sum()) == 27


def test_from_folder_of_sixteen_bits(tmp_path):
    save_image(tmp_path / "a", "x.png", grey(40_000, dtype=np.uint16))
    bank = SyntheticBank.from_folder(tmp_path)
    assert bank.images.dtype == torch.uint16
    assert numbers(bank) == [40_000]


def test_from_folder_refused(tmp_path):
    with pytest.raises(MissingPathError, match="nowhere: no such folder"):
        SyntheticBank.from_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="expected one folder of images a class"):
        SyntheticBank.from_folder(tmp_path)
    save_image(tmp_path / "a", "x.png", grey(1))
    save_image(tmp_path / "b", "y.png", grey(1, size=(7, 7)))
    with pytest.raises(InputError, match=r"images of different sizes.*6x5.*7x7"):
        SyntheticBank.from_folder(tmp_path)
    (tmp_path / "b" / "y.png").write_bytes((tmp_path / "b" / "y.png").read_bytes()[:40])
    with pytest.raises(InputError, match=r"y\.png: not a readable image"):
        SyntheticBank.from_folder(tmp_path, size=8)


# From an .npz


@pytest.fixture
def npz(tmp_path):
    """Write arrays and read the bank: four grey images of level 10, 20, 30, 40 unless other arrays are given."""

    def read(options=None, **arrays):
        levels = np.array([10, 20, 30, 40], np.uint8).reshape(4, 1, 1)
        content = {"images": np.broadcast_to(levels, (4, 6, 5)), "labels": np.array([1, 0, 1, 0]), **arrays}
        path = tmp_path / "bank.npz"
        np.savez(path, **{name: array for name, array in content.items() if array is not None})
        return SyntheticBank.from_npz(path, **(options or {}))

    return read


def test_from_npz(npz):
    bank = npz(label_names=np.array(["cyst", "metastasis"]))
    assert bank.classes == ("cyst", "metastasis")
    assert bank.images.shape == (4, 1, 6, 5)
    assert numbers(bank) == [20, 40, 10, 30]
    assert bank.provenance == {"source": "npz"}


def test_from_npz_channels_last(npz):
    images = torch.randint(0, 256, (4, 6, 5, 3), dtype=torch.uint8)
    bank = npz(images=images.numpy())
    assert bank.images.shape == (4, 3, 6, 5)
    assert torch.equal(bank.images, images.permute(0, 3, 1, 2)[[1, 3, 0, 2]])


def test_from_npz_of_volumes(npz):
    volumes = torch.randint(0, 256, (4, 8, 9, 10), dtype=torch.uint8)
    bank = npz(images=volumes.numpy())
    assert bank.images.shape == (4, 1, 8, 9, 10)
    assert torch.equal(bank.images, volumes[:, None][[1, 3, 0, 2]])
    assert npz({"size": 8}, images=volumes.numpy()).images.shape == (4, 1, 8, 8, 8)


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_from_npz_of_sixteen_bits_in_either_byte_order(npz, dtype):
    bank = npz(images=np.array([1, 256, 40_000, 65_535], dtype).reshape(4, 1, 1))
    assert bank.images.dtype == torch.uint16
    assert numbers(bank) == [256, 65_535, 1, 40_000]


def test_from_npz_to_a_size(npz):
    assert npz({"size": 3}).images.shape == (4, 1, 3, 3)
    assert int((npz({"size": 8, "fit": "pad"}).images > 0).sum()) == 4 * 30


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_from_npz_labels_of_medmnist(npz, dtype):
    assert npz(labels=np.array([[1], [0], [1], [0]], dtype)).labels.tolist() == [0, 0, 1, 1]


def test_from_npz_names_in_bytes(npz):
    assert npz(label_names=np.array([b"cyst", "hémangiome".encode()])).classes == ("cyst", "hémangiome")


def test_from_npz_without_names_the_numbers_that_occur_are_the_names(npz):
    """As data sets are read: labels from 1 on make no class 0 that the data would not know."""
    bank = npz(labels=np.array([3, 1, 3, 10**15]))
    assert bank.classes == ("1", "3", str(10**15))
    assert bank.class_count.tolist() == [1, 2, 1]
    assert numbers(bank) == [20, 10, 30, 40]


def test_from_npz_with_probabilities(npz):
    rows = np.array([[0.25, 0.75], [1, 0], [0, 1], [0.5, 0.5]])
    bank = npz(labels=rows)
    assert bank.classes == ("0", "1")
    assert torch.equal(bank.labels, torch.from_numpy(rows[[1, 3, 0, 2]]).float())


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"labels": None}, "expected the arrays images and labels, labels missing"),
        ({"images": None, "labels": None}, "images, labels missing"),
        ({"images": np.zeros((4, 6, 5))}, r"must be uint8 or uint16 .* got float64 of shape \(4, 6, 5\)"),
        ({"images": np.zeros((4, 6), np.uint8)}, r"\(N, H, W\) or \(N, H, W, C\), got uint8 of shape \(4, 6\)"),
        ({"labels": np.array([0.0, 1, 0, 1])}, r"whole numbers \(N,\), or .* got float64 of shape \(4,\)"),
        ({"labels": np.array(list("abab"))}, "got <U1"),
        ({"labels": np.array(3)}, r"got int64 of shape \(\)"),
        ({"labels": np.zeros((4, 1, 2))}, r"got float64 of shape \(4, 1, 2\)"),
        ({"labels": np.array([0, 1])}, r"labels must be a tensor of shape \(4,\)"),
        ({"labels": np.array([], int)}, "classes must be different names, at least one"),
        ({"labels": np.array([0, 1, 2, 0]), "label_names": np.array(["a", "b"])}, "labels run from 0 to 2"),
        ({"labels": np.array([0, -1, 0, 0])}, "labels go down to -1; class numbers are 0 or more"),
        ({"labels": np.array([0, -1, 0, 0]), "label_names": np.array(["a", "b"])}, "labels run from -1 to 0"),
        ({"labels": np.eye(4), "label_names": np.array(["a", "b"])}, "4 columns for 2 classes"),
        ({"labels": np.array([0, None, 1, 1])}, "Python objects"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)  # fmt: skip
def test_from_npz_refused(npz, arrays, text):
    with pytest.raises(InputError, match=text):
        npz(**arrays)


def test_from_npz_no_such_file(tmp_path):
    with pytest.raises(MissingPathError, match=r"bank\.npz: no such file"):
        SyntheticBank.from_npz(tmp_path / "bank.npz")


# What is read, before it becomes a bank


def test_what_is_read_of_a_folder_is_in_the_order_of_its_names(tmp_path):
    for name, level in (("b", 1), ("a", 2), ("b", 3)):
        save_image(tmp_path / name, f"{level}.png", grey(level))
    read = images_from_folder(tmp_path, size=None, fit="resize", channels=None)
    assert read["classes"] == ["a", "b"]
    assert read["images"][:, 0, 0, 0].tolist() == [2, 1, 3]
    assert read["labels"].tolist() == [0, 1, 1]
    assert read["labels"].dtype == torch.int64


def test_other_files_of_a_folder_are_no_images(tmp_path):
    save_image(tmp_path / "a", "1.png", grey(1))
    (tmp_path / "a" / "notes.txt").write_text("patient 4711")
    (tmp_path / "README.md").write_text("mine")
    assert len(images_from_folder(tmp_path, size=None, fit="resize", channels=None)["images"]) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 6),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    channels=st.sampled_from([None, 1, 3]),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    data=st.data(),
)
def test_any_npz_is_read_as_it_is(tmp_path, count, size, channels, dtype, data):
    shape = (count, *size) if channels is None else (count, *size, channels)
    images = np.random.default_rng(count).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    labels = np.array(data.draw(st.lists(st.integers(0, 300), min_size=count, max_size=count)))
    np.savez(tmp_path / "any.npz", images=images, labels=labels)
    read = images_from_npz(tmp_path / "any.npz", size=None, fit="resize")
    first = images if channels is None else images[..., 0]
    assert read["images"].shape == (count, channels or 1, *size)
    assert np.array_equal(read["images"][:, 0].numpy(), first)
    assert [int(read["classes"][label]) for label in read["labels"]] == labels.tolist()
    assert len(read["classes"]) == len(set(labels.tolist()))


# Masks


def save_masked_folder(folder):
    """Four numbered images of two classes, with masks whose number of lit pixels is the image's."""
    for number, name in enumerate(["metastasis", "cyst", "cyst", "metastasis"]):
        mask = (np.arange(30).reshape(6, 5) < number + 1).astype(np.uint8)
        save_image(folder / "images" / name, f"{number}.png", grey(number + 1))
        save_image(folder / "masks" / name, f"{number}.png", mask * 255)


def lit(bank):
    return bank.masks.flatten(1).sum(1).tolist()


def test_masks_of_a_folder(tmp_path):
    save_masked_folder(tmp_path)
    bank = SyntheticBank.from_folder(tmp_path, masks=True)
    assert (bank.classes, bank.mask_classes) == (("cyst", "metastasis"), ("0", "1"))
    assert lit(bank) == numbers(bank) == [2, 3, 1, 4]
    (tmp_path / "dataset_info.json").write_text('{"mask_classes": ["none", "lesion"]}')
    assert SyntheticBank.from_folder(tmp_path, masks=True).mask_classes == ("none", "lesion")
    sized = SyntheticBank.from_folder(tmp_path, masks=True, size=12, fit="pad")
    assert lit(sized) == numbers_in_the_middle(sized) == [2, 3, 1, 4]


def numbers_in_the_middle(bank):
    return bank.images[:, 0, 6, 6].tolist()


def test_images_beside_masks_are_no_class(tmp_path):
    """Read as class folders, the images would be one class and their masks the other."""
    save_masked_folder(tmp_path)
    bank = SyntheticBank.from_folder(tmp_path)
    assert (bank.classes, bank.masks, len(bank)) == (("cyst", "metastasis"), None, 4)


def test_masks_of_a_folder_that_are_not_there(tmp_path):
    save_image(tmp_path / "cyst", "1.png", grey(1))
    with pytest.raises(InputError, match="no masks in it; expected the folders images and masks"):
        SyntheticBank.from_folder(tmp_path, masks=True)


def test_masks_of_an_npz(npz):
    levels = np.array([10, 20, 30, 40], np.uint8).reshape(4, 1, 1)
    masks = np.broadcast_to(levels // 10 - 1, (4, 6, 5))
    bank = npz({"masks": True}, masks=masks, mask_classes=np.array(["none", "a", "b", "c"]))
    assert bank.mask_classes == ("none", "a", "b", "c")
    assert bank.masks[:, 0, 0].tolist() == [number // 10 - 1 for number in numbers(bank)]
    assert npz(masks=masks).masks is None
    sized = npz({"masks": True, "size": 12}, masks=masks)
    assert sized.masks.shape == (4, 12, 12)
    assert (sized.masks[:, 0, 0] == sized.images[:, 0, 0, 0] // 10 - 1).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, r"bank\.npz: no array masks in it"),
        ({"masks": np.zeros((3, 6, 5), np.uint8)}, r"bank\.npz: masks are uint8 of shape \(3, 6, 5\)"),
        ({"masks": np.zeros((4, 6, 5), np.float32)}, r"bank\.npz: masks are float32"),
        (
            {"masks": np.full((4, 6, 5), 2, np.uint8), "mask_classes": np.array(["a", "b"])},
            r"bank\.npz: masks run up to 2, but mask_classes has 2 names",
        ),
    ],
)
def test_masks_of_an_npz_that_do_not_fit(npz, arrays, message):
    with pytest.raises(InputError, match=message):
        npz({"masks": True}, **arrays)
