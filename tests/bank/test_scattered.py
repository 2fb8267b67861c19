import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank import scattered
from genmix_transforms.bank.scattered import ScatteredRows


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    shape=st.sampled_from([(1, 1), (3, 5), (2, 3, 4), (1, 2, 2, 2)]),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    offset=st.integers(0, 9),
    windowed=st.booleans(),
    data=st.data(),
)
def test_as_if_the_arrays_were_one(counts, shape, dtype, offset, windowed, data):
    random = np.random.default_rng(0)
    arrays = []
    for count in counts:  # each in memory of its own, from any address on
        content = random.integers(0, 256, offset + count * int(np.prod(shape)) * np.dtype(dtype).itemsize, np.uint8)
        arrays.append(content[offset:].view(dtype).reshape(count, *shape))
    rows = ScatteredRows(arrays)
    assert rows._window is not None
    if not windowed:
        rows._window = None
    where = data.draw(st.lists(st.integers(0, sum(counts) - 1), max_size=20))
    ends = np.cumsum(counts)
    array = np.searchsorted(ends, where, side="right").astype(np.int64)
    row = np.array(where, dtype=np.int64) - (ends - counts)[array]
    expected = np.concatenate(arrays)[np.array(where, dtype=np.int64)]
    taken = rows.take(array, row)
    assert taken.dtype == dtype
    assert np.array_equal(taken, expected)
    out = np.zeros_like(expected)
    assert rows.take(array, row, out=out) is out
    assert np.array_equal(out, expected)


def test_what_is_taken_is_a_copy():
    arrays = [np.zeros((2, 4), np.uint8), np.ones((2, 4), np.uint8)]
    taken = ScatteredRows(arrays).take(np.array([1, 0]), np.array([0, 1]))
    taken += 5
    assert arrays[0].tolist() == [[0] * 4] * 2
    assert arrays[1].tolist() == [[1] * 4] * 2


def test_addresses():
    arrays = [np.arange(12, dtype=np.uint16).reshape(3, 4) for _ in range(3)]
    rows = ScatteredRows(arrays)
    assert rows.row_bytes == 8
    assert rows.addresses.tolist() == [one.ctypes.data for one in arrays]
    assert rows.address(np.array([2, 0]), np.array([1, 2])).tolist() == [
        arrays[2].ctypes.data + 8,
        arrays[0].ctypes.data + 16,
    ]


def test_a_window_that_numpy_cannot_count_is_done_without(monkeypatch):
    monkeypatch.setattr(scattered, "_LARGEST", 10)
    arrays = [np.full((2, 4), number, np.uint8) for number in range(3)]
    rows = ScatteredRows(arrays)
    assert rows._window is None
    assert rows.take(np.array([2, 1]), np.array([0, 1]))[:, 0].tolist() == [2, 1]
    assert rows.take(np.array([], np.int64), np.array([], np.int64)).shape == (0, 4)


def test_the_arrays_live_as_long_as_the_rows():
    rows = ScatteredRows([np.full((4, 1000), number, np.uint8) for number in range(50)])
    [np.zeros((4, 1000), np.uint8) for _ in range(200)]
    assert rows.take(np.arange(50), np.zeros(50, np.int64))[:, 7].tolist() == list(range(50))


def test_a_row_that_is_not_there():
    with pytest.raises(IndexError):
        ScatteredRows([np.zeros((2, 4), np.uint8)]).take(np.array([1]), np.array([0]))
