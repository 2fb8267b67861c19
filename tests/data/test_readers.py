"""open_dataset: what a path leads to, the same patches from every kind of source, and the real files."""

import doctest
import json
import sys
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.data import image_files, readers
from genmix_transforms.data.identity import pixel_hashes
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.data.readers import open_dataset
from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files import memory
from genmix_transforms.files.images import fit_images, to_channels

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), dtype=np.uint8)
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
NAMES = ("cyst", "metastasis")
OFFICIAL = [0, 0, 1, 2, 0, 0, 1, 2]


MASKS = (np.arange(144).reshape(12, 12)[None] % (2 + np.arange(8)[:, None, None])).astype(np.uint8)
"""Each of other values."""


@pytest.fixture(params=["folder", "split", "npz", "csv"])
def masked(request, tmp_path):
    """The same eight patches with masks, as each kind of source that may have some."""
    if request.param == "npz":
        names = {"label_names": NAMES, "mask_classes": np.array([f"m{number}" for number in range(9)])}
        np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS, masks=MASKS, **names)
        return tmp_path / "set.npz"
    rows = ["path,label,mask,patient"]
    for number, (image, mask, label) in enumerate(zip(IMAGES, MASKS, LABELS, strict=True)):
        part = f"{('train', 'val', 'test')[OFFICIAL[number]]}/" if request.param == "split" else ""
        name = f"{part}{NAMES[label]}/{number}"
        for pixels, file in ((image, f"images/{name}.png"), (mask, f"masks/{name}.bmp")):
            (tmp_path / "set" / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "set" / file)
        rows.append(f"images/{name}.png,{NAMES[label]},masks/{name}.bmp,p{number}")
    (tmp_path / "set" / "dataset_info.json").write_text(
        json.dumps({"mask_classes": [f"m{number}" for number in range(9)]})
    )
    if request.param == "csv":
        (tmp_path / "set" / "list.csv").write_text("\n".join(rows))
        return tmp_path / "set" / "list.csv"
    return tmp_path / "set"


def check_masks(patches, expected=MASKS):
    """Each image has its own mask."""
    found = {image.numpy().tobytes(): mask for image, mask in zip(patches.images, patches.masks, strict=True)}
    assert len(found) == len(patches)
    for image, mask in zip(IMAGES, expected, strict=True):
        key = image.transpose(2, 0, 1).tobytes()
        if key in found:
            assert np.array_equal(found[key].numpy(), mask)


def test_masks_come_with_their_images(masked, tmp_path):
    patches = open_dataset(masked, masks=True)
    assert (patches.masks.dtype, patches.masks.shape) == (torch.uint8, (8, 12, 12))
    assert patches.mask_classes == tuple(f"m{number}" for number in range(9))
    assert "; masks (m0, m1, " in repr(patches)
    check_masks(patches)
    for part in patches.split():
        check_masks(part)
    check_masks(patches.without_labels())
    check_masks(patches.of_class("cyst"))
    patches.save_npz(tmp_path / "again.npz")
    again = open_dataset(tmp_path / "again.npz", masks=True)
    check_masks(again)
    assert again.mask_classes == patches.mask_classes
    check_masks(open_dataset(masked, masks=True, labelled=False))


def test_masks_go_to_the_size_of_their_images(masked):
    patches = open_dataset(masked, masks=True, size=24)
    assert patches.masks.shape == (8, 24, 24)
    assert torch.equal(patches.masks[:, ::2, ::2], open_dataset(masked, masks=True).masks)


def test_masks_are_left_alone_unless_they_are_asked_for(masked):
    patches = open_dataset(masked)
    assert (len(patches), patches.classes, patches.masks, patches.mask_classes) == (8, NAMES, None, None)
    assert len(open_dataset(masked, labelled=False)) == 8


