"""Pseudonyms and their key."""

import pytest

from genmix_transforms.data.volumes.pseudonyms import Pseudonyms, read_key
from genmix_transforms.errors import InputError, MissingPathError

KEY = "sixteen letters!"


def test_the_same_for_the_same_and_for_no_other():
    names = Pseudonyms(KEY)
    assert names("patient", "1") == Pseudonyms(KEY)("patient", "1") == "3bab1e69e4b29acf"
    different = {
        names("patient", "1"),
        names("patient", "2"),
        names("date", "1"),
        Pseudonyms(KEY + "!")("patient", "1"),
    }
    assert len(different) == 4


def test_short_keys():
    with pytest.raises(InputError, match="the key has 15 characters; at least 16"):
        Pseudonyms(KEY[1:])


def test_where_the_key_comes_from(tmp_path):
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert read_key(tmp_path / "key", {}) == KEY
    assert read_key(None, {"GENMIX_KEY": f" {KEY} "}) == KEY
    with pytest.raises(MissingPathError, match="--key-file .*: no such file"):
        read_key(tmp_path / "no", {})
    with pytest.raises(InputError, match="there is no key: set GENMIX_KEY"):
        read_key(None, {})
