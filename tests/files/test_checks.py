"""What users give, checked."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genmix_transforms.errors import InputError, OverwriteError, UnwritableError
from genmix_transforms.files.checks import check_output_folder, check_seed, whole_number


@pytest.mark.parametrize("value", [0, 7, np.int64(7), np.uint8(7), 2**63 - 1])
def test_whole_numbers_of_any_kind(value: Any) -> None:
    assert check_seed(value) == int(value)
    assert type(check_seed(value)) is int


@pytest.mark.parametrize("value", [-1, 2**63, 1.5, "3", None, True, float("nan")])
def test_what_is_no_seed(value: Any) -> None:
    with pytest.raises(InputError, match="split seed must be a whole number, from 0 to 9223372036854775807, got"):
        check_seed(value, name="split seed")


def test_a_range_without_an_end() -> None:
    assert whole_number(5, name="steps", least=1) == 5
    with pytest.raises(InputError, match="steps must be a whole number, at least 1, got 0"):
        whole_number(0, name="steps", least=1)


def test_folders_to_write(tmp_path: Path) -> None:
    check_output_folder(tmp_path)
    check_output_folder(tmp_path / "new/deep")
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file/below/it"):
        with pytest.raises(OverwriteError, match="cannot be a folder, for .*file is a file; give another"):
            check_output_folder(folder)


def test_a_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, who may write everywhere: the system's answer is put in its mouth.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    for folder in (tmp_path, tmp_path / "new/deep"):
        with pytest.raises(UnwritableError, match=f"{folder}: {tmp_path} is read-only for you; give a folder that you"):
            check_output_folder(folder)