def test_masks_that_are_not_there(source):
    with pytest.raises(InputError, match=r"no array masks in it|no column 'mask'|no masks in it|hold no masks"):
        open_dataset(source, masks=True)
    with pytest.raises(InputError, match="the phantom's patches have no masks"):
        open_dataset("phantom", masks=True)


def test_masks_of_a_csv_that_cannot_be(tmp_path):
    for name, pixels in (("a", IMAGES[0]), ("b", IMAGES[1]), ("m", MASKS[0]), ("small", MASKS[0][:8])):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    for rows, error, message in (
        (["a.png,cyst,m.png", "b.png,metastasis,"], InputError, "line 3: the mask is empty; every image needs one"),
        (["a.png,cyst,m.png", "b.png,metastasis,no.png"], MissingPathError, r"1 of its 2 masks do not exist: no\.png"),
        (["a.png,cyst,m.png", "b.png,metastasis,small.png"], InputError, r"small\.png: a mask of 8x12 pixels, but its"),
    ):
        (tmp_path / "list.csv").write_text("\n".join(["path,label,mask", *rows]))
        with pytest.raises(error, match=message):
            open_dataset(tmp_path / "list.csv", masks=True)
        assert len(open_dataset(tmp_path / "list.csv")) == 2
    (tmp_path / "list.csv").write_text("path,label,mask\na.png,cyst,m.png\nb.png,metastasis,m.png")  # one for both
    assert torch.equal(*open_dataset(tmp_path / "list.csv", masks=True).masks)


def test_masks_beside_several_labels(tmp_path):
    """The column of their files is no class; a class that is called mask is one."""
    for number in range(4):
        Image.fromarray(IMAGES[number]).save(tmp_path / f"{number}.png")
        Image.fromarray(MASKS[number]).save(tmp_path / f"m{number}.png")
    rows = [f"{number}.png,m{number}.png,{number % 2},{number // 2}" for number in range(4)]
    (tmp_path / "list.csv").write_text("\n".join(["path,mask,Effusion,Nodule", *rows]))
    patches = open_dataset(tmp_path / "list.csv", masks=True)
    assert patches.classes == ("Effusion", "Nodule")
    check_masks(patches)
    check_masks(patches.subset([2, 0]))
    check_masks(patches.without_labels())
    patches.save_npz(tmp_path / "again.npz")
    check_masks(open_dataset(tmp_path / "again.npz", masks=True))
    rows = [f"{number}.png,{number % 2},{number // 2}" for number in range(4)]
    (tmp_path / "list.csv").write_text("\n".join(["path,mask,Nodule", *rows]))
    assert open_dataset(tmp_path / "list.csv").classes == ("mask", "Nodule")


def test_a_bank_of_patches_mixes_their_masks(masked):
    patches = open_dataset(masked, masks=True)
    bank = SyntheticBank(
        patches.images, patches.labels, classes=patches.classes, masks=patches.masks, mask_classes=patches.mask_classes
    )
    batch = (patches.images / 255, patches.labels, tv_tensors.Mask(patches.masks))
    images, _, masks = GenMix(bank, masks="soft")(*batch)
    assert images.shape == (8, 3, 12, 12)
    assert masks.shape == (8, 9, 12, 12)
    assert torch.allclose(masks.sum(1), torch.ones(8, 12, 12))


@pytest.fixture(params=["folder", "split", "npz", "medmnist", "csv"])
def source(request, tmp_path):
    """The same eight patches, as each kind of source."""
    kind = request.param
    if kind == "npz":
        np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS, label_names=NAMES)
        return tmp_path / "set.npz"
    if kind == "medmnist":
        parts = {}
        for number, part in enumerate(("train", "val", "test")):
            there = np.array(OFFICIAL) == number
            parts |= {f"{part}_images": IMAGES[there], f"{part}_labels": LABELS[there, None]}
        np.savez(tmp_path / "set.npz", label_names=NAMES, **parts)
        return tmp_path / "set.npz"
    rows = []
    for number, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        part = ("train", "val", "test")[OFFICIAL[number]]
        folder = tmp_path / "set" / (f"{part}/{NAMES[label]}" if kind == "split" else NAMES[label])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
        rows.append(f"{NAMES[label]}/{number}.png,{NAMES[label]}\n")
    if kind == "csv":
        (tmp_path / "set" / "list.csv").write_text("path,label\n" + "".join(rows))
        return tmp_path / "set" / "list.csv"
    return tmp_path / "set"


