import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank.row_buffer import RowBuffer
from genmix_transforms.bank.shards import Rows


def numbered(first: int, count: int) -> Rows:
    """Rows that can be told apart in every column."""
    numbers = torch.arange(first, first + count)
    images = (numbers % 256).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return Rows(
        images, numbers, numbers + 1, numbers.int() + 2, numbers.float() + 3, ((numbers + 4) % 256).to(torch.uint8)
    )


@given(st.integers(1, 700), st.lists(st.integers(0, 900), max_size=5))
def test_every_row_comes_out_once_and_in_order(capacity, counts):
    buffer, out, first = RowBuffer(capacity), [], 0
    for count in counts:
        rows = numbered(first, count)
        first += count
        while len(rows.images):
            rows = buffer.add(rows)
            assert len(buffer) <= capacity
            if buffer.is_full:
                assert len(buffer) == capacity
                out.append(Rows(*(column.clone() for column in buffer.rows)))
                buffer.clear()
    if len(buffer):
        out.append(buffer.rows)
    expected = numbered(0, sum(counts))
    if out:
        for name, column in Rows.together(out)._asdict().items():
            assert torch.equal(column, getattr(expected, name)), name
    assert sum(len(rows.images) for rows in out) == sum(counts)


def test_memory_is_taken_as_rows_come_and_kept():
    buffer = RowBuffer(10**9)
    buffer.add(numbered(0, 3))
    held = buffer.rows.images.untyped_storage()
    assert held.nbytes() < 10_000
    buffer.clear()
    buffer.add(numbered(3, 200))
    assert buffer.rows.images.untyped_storage().data_ptr() == held.data_ptr()


def test_what_does_not_fit_is_given_back():
    buffer = RowBuffer(4)
    rest = buffer.add(numbered(0, 10))
    assert buffer.is_full
    assert rest.labels.tolist() == [4, 5, 6, 7, 8, 9]
    assert buffer.rows.labels.tolist() == [0, 1, 2, 3]
    assert buffer.add(rest).labels.tolist() == rest.labels.tolist()  # nothing more fits


def test_rows_of_another_shape_are_refused():
    buffer = RowBuffer(4)
    buffer.add(numbered(0, 1))
    other = numbered(0, 1)._replace(images=torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    with pytest.raises(RuntimeError, match="must match"):
        buffer.add(other)
