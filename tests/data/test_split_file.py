"""Split files: what was written is read, hands may edit it, and what does not fit the data is named."""

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest

from genmix_transforms.data.split_file import check_split_path, fold_path, read_split, write_split
from genmix_transforms.errors import InputError, OverwriteError

PARTS = np.array([0, 0, 1, 2, 0, 2])
PATHS = tuple(f"{name}/{number}.png" for number, name in enumerate(["cyst"] * 3 + ["metastasis"] * 3))
GROUPS = np.array([4, 4, 1, 2, 4, 2])
ORIGINS = np.array([2**63 - 1, 17, 0, 255, 2**40, 10**17])


def write(path, parts=PARTS, *, paths=PATHS, groups=GROUPS, origins=ORIGINS):
    write_split(path, parts, paths=paths, classes=["cyst"] * 3 + ["metastasis"] * 3, groups=groups, origins=origins)
    return path


def read(path, *, paths=PATHS, groups=GROUPS, origins=ORIGINS):
    return read_split(path, name="set", paths=paths, groups=groups, origins=origins)


def read_text(path, text, **options):
    path.write_text(text)
    return read(path, **options)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def rewritten(path, table):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(table)
    return path


@pytest.fixture
def split(tmp_path):
    return write(tmp_path / "split.csv")


# --- what is written


def test_a_line_for_each_patch(split):
    table = rows(split)
    assert table[0] == ["number", "path", "class", "group", "split", "origin"]
    assert table[1] == ["0", "cyst/0.png", "cyst", "4", "train", "0x7fffffffffffffff"]
    assert table[4] == ["3", "metastasis/3.png", "metastasis", "2", "test", "0x00000000000000ff"]
    assert len(table) == 7


def test_what_a_source_has_not_is_no_column(tmp_path):
    path = write(tmp_path / "split.csv", paths=None, groups=None)
    assert rows(path)[0] == ["number", "class", "split", "origin"]
    assert read(path, paths=None, groups=None).tolist() == PARTS.tolist()


def test_names_with_commas_and_quotes(tmp_path):
    paths = tuple(f'a, "b"\n{number}.png' for number in range(6))
    assert read(write(tmp_path / "split.csv", paths=paths), paths=paths).tolist() == PARTS.tolist()


def test_every_fold_has_a_name():
    assert fold_path(Path("out/fold-{fold}/split.csv"), 3) == Path("out/fold-3/split.csv")


@pytest.mark.parametrize(
    ("name", "folds", "message"),
    [
        ("split.txt", None, "a split is saved as .csv"),
        (
            "split.csv",
            3,
            r"each fold has its own file: .* \{fold\} in it, such as .*split-\{fold\}\.csv",
        ),
        ("{fold}.csv", None, r"\{fold\} stands for the number of a fold; say how many folds, or leave it out"),
    ],
)
def test_names_that_do_not_fit(tmp_path, name, folds, message):
    with pytest.raises(InputError, match=message):
        check_split_path(tmp_path / name, folds=folds, overwrite=True)


