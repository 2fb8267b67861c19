import ctypes
import mmap

import numpy as np
import pytest

from genmix_transforms.bank import read_ahead
from genmix_transforms.bank.read_ahead import ReadAhead

pytestmark = pytest.mark.skipif(read_ahead._madvise() is None, reason="no madvise on this system")

PAGE = mmap.PAGESIZE


@pytest.fixture
def asked(monkeypatch):
    calls = []
    monkeypatch.setattr(read_ahead, "_madvise", lambda: lambda *call: calls.append(call))
    return calls


def test_the_pages_of_every_row_are_asked_for(asked):
    ReadAhead(2 * PAGE).ask([10 * PAGE, 20 * PAGE + 5])
    assert asked == [
        (10 * PAGE, 2 * PAGE, mmap.MADV_WILLNEED),
        (20 * PAGE, 2 * PAGE + 5, mmap.MADV_WILLNEED),  # from the page's beginning to the row's end
    ]


def test_it_asks_until_rows_come_fast_and_again_when_they_come_slowly():
    ahead = ReadAhead(12_288)
    assert ahead.on  # nothing is known yet
    ahead.learn(256 * 2e-6, 256)
    assert not ahead.on
    ahead.learn(256 * 500e-6, 256)
    assert ahead.on


def test_large_rows_may_take_longer():
    small, large = ReadAhead(4_096), ReadAhead(64 * 2**20)
    small.learn(0.01, 1)
    large.learn(0.01, 1)
    assert small.on
    assert not large.on


def test_the_system_takes_the_call(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 64)
    mapped = np.memmap(file, dtype=np.uint8, mode="r")
    address = mapped.__array_interface__["data"][0]
    call = read_ahead._madvise()
    call.restype = ctypes.c_int
    assert call(address, len(mapped), mmap.MADV_WILLNEED) == 0
    ReadAhead(256).ask([address + 256])
    assert mapped[300] == 300 % 256


def test_a_wrong_address_is_no_harm():
    ReadAhead(100).ask([0, 7, 2**40 + 3])


def test_without_the_call_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(read_ahead, "_madvise", lambda: None)
    ahead = ReadAhead(100)
    assert not ahead.on
    ahead.ask([0])
    ahead.learn(100.0, 1)
    assert not ahead.on
