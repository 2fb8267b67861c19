"""Flags: bits of one byte, which stay in a bank as they were set."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.flags import Flag
from genmix_transforms.errors import InputError

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
