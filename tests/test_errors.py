"""The error classes: what they can be caught as, and that each carries one sentence."""

import pickle

import pytest

from genmix_transforms.errors import (
    CorruptFileError,
    DiskFullError,
    InputError,
    MissingExtraError,
    MissingPathError,
    OverwriteError,
    UnfinishedBankError,
    UnwritableError,
)

ALL = (
    InputError,
    MissingPathError,
    OverwriteError,
    UnwritableError,
    DiskFullError,
    CorruptFileError,
    MissingExtraError,
    UnfinishedBankError,
)


@pytest.mark.parametrize(
    ("error", "standard"),
    [
        (InputError, ValueError),
        (MissingPathError, ValueError),
        (MissingPathError, FileNotFoundError),
        (OverwriteError, ValueError),
        (OverwriteError, FileExistsError),
        (UnwritableError, ValueError),
        (UnwritableError, PermissionError),
        (DiskFullError, OSError),
        (CorruptFileError, RuntimeError),
        (MissingExtraError, ImportError),
        (UnfinishedBankError, RuntimeError),
    ],
)
def test_is_caught_as_the_standard_error_it_stands_for(error, standard):
    with pytest.raises(standard, match=r"^scan\.png: gone$"):
        raise error("scan.png: gone")


@pytest.mark.parametrize("error", [MissingPathError, OverwriteError, UnwritableError])
def test_bad_paths_are_bad_input(error):
    assert issubclass(error, InputError)


def test_a_missing_extra_is_named():
    error = MissingExtraError.naming("peft", extra="lora", needed_by="--tune lora")
    assert str(error) == "--tune lora needs peft, which is not installed: pip install 'genmix-transforms[lora]'"


def test_a_damaged_file_is_not_bad_input():
    # Commands answer bad input with "wrong use" and a damaged file with "failed".
    assert not issubclass(CorruptFileError, ValueError)


@pytest.mark.parametrize("error", ALL)
def test_message_survives_the_way_between_processes(error):
    """DataLoader workers and process pools pickle their errors."""
    copy = pickle.loads(pickle.dumps(error("bank.json: no such file")))
    assert type(copy) is error
    assert str(copy) == "bank.json: no such file"