def by_pixels(data):
    """The patches in an order that does not depend on the source's."""
    return sorted((image.numpy().tobytes(), int(label)) for image, label in zip(data.images, data.labels, strict=True))


@pytest.mark.parametrize("as_text", [False, True])
def test_every_source_gives_the_same_patches(source, as_text):
    data = open_dataset(str(source) if as_text else source)
    assert data.images.shape == (8, 3, 12, 12)
    assert data.images.dtype == torch.uint8
    assert data.images.is_contiguous()
    assert data.classes == NAMES
    assert by_pixels(data) == sorted(
        (image.transpose(2, 0, 1).tobytes(), int(label)) for image, label in zip(IMAGES, LABELS, strict=True)
    )


@pytest.mark.parametrize("fit", ["resize", "pad", "crop"])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_every_source_is_brought_to_size_alike(source, fit, channels):
    data = open_dataset(source, size=16, fit=fit, channels=channels)
    expected = to_channels(torch.from_numpy(IMAGES).permute(0, 3, 1, 2), channels or 3)
    expected = fit_images(expected, 16, fit=fit)
    whole = PatchDataset(images=expected, labels=torch.from_numpy(LABELS), classes=NAMES)
    assert by_pixels(data) == by_pixels(whole)
    done = {"resize": "resized (bilinear, antialiased)", "pad": "padded with zeros", "crop": "cropped and resized"}
    assert f"12x12 pixels {done[fit]} to 16x16" in data.notes


def test_every_source_says_who_is_who_whatever_is_done_on_reading(source):
    expected = sorted(pixel_hashes(torch.from_numpy(IMAGES).permute(0, 3, 1, 2)).tolist())
    plain = open_dataset(source)
    assert sorted(plain.origins.tolist()) == expected
    for options in (
        {"size": 16},
        {"size": 10, "fit": "pad"},
        {"channels": 1},
        {"size": 8, "fit": "crop", "channels": 1},
    ):
        data = open_dataset(source, **options)
        assert torch.equal(data.origins, plain.origins)
        assert not set(pixel_hashes(data.images).tolist()) & set(expected)


def test_paths_of_the_files_are_kept_in_one_place_and_below_the_source(source, tmp_path):
    """Names of files are often names of people: only a split file has them."""
    data = open_dataset(source)
    assert data.name == source.name
    elsewhere = [field for field in data.__dataclass_fields__ if field not in ("images", "labels", "paths")]
    words = repr([getattr(data, field) for field in elsewhere]) + repr(data)
    assert str(tmp_path) not in words
    assert ".png" not in words
    if source.suffix == ".npz":
        assert data.paths is None
    else:
        folder = source if source.is_dir() else source.parent
        assert [(folder / path).is_file() for path in data.paths] == [True] * 8
        for path, image in zip(data.paths, data.images, strict=True):
            assert np.array_equal(np.asarray(Image.open(folder / path)), image.permute(1, 2, 0).numpy())


def test_name_of_the_folder_one_stands_in(tmp_path, monkeypatch):
    for name in NAMES:
        (tmp_path / "busi" / name).mkdir(parents=True)
        Image.fromarray(IMAGES[0]).save(tmp_path / "busi" / name / "1.png")
    monkeypatch.chdir(tmp_path / "busi")
    assert open_dataset(".").name == "busi"
    assert open_dataset(tmp_path / "busi" / "cyst" / "..").name == "busi"


