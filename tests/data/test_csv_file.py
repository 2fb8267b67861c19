"""CSV files as spreadsheets write them, and what is no table."""

import pytest

from genmix_transforms.data.csv_file import read_csv
from genmix_transforms.errors import InputError, MissingPathError


def read(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return read_csv(path, expected="a header (path,split)")


@pytest.mark.parametrize(
    ("encoding", "separator", "newline"),
    [("utf-8", ",", "\n"), ("utf-8-sig", ",", "\r\n"), ("utf-8", ";", "\n"), ("utf-8", "\t", "\r\n")],
)
def test_tables_as_spreadsheets_write_them(tmp_path, encoding, separator, newline):
    lines = ["Path,Split", "a.png,train", "", ",", " é.png , TEST"]
    text = newline.join(line.replace(",", separator) for line in lines) + newline
    assert read(tmp_path / "t.csv", text, encoding) == (
        [2, 5],
        {"path": ["a.png", "é.png"], "split": ["train", "TEST"]},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.csv: lists no images; expected a header \(path,split\)"),
        ("path,split\n", "lists no images"),
        ("path,path\na,b\n", "two columns of one name in its header: path, path"),
        ("path,split\na\n", "line 2: 1 cells, but the header has 2 columns"),
    ],
)
def test_what_is_no_table(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path / "t.csv", text)


def test_another_encoding(tmp_path):
    with pytest.raises(InputError, match=r"t\.csv: not UTF-8 text .*; save it as CSV UTF-8"):
        read(tmp_path / "t.csv", "path,split\né,train\n", "latin-1")


@pytest.mark.parametrize("name", ["nope.csv", "."])
def test_no_such_file(tmp_path, name):
    with pytest.raises(MissingPathError, match=r"no such file; expected a CSV with a header \(path,split\)"):
        read_csv(tmp_path / name, expected="a header (path,split)")