def test_a_folder_of_that_name_is_never_replaced(tmp_path):
    (tmp_path / "split.csv").mkdir()
    with pytest.raises(OverwriteError, match="is there already"):
        check_split_path(tmp_path / "split.csv", folds=None, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(OverwriteError, match="is a file; give another"):
        check_split_path(tmp_path / "file" / "split.csv", folds=None, overwrite=False)


# --- what is read


def test_what_was_written_is_read(split):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(split).tolist() == PARTS.tolist()


def test_edited_by_hand(split):
    """Lines in another order, more columns, capitals, other words for the parts, a patch moved."""
    header, *lines = rows(split)
    for line in lines:
        line[4] = {"val": "Validation", "test": "TEST"}.get(line[4], line[4])
    lines[1][4] = "val"
    table = [[*header, "remark"], *([*line, "looked at"] for line in lines[::-1])]
    with pytest.warns(UserWarning, match=r"split\.csv: 1 groups have images in more than one part of this split"):
        assert read(rewritten(split, table)).tolist() == [0, 1, 1, 2, 0, 2]


def test_two_columns_are_enough(tmp_path):
    text = "path;split\n" + "".join(
        f"./{path};{'train' if part else 'test'}\n" for path, part in zip(PATHS, PARTS, strict=True)
    )
    assert read_text(tmp_path / "mine.csv", text, groups=None).tolist() == [2, 2, 0, 0, 2, 0]
    text = "split,number\n" + "".join(f"train,{number}\n" for number in range(6))
    assert read_text(tmp_path / "mine.csv", text, paths=None).tolist() == [0] * 6


def test_paths_of_another_system(split):
    header, *lines = rows(split)
    for line in lines:
        line[1] = line[1].replace("/", "\\")
    assert read(rewritten(split, [header, *lines])).tolist() == PARTS.tolist()


def test_numbers_do_not_count_where_there_are_paths(split):
    """A file was added and taken away again: numbers have moved, names have not."""
    header, *lines = rows(split)
    assert read(rewritten(split, [header, *(["9", *line[1:]] for line in lines)])).tolist() == PARTS.tolist()


def change(row, column, text):
    def changed(table):
        table[row][table[0].index(column)] = text
        return table

    return changed


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change(2, "split", "trian"), r"split\.csv, line 3: split 'trian' is no part; did you mean 'train'\?"),
        (change(2, "split", "xyz"), "line 3: split 'xyz' is no part; expected one of train, val, test"),
        (change(2, "split", ""), "line 3: split '' is no part; expected one of"),
        (change(0, "split", "part"), "no column 'split' in its header; it has number, path"),
        (lambda table: [*table, table[1]], r"line 8: cyst/0\.png is already in line 2; each patch is in one part"),
        (
            lambda table: [*table, [*table[1][:4], "test", table[1][5]]],
            r"line 8: cyst/0\.png is already in line 2 in train, here in test; each patch",
        ),
        (
            lambda table: table[:-2],
            r"not a split of set: 2 of the 6 patches have no line in it: metastasis/4\.png, metastasis/5\.png\. Give "
            r"the data that it was made of, or make a new split \(genmix split\)",
        ),
        (
            lambda table: [*table, ["6", "cyst/new.png", "cyst", "9", "train", "0x1"]],
            r"not a split of set: 1 of its 7 lines are of patches that are not there: cyst/new\.png \(line 8\)\.",
        ),
        (
            change(2, "path", "cyst/renamed.png"),
            r"1 of the 6 patches have no line in it: cyst/1\.png; 1 of its 6 lines .*: cyst/renamed\.png \(line 3\)",
        ),
        (
            change(2, "origin", "0x12"),
            "1 of the 6 patches of set are not the images that the split was made of, the first in line 3: the images "
            "have changed, or it is the split of others; make a new split",
        ),
        (change(2, "origin", "1.7E+01"), r"line 3: origin '1\.7E\+01' is no hexadecimal number; leave the column"),
        (change(2, "origin", ""), "line 3: origin '' is no hexadecimal number"),
    ],
)
def test_what_does_not_fit_the_data_is_named(split, edit, message):
    with pytest.raises(InputError, match=message):
        read(rewritten(split, edit(rows(split))))


def test_the_same_images_in_another_order(tmp_path):
    path = write(tmp_path / "split.csv", paths=None)
    with pytest.raises(InputError, match=r"6 of the 6 patches .* line 2: the same images in another order; make"):
        read(path, paths=None, origins=ORIGINS[::-1])


def test_the_split_of_other_data(split):
    with pytest.raises(InputError, match=r"6 of the 6 patches have no line in it: other/0\.png, .*, \.\.\.; 6 of"):
        read(split, paths=tuple(f"other/{number}.png" for number in range(6)))
    with pytest.raises(InputError, match=r"3 of its 6 lines are of patches that are not there: 3 \(line 5\)"):
        read(split, paths=None, groups=None, origins=ORIGINS[:3])


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (PATHS, "no column path or number in its header; it has name, split"),
        (None, r"no column number \(0 for the first patch: set has no paths\) in its header"),
    ],
)
def test_nothing_that_says_whose_line_it_is(tmp_path, paths, message):
    with pytest.raises(InputError, match=message):
        read_text(tmp_path / "split.csv", "name,split\na,train\n", paths=paths)