@pytest.mark.parametrize(("name", "library"), [("a.dcm", "pydicom"), ("a.nii.gz", "nibabel"), ("a.NRRD", "SimpleITK")])
def test_a_scan_names_what_opens_it(tmp_path, name, library):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=rf"a file of scans .*, which {library} opens"):
        open_dataset(tmp_path / name)


def test_suffix_in_capitals(tmp_path):
    np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS)
    (tmp_path / "set.npz").rename(tmp_path / "SET.NPZ")
    assert len(open_dataset(tmp_path / "SET.NPZ")) == 8


def test_resized_note_comes_after_that_on_groups(tmp_path):
    np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS, patient=LABELS)
    notes = open_dataset(tmp_path / "set.npz", size=8).notes
    assert notes == ("groups from 'patient': 2 groups", "12x12 pixels resized (bilinear, antialiased) to 8x8")


def test_example_of_the_docstring(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = doctest.DocTestFinder(recurse=False).find(
        open_dataset, "open_dataset", globs={"np": np, "open_dataset": open_dataset}
    )
    assert [doctest.DocTestRunner().run(test) for test in example] == [doctest.TestResults(failed=0, attempted=4)]


def test_ct_in_sixteen_bits_comes_through_a_window(tmp_path):
    """The same from an archive, from folders and from a CSV that says what its values mean."""
    hounsfield = np.random.default_rng(0).integers(-1024, 3072, (8, 12, 12))
    pixels = (hounsfield + 1024).astype(np.uint16)
    expected = np.rint(np.clip((hounsfield + 160) * 255 / 400, 0, 255)).astype(np.uint8)
    np.savez(tmp_path / "set.npz", images=pixels, labels=LABELS, label_names=NAMES)
    rows = []
    for number, (image, label) in enumerate(zip(pixels, LABELS, strict=True)):
        (tmp_path / "set" / NAMES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "set" / NAMES[label] / f"{number}.png")
        rows.append(f"set/{NAMES[label]}/{number}.png,{NAMES[label]},-1024,64511\n")
    (tmp_path / "set.csv").write_text("path,label,window_low,window_high\n" + "".join(rows))
    for name in ("set.npz", "set", "set.csv"):
        plain = open_dataset(tmp_path / name)
        assert any("the images are dark; for CT, --window 40,400" in note for note in plain.notes)
        data = open_dataset(tmp_path / name, window=(40, 400))
        assert np.array_equal(data.images[:, 0].numpy(), expected)
        assert data.window == (-160, 240)
        assert not any("dark" in note for note in data.notes)
        assert torch.equal(data.origins, plain.origins)
    assert open_dataset(tmp_path / "set.csv").window == (-1024, 64511)
    with pytest.raises(InputError, match=r"hu_of_zero=0 is for a window; give one too"):
        open_dataset(tmp_path / "set.npz", hu_of_zero=0)
    with pytest.raises(InputError, match="a level and a width above 0"):
        open_dataset(tmp_path / "set.npz", window="40")


# --- the phantom


@pytest.fixture
def phantom(monkeypatch):
    """A stand-in that records how it was asked: these tests are of the word, not of the phantom."""
    asked = []

    @dataclass
    class LesionPhantom:
        size: int = 64
        seed: int = 0

        def dataset(self):
            asked.append((self.size, self.seed))
            images = torch.zeros(4, 1, self.size, self.size, dtype=torch.uint8)
            return PatchDataset(images=images, labels=torch.tensor([0, 0, 1, 1]), classes=NAMES, name="lesion phantom")

    module = ModuleType("phantom")
    module.LesionPhantom = LesionPhantom
    monkeypatch.setitem(sys.modules, "genmix_transforms.data.phantom", module)
    return asked


def test_the_word_phantom(phantom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_dataset("phantom").images.shape == (4, 1, 64, 64)
    data = open_dataset("phantom", size=32, channels=3)
    assert data.images.shape == (4, 3, 32, 32)
    assert data.notes == ()
    assert phantom == [(64, 0), (32, 0)]
    with pytest.raises(InputError, match=r"the phantom brings its own groups; leave group_key out \(got 'patient'\)"):
        open_dataset("phantom", group_key="patient")


def test_folder_that_is_called_phantom(phantom, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phantom").mkdir()
    with pytest.raises(InputError, match="phantom: expected one folder of images a class"):
        open_dataset("phantom")
    assert phantom == []


# --- bad input


def test_no_such_path(tmp_path):
    with pytest.raises(MissingPathError, match=r"nope\.npz': no such file or folder; read are .*and the word phantom"):
        open_dataset(tmp_path / "nope.npz")


def test_empty_path_is_not_the_folder_one_stands_in():
    with pytest.raises(MissingPathError, match="'': no such file or folder"):
        open_dataset("")


@pytest.mark.parametrize("name", ["set.npy", "set.zip", "set.h5", "scan.png", "set", "set.csv.gz"])
def test_unknown_type_of_file_lists_what_is_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"1")
    kind = name[name.rindex(".") :] if "." in name else r"\(none\)"
    with pytest.raises(
        InputError, match=rf"files of type '{kind}' are not read; .*class folders.*\.npz.*\.csv.*phantom"
    ):
        open_dataset(tmp_path / name)


@pytest.mark.parametrize("size", [7, 0, -32, 32.0, True, "32", 4097, 1_000_000_000])
def test_size_is_checked_before_the_path(size):
    with pytest.raises(InputError, match=r"size .* must be a whole number, from 8 to 4096, got"):
        open_dataset("nope", size=size)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"fit": "stretch"}, "fit must be 'resize', 'pad' or 'crop', got 'stretch'"),
        ({"channels": 4}, r"channels must be 1 \(gray\) or 3 \(color\), got 4"),
        ({"channels": 0}, r"channels must be 1 \(gray\) or 3 \(color\), got 0"),
    ],
)
def test_options_are_checked_before_the_path(options, error):
    with pytest.raises(InputError, match=error):
        open_dataset("nope", **options)


