"""Class folders and CSV manifests: every image with its own label, split and group, and every bad listing refused."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from genmix_transforms.data import image_files
from genmix_transforms.data.image_files import read_class_folders, read_manifest, read_unlabelled_folder
from genmix_transforms.errors import InputError, MissingPathError

PLAIN = {"size": None, "fit": "resize", "channels": None}


def save(path, value, shape=(8, 8), dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, dtype)).save(path)


def values(data):
    """What tells the patches apart: the value that each was filled with."""
    return data.images[:, 0, 0, 0].to(torch.int64).tolist()


def read_folder(folder, **options):
    return read_class_folders(folder, **(PLAIN | options))


def read_csv(path, text, encoding="utf-8", group_key=None, **options):
    path.write_bytes(text.encode(encoding))
    return read_manifest(path, group_key=group_key, **(PLAIN | options))


# --- class folders


def test_class_folders(tmp_path):
    save(tmp_path / "set" / "metastasis" / "2.png", 2)
    save(tmp_path / "set" / "cyst" / "b.tif", 1)
    save(tmp_path / "set" / "cyst" / "a.bmp", 0)
    data = read_folder(tmp_path / "set")
    assert values(data) == [0, 1, 2]
    assert data.labels.tolist() == [0, 0, 1]
    assert data.labels.dtype == torch.int64
    assert data.classes == ("cyst", "metastasis")
    assert data.images.shape == (3, 1, 8, 8)
    assert data.images.dtype == torch.uint8
    assert (data.name, data.groups, data.official) == ("set", None, None)


def test_sixteen_bit_folder(tmp_path):
    for number, name in enumerate("ab"):
        save(tmp_path / name / "x.png", 60_000 + number, dtype=np.uint16)
    data = read_folder(tmp_path)
    assert data.images.dtype == torch.uint16
    assert values(data) == [60_000, 60_001]


def test_sizes_are_made_equal_and_said(tmp_path):
    save(tmp_path / "a" / "1.png", 10, shape=(20, 30))
    save(tmp_path / "b" / "1.png", 20, shape=(8, 8))
    data = read_folder(tmp_path, size=16, channels=3)
    assert data.images.shape == (2, 3, 16, 16)
    assert data.notes[0] == "2 sizes from 8x8 to 20x30 pixels resized (bilinear, antialiased) to 16x16"
    assert values(read_folder(tmp_path, size=16, fit="pad")) == [0, 0]  # both have bars of zeros in the corner


def test_nothing_is_said_where_nothing_was_done(tmp_path):
    save(tmp_path / "a" / "1.png", 1)
    save(tmp_path / "b" / "1.png", 2)
    assert not any("resized" in note for note in read_folder(tmp_path, size=8).notes)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "VAL"])
def test_folder_that_comes_split(tmp_path, val):
    for value, part in enumerate(["train", "train", val, "Test"]):
        save(tmp_path / part / "ab"[value % 2] / f"{value}.png", value)
    (tmp_path / "__MACOSX").mkdir()
    data = read_folder(tmp_path)
    assert values(data) == [0, 1, 2, 3]
    assert data.labels.tolist() == [0, 1, 0, 1]
    assert data.official.tolist() == [0, 0, 1, 2]
    assert [values(part) for part in data.split(seed=9)] == [[0, 1], [2], [3]]


def test_folder_split_in_two_opens_and_says_how_to_split_anew(tmp_path):
    for value in range(40):
        save(tmp_path / ("train" if value % 2 else "test") / "ab"[value // 20] / f"{value}.png", value)
    data = read_folder(tmp_path)
    assert sorted(set(data.official.tolist())) == [0, 2]
    with pytest.raises(InputError, match=r"val part is empty; give official=False"):
        data.split()
    assert [len(part) for part in data.split(official=False)] == [20, 10, 10]


def test_classes_may_be_called_train_and_test(tmp_path):
    """Vehicles, say: such folders hold images, those of a split hold folders."""
    save(tmp_path / "train" / "1.png", 1)
    save(tmp_path / "car" / "1.png", 0)
    assert read_folder(tmp_path).classes == ("car", "train")


def test_class_that_train_has_not(tmp_path):
    for part, name in (("train", "a"), ("train", "b"), ("val", "a"), ("val", "B"), ("test", "a")):
        save(tmp_path / part / name / "1.png", 1)
    with pytest.raises(InputError, match=r"val has classes that train has not: B; train has a, b"):
        read_folder(tmp_path)


def test_split_beside_classes(tmp_path):
    for name in ("train/a", "train/b", "test/a", "extra/c"):
        save(tmp_path / name / "1.png", 1)
    with pytest.raises(InputError, match=r"test, train beside extra: expected either .* not both"):
        read_folder(tmp_path)


def test_one_part_under_two_names(tmp_path):
    for name in ("train/a", "train/b", "val/a", "valid/a"):
        save(tmp_path / name / "1.png", 1)
    with pytest.raises(InputError, match=r"one part of the split under two names: train, val, valid"):
        read_folder(tmp_path)


def test_split_without_train(tmp_path):
    for name in ("val/a", "test/a"):
        save(tmp_path / name / "1.png", 1)
    with pytest.raises(InputError, match="no folder train beside test, val"):
        read_folder(tmp_path)


def test_empty_folder(tmp_path):
    with pytest.raises(InputError, match="one folder of images a class, found no folders"):
        read_folder(tmp_path)


def test_one_class(tmp_path, monkeypatch):
    save(tmp_path / "cyst" / "1.png", 1)
    monkeypatch.setattr(image_files, "read_images", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"one class \(cyst\); a classifier needs at least two"):
        read_folder(tmp_path)


def test_one_class_in_train(tmp_path):
    for name in ("train/a", "val/a", "test/a"):
        save(tmp_path / name / "1.png", 1)
    with pytest.raises(InputError, match=r"one class \(a\)"):
        read_folder(tmp_path)


def test_sizes_differ(tmp_path):
    save(tmp_path / "a" / "1.png", 1)
    save(tmp_path / "b" / "1.png", 1, shape=(8, 9))
    with pytest.raises(InputError, match=r"images of different sizes: .*1\.png is 8x8, .*1\.png is 8x9; .*--size"):
        read_folder(tmp_path)


@pytest.mark.parametrize("size", [None, 16])
def test_corrupt_image_is_named(tmp_path, size):
    for name in ("a", "b"):
        save(tmp_path / name / "1.png", 1)
    (tmp_path / "b" / "broken.png").write_bytes((tmp_path / "b" / "1.png").read_bytes()[:45])
    with pytest.raises(InputError, match=r"broken\.png: not a readable image"):
        read_folder(tmp_path, size=size)


# --- manifests


@pytest.fixture
def folder(tmp_path):
    """Six images 0.png to 5.png, filled with their number."""
    for value in range(6):
        save(tmp_path / "images" / f"{value}.png", value)
    return tmp_path


def test_manifest(folder):
    data = read_csv(
        folder / "set.csv",
        "path,label,split,group\n"
        "images/3.png,metastasis,train,p1\n"
        "images/0.png,cyst,validation,p2\n"
        "\n"
        '"images/1.png","cyst",TEST,p3\n'
        "images/2.png , metastasis,train,p1\n",
    )
    assert values(data) == [3, 0, 1, 2]
    assert data.classes == ("cyst", "metastasis")
    assert data.labels.tolist() == [1, 0, 0, 1]
    assert data.official.tolist() == [0, 1, 2, 0]
    assert data.groups.tolist() == [0, 1, 2, 0]
    assert data.name == "set.csv"
    assert data.notes[0] == "groups from 'group': 3 groups"


def test_manifest_of_two_columns(folder):
    data = read_csv(folder / "set.csv", "label,path\na,images/1.png\nb,images/2.png")
    assert values(data) == [1, 2]
    assert (data.groups, data.official) == (None, None)


def test_absolute_paths(folder):
    data = read_csv(folder / "set.csv", f"path,label\n{folder / 'images' / '4.png'},a\nimages/5.png,b\n")
    assert values(data) == [4, 5]


def test_number_labels_sort_as_numbers(folder):
    rows = "".join(f"images/{value}.png,{label}\n" for value, label in enumerate([10, 9, 2]))
    data = read_csv(folder / "set.csv", "path,label\n" + rows)
    assert data.classes == ("2", "9", "10")
    assert data.labels.tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("encoding", "separator", "newline"),
    [("utf-8-sig", ",", "\r\n"), ("utf-8", ";", "\n"), ("utf-8", "\t", "\n"), ("utf-8", ",", "\r\n")],
)
def test_manifests_as_spreadsheets_write_them(folder, encoding, separator, newline):
    lines = ["Path,Label,Patient_ID", "images/1.png,Zyste,7", "images/2.png,Hämangiom,8", ",,"]
    text = newline.join(line.replace(",", separator) for line in lines) + newline
    data = read_csv(folder / "set.csv", text, encoding)
    assert data.classes == ("Hämangiom", "Zyste")
    assert values(data) == [1, 2]
    assert data.notes[0] == "groups from 'patient_id': 2 groups"


def test_group_key_names_another_column(folder):
    text = "path,label,group,Hospital\nimages/1.png,a,1,x\nimages/2.png,b,2,x\nimages/3.png,b,3,y\n"
    data = read_csv(folder / "set.csv", text, group_key="Hospital")
    assert data.groups.tolist() == [0, 0, 1]
    assert data.notes[0] == "groups from 'hospital': 2 groups"


def test_manifest_brings_images_to_size(folder):
    save(folder / "wide.png", 9, shape=(8, 16))
    data = read_csv(folder / "set.csv", "path,label\nimages/1.png,a\nwide.png,b\n", size=16, fit="crop", channels=3)
    assert data.images.shape == (2, 3, 16, 16)
    assert data.notes[0] == "2 sizes from 8x8 to 8x16 pixels cropped and resized to 16x16"


def test_images_that_do_not_exist_are_counted_and_the_first_named(folder, monkeypatch):
    monkeypatch.setattr(image_files, "read_images", lambda *_, **__: pytest.fail("decoded"))
    rows = "".join(f"images/{value}.png,{'ab'[value % 2]}\n" for value in range(11))
    with pytest.raises(
        MissingPathError,
        match=r"set\.csv: 5 of its 11 images do not exist: images/6\.png \(line 8\), images/7\.png \(line 9\), "
        r"images/8\.png \(line 10\), \.\.\.; paths are relative to the folder of the CSV file",
    ):
        read_csv(folder / "set.csv", "path,label\n" + rows)


def test_folder_is_no_image(folder):
    with pytest.raises(MissingPathError, match=r"1 of its 2 images do not exist: images \(line 3\);"):
        read_csv(folder / "set.csv", "path,label\nimages/1.png,a\nimages,b\n")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "lists no images"),
        ("path,label\n", "lists no images"),
        ("images/1.png,a\nimages/2.png,b\n", r"no column 'path' in its header; it has images/1\.png, a"),
        ("path,class\nimages/1.png,a\nimages/2.png,b\n", "no column 'label' in its header; it has path, class"),
        ("path,label,label\nimages/1.png,a,a\n", "two columns of one name"),
        ("path,label\nimages/1.png,a\nimages/2.png,\n", r"set\.csv, line 3: the label is empty"),
        ("path,label\n\nimages/1.png,a\n  ,b\n", "line 4: the path is empty"),
        ("path,label,patient\nimages/1.png,a,1\nimages/2.png,b,\n", "line 3: the patient is empty"),
        ("path,label,split\nimages/1.png,a,train\nimages/2.png,b,\n", "line 3: the split is empty"),
        (
            "path,label,split\nimages/1.png,a,train\nimages/2.png,b,hold\n",
            "line 3: split 'hold' is no part; expected one of train, val, test",
        ),
        ("path,label\nimages/1.png,a\nimages/2.png\n", "line 3: 1 cells, but the header has 2 columns"),
        ("path,label\nimages/1.png,a,b,c\n", "line 2: 4 cells, but the header has 2"),
        ("path,label\nimages/1.png,a\nimages/2.png,a\n", r"one class \(a\); a classifier needs at least two"),
        (
            "path,label\nimages/1.png,a\nimages/2.png,b\nimages/../images/1.png,b\n",
            "line 4: .* is already in line 2",
        ),
        ('path,label\nimages/1.png,a\n"' + "x" * 140_000 + '",b\n', "line 3: not CSV .*field larger"),
    ],
)
def test_bad_manifests(folder, monkeypatch, text, error):
    monkeypatch.setattr(image_files, "read_images", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(InputError, match=error):
        read_csv(folder / "set.csv", text)


def test_group_key_that_is_no_column(folder):
    with pytest.raises(InputError, match="no column 'hospital' in its header; it has path, label"):
        read_csv(folder / "set.csv", "path,label\nimages/1.png,a\nimages/2.png,b\n", group_key="Hospital")


def test_manifest_in_another_encoding(folder):
    with pytest.raises(InputError, match=r"set\.csv: not UTF-8 text .*; save it as CSV UTF-8"):
        read_csv(folder / "set.csv", "path,label\nimages/1.png,Hämangiom\nimages/2.png,b\n", "latin-1")


def test_images_without_labels_lie_flat_or_in_folders(tmp_path):
    save(tmp_path / "b.png", 1)
    save(tmp_path / "a" / "deeper" / "c.png", 2)
    save(tmp_path / ".hidden" / "d.png", 3)
    save(tmp_path / "train" / "e.png", 4)  # a folder of this name beside others splits nothing
    (tmp_path / "notes.txt").write_text("no image")
    pool = read_unlabelled_folder(tmp_path, size=None, fit="resize", channels=None)
    assert pool.paths == ("a/deeper/c.png", "b.png", "train/e.png")
    assert values(pool) == [2, 1, 4]
    assert (pool.classes, pool.official) == (("unlabelled",), None)


def test_an_unlabelled_folder_that_comes_split_keeps_its_split(tmp_path):
    for number, part in enumerate(("train", "valid", "test")):
        save(tmp_path / part / "here.png", number)
    pool = read_unlabelled_folder(tmp_path, size=None, fit="resize", channels=None)
    assert dict(zip(pool.paths, pool.official.tolist(), strict=True)) == {
        "train/here.png": 0,
        "valid/here.png": 1,
        "test/here.png": 2,
    }


def test_a_folder_without_labels_is_refused_and_the_way_named(tmp_path):
    save(tmp_path / "one.png", 1)
    with pytest.raises(InputError, match=r"found images alone; images without labels are read with labelled=False"):
        read_folder(tmp_path)
    (tmp_path / "one.png").unlink()
    with pytest.raises(InputError, match="no image files in it, nor in the folders in it"):
        read_unlabelled_folder(tmp_path, size=None, fit="resize", channels=None)


def test_a_manifest_without_labels(folder):
    text = "path,split\nimages/1.png,train\nimages/2.png,test\n"
    with pytest.raises(InputError, match=r"no column 'label'.*images without labels are read with labelled=False"):
        read_csv(folder / "list.csv", text)
    pool = read_csv(folder / "list.csv", text, labelled=False)
    assert (pool.classes, pool.official.tolist()) == (("unlabelled",), [0, 2])
    # A column of labels is left aside, whatever is in it.
    labels = read_csv(folder / "list.csv", "path,label\nimages/1.png,\nimages/2.png,b\n", labelled=False)
    assert labels.class_counts == {"unlabelled": 2}


# --- what is said, and what is refused


def test_one_file_of_another_kind_is_named(tmp_path):
    for number in range(3):
        save(tmp_path / "a" / f"{number}.png", number)
    save(tmp_path / "b" / "color.png", 9, shape=(8, 8, 3))
    data = read_folder(tmp_path)
    assert data.images.shape[1] == 3
    assert "1 file is color (color.png), the other 3 are gray: all are read in color" in " ".join(data.notes)
    assert "color" not in " ".join(read_folder(tmp_path, channels=1).notes)


def test_scans_beside_images_are_not_passed_over_in_silence(tmp_path):
    save(tmp_path / "a" / "1.png", 1)
    save(tmp_path / "b" / "1.png", 2)
    (tmp_path / "b" / "ct.dcm").write_bytes(b"DICM")
    with pytest.warns(UserWarning, match=r"a file of scans \(.dcm, such as ct.dcm\), which pydicom opens"):
        assert len(read_folder(tmp_path)) == 2


def test_scans_alone_name_what_opens_them(tmp_path):
    for name in ("a/1.nii.gz", "b/1.nii.gz"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"2 files of scans \(.nii.gz, such as 1.nii.gz\), which nibabel opens"):
        read_folder(tmp_path)


@pytest.mark.parametrize(("name", "library"), [("1.dcm", "pydicom"), ("1.nii.gz", "nibabel"), ("1.mha", "SimpleITK")])
def test_a_manifest_of_scans(folder, name, library):
    (folder / name).write_bytes(b"x")
    with pytest.raises(InputError, match=rf"{name}: a file of scans .*, which {library} opens: genmix patches cuts"):
        read_csv(folder / "list.csv", f"path,label\n{name},a\nimages/2.png,b\n")


@pytest.mark.parametrize("label", ["a|b", "a; b", "b+c"])
def test_a_label_of_several_classes_is_no_class(folder, label):
    rows = f"path,label\nimages/1.png,a\nimages/2.png,b\nimages/3.png,{label}\n"
    with pytest.raises(InputError, match=rf"line 4: the label '{re.escape(label)}' names several classes"):
        read_csv(folder / "set.csv", rows)


def test_a_class_may_have_such_a_sign_in_its_name(folder):
    data = read_csv(folder / "set.csv", "path,label\nimages/1.png,HER2+\nimages/2.png,HER2-\n")
    assert data.classes == ("HER2+", "HER2-")


def test_paths_of_windows_are_named_as_such(folder):
    with pytest.raises(MissingPathError, match="written with backslashes, as on Windows: write / for them"):
        read_csv(folder / "set.csv", "path,label\nimages\\1.png,a\nimages\\2.png,b\n")


def test_a_column_that_might_be_the_groups_is_named(folder):
    text = "path,label,source_image\nimages/1.png,a,x\nimages/2.png,b,x\nimages/3.png,b,y\n"
    notes = " ".join(read_csv(folder / "set.csv", text).notes)
    assert "no groups" in notes
    assert "'source_image' might say which belong together" in notes


# Several labels an image: a column a class

SEVERAL = "path,patient,Effusion,Nodule\nimages/1.png,a,1,1\nimages/2.png,a,0,0\nimages/3.png,b,1,0\n"


def test_a_column_a_class(folder):
    patches = read_csv(folder / "set.csv", SEVERAL)
    assert patches.targets.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert patches.classes == ("Effusion", "Nodule")
    assert patches.groups.tolist() == [0, 0, 1]
    assert "several labels an image, from the columns Effusion, Nodule" in patches.notes


def test_dates_and_scans_are_no_classes(folder):
    """A split by date is for several labels an image as well."""
    rows = "path,date,series,Effusion,Nodule\n" + "".join(
        f"images/{number}.png,2024-03-0{5 - number},{number % 2},{effusion},{nodule}\n"
        for number, effusion, nodule in ((1, 1, 1), (2, 0, 0), (3, 1, 0))
    )
    patches = read_csv(folder / "set.csv", rows)
    assert patches.classes == ("Effusion", "Nodule")
    assert patches.dates.argsort().tolist() == [2, 1, 0]
    assert patches.series.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("a,0,0", "a,0,2", "line 3: without a column label, each column .*; 'nodule' has '2': leave that column out"),
        ("a,0,0", "a,0,", "line 3: without a column label, .*'nodule' has ''"),
        ("a,0,0", "a,0,1", None),
    ],
)
def test_a_column_that_is_no_class(folder, old, new, text):
    """One of three columns is none: it is not left aside in silence."""
    rows = SEVERAL.replace("Nodule", "Nodule,Mass").replace("a,1,1", "a,1,1,1").replace("b,1,0", "b,1,0,0")
    rows = rows.replace(old, f"{new},0")
    if text is None:
        assert read_csv(folder / "set.csv", rows).classes == ("Effusion", "Nodule", "Mass")
    else:
        with pytest.raises(InputError, match=text):
            read_csv(folder / "set.csv", rows)


def test_one_label_each_is_a_column_label(folder):
    rows = "path,a,b\nimages/1.png,1,0\nimages/2.png,0,1\nimages/3.png,0,1\n"
    with pytest.raises(
        InputError, match="every image has exactly one of 2 labels .*a column label with the class's name"
    ):
        read_csv(folder / "set.csv", rows)