@pytest.mark.parametrize("size", [None, 64])
def test_more_than_fits_into_memory_is_refused_before_the_first_image_is_read(source, size, monkeypatch):
    """By the size that the patches will have, in one sentence, and not by the allocator."""
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    monkeypatch.setattr(image_files, "read_images", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"needs about 0\.0 GiB of memory, and 0\.0 GiB are available; "):
        open_dataset(source, size=size)


def test_size_that_does_not_fit_into_memory(tmp_path, monkeypatch):
    np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS)
    monkeypatch.setattr(memory, "available_memory", lambda: 2**28)
    assert open_dataset(tmp_path / "set.npz", size=32).images.shape == (8, 3, 32, 32)
    with pytest.raises(
        InputError,
        match=r"set\.npz: 8 patches of 3 x 4096 x 4096 pixels: this needs about 0\.8 GiB of memory, and 0\.2 GiB are "
        r"available; give a smaller size, or fewer patches",
    ):
        open_dataset(tmp_path / "set.npz", size=4096)


def test_folders_have_no_group_key(tmp_path):
    with pytest.raises(
        InputError, match=r"class folders hold no groups \(group_key='patient'\): list the files in a \.csv"
    ):
        open_dataset(tmp_path, group_key="patient")


@pytest.mark.parametrize("name", ["empty.npz", "empty.csv"])
def test_empty_file_is_named(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=name):
        open_dataset(tmp_path / name)


def test_channels_that_cannot_be_made(tmp_path):
    np.savez(tmp_path / "set.npz", images=IMAGES[..., :2], labels=LABELS)
    assert open_dataset(tmp_path / "set.npz").images.shape == (8, 2, 12, 12)
    with pytest.raises(InputError, match="2 channels cannot be brought to 3"):
        open_dataset(tmp_path / "set.npz", channels=3)


def test_smallest_size(tmp_path):
    np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS)
    assert open_dataset(tmp_path / "set.npz", size=np.int64(readers.MIN_SIZE)).images.shape == (8, 3, 8, 8)


# --- real data


def test_busi(real_data):
    data = open_dataset(real_data / "busi_128.npz")
    raw = np.load(real_data / "busi_128.npz", allow_pickle=False)
    assert data.class_counts == {"normal": 133, "benign": 437, "malignant": 210}
    assert data.images.shape == (780, 1, 128, 128)
    assert np.array_equal(data.images[:, 0].numpy(), raw["images"])
    assert np.array_equal(data.labels.numpy(), raw["labels"])
    assert data.notes[0] == "groups from 'dup_group': 640 groups"
    # The same patches together as in the file, whatever the groups' numbers.
    pairs = {(int(left), int(right)) for left, right in zip(data.groups, raw["dup_group"], strict=True)}
    assert len(pairs) == 640
    assert data.official is None


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_busi_split_by_near_duplicates_keeps_the_class_shares(real_data, seed):
    data = open_dataset(real_data / "busi_128.npz", size=8)
    parts = data.split(seed=seed)
    whole = torch.tensor(list(data.class_counts.values())) / len(data)
    for part, share in zip(parts, (0.5, 0.25, 0.25), strict=True):
        shares = torch.tensor(list(part.class_counts.values())) / len(part)
        assert (shares - whole).abs().max() <= 0.02
        assert abs(len(part) / len(data) - share) <= 0.02
    groups = [set(part.groups.tolist()) for part in parts]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 640


def test_pneumoniamnist(real_data):
    data = open_dataset(real_data / "pneumoniamnist.npz", size=32)
    train, val, test = data.split(seed=1)
    assert [train.class_counts, val.class_counts, test.class_counts] == [
        {"0": 1214, "1": 3494},
        {"0": 135, "1": 389},
        {"0": 234, "1": 390},
    ]
    assert data.images.shape == (5856, 1, 32, 32)
    assert data.notes[-1] == "28x28 pixels resized (bilinear, antialiased) to 32x32"
    raw = np.load(real_data / "pneumoniamnist.npz", allow_pickle=False)
    padded = open_dataset(real_data / "pneumoniamnist.npz", size=32, fit="pad").split()[2]
    assert np.array_equal(padded.images[:, 0, 2:30, 2:30].numpy(), raw["test_images"])


def test_liver_ct_has_no_labels(real_data):
    with pytest.raises(InputError, match=r"liver_ct_256\.npz: no labels in it; .* it has images, liver_mask, patient"):
        open_dataset(real_data / "liver_ct_256.npz")


def test_every_source_can_be_read_without_its_labels(source):
    pool = open_dataset(source, labelled=False)
    assert pool.class_counts == {"unlabelled": 8}
    labelled = open_dataset(source)
    assert sorted(pool.origins.tolist()) == sorted(labelled.origins.tolist())
    comes_split = labelled.official is not None
    assert (pool.official is not None) == comes_split
    if comes_split:
        assert [len(part) for part in pool.split()] == [len(part) for part in labelled.split()]


def test_phantom_without_labels(phantom):
    pool = open_dataset("phantom", size=16, labelled=False)
    assert pool.class_counts == {"unlabelled": 4}
    assert torch.equal(pool.origins, open_dataset("phantom", size=16).origins)


def test_slices_that_nobody_labelled(real_data):
    pool = open_dataset(real_data / "liver_ct_256.npz", size=16, labelled=False)
    assert pool.class_counts == {"unlabelled": 623}
    assert pool.groups is not None
    with pytest.raises(InputError, match=r"no labels in it.*images without labels are read with labelled=False"):
        open_dataset(real_data / "liver_ct_256.npz", size=16)
