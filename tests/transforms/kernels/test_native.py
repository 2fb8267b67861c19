"""Calls of compiled loops: how a task is packed, and on how many threads it runs."""

import ctypes
import struct

import pytest
import torch

from genmix_transforms.errors import InputError
from genmix_transforms.transforms.kernels import native
from genmix_transforms.transforms.kernels.native import (
    GRAIN,
    Layout,
    address,
    callable_at,
    has_address,
    parallel_region,
    run,
    threads_for,
)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def in_parallel(monkeypatch):
    """The numbers of threads that were asked for."""
    asked = []
    monkeypatch.setattr(native, "parallel_region", lambda: lambda function, task, count, flags: asked.append(count))
    return asked


def test_a_task_is_packed_in_the_order_of_its_fields():
    layout = Layout(one="q", share="d", other="q")
    assert list(layout.fields) == ["one", "share", "other"]
    assert struct.unpack("=qdq", layout.pack(2**40, 0.25, True)) == (2**40, 0.25, 1)


@pytest.mark.parametrize("values", [(1,), (1, 2.0, 3, 4), ("address", 0.5, 1), (2**63, 0.5, 1)])
def test_what_cannot_be_packed(values):
    with pytest.raises(struct.error):
        Layout(one="q", share="d", other="q").pack(*values)


def test_a_compiled_loop_is_called_with_the_address_of_its_task():
    seen = []
    body = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(
        lambda address: seen.append(ctypes.string_at(address, 16)) or 7
    )
    function = callable_at(ctypes.cast(body, ctypes.c_void_p).value)
    task = Layout(one="q", other="q").pack(3, 4)
    assert function(task) == 7
    assert seen == [task]


@pytest.mark.parametrize(
    ("allowed", "values", "expected"),
    [
        (1, 100 * GRAIN, 1),
        (4, GRAIN, 1),
        (4, 2 * GRAIN - 1, 1),  # too little for two
        (4, 2 * GRAIN, 2),
        (4, 3 * GRAIN - 1, 2),
        (4, 100 * GRAIN, 4),
        (4, 0, 1),
    ],
)
def test_as_many_threads_as_there_is_work_for(threads, in_parallel, allowed, values, expected):
    threads(allowed)
    assert threads_for(values) == expected


def test_all_of_torchs_threads_are_called_upon(threads, in_parallel):
    """A smaller team would end the others, and torch's next operation would start them again."""
    threads(4)
    called = []
    run(called.append, b"task", 2)
    assert (in_parallel, called) == ([4], [])
    run(called.append, b"task", 1)
    assert (in_parallel, called) == ([4], [b"task"])


def test_a_forked_process_stays_on_one_thread(threads, in_parallel, monkeypatch):
    monkeypatch.setattr(native, "_is_forked", False)  # put back afterwards
    threads(4)
    assert threads_for(100 * GRAIN) == 4
    native._after_fork()
    assert threads_for(100 * GRAIN) == 1


# Addresses


def test_an_address_is_where_the_values_are():
    values = torch.arange(6, dtype=torch.int64)
    assert address(values, torch.int64) == values.data_ptr()
    assert address(values[2:], torch.int64) == values.data_ptr() + 16
    assert address(torch.empty(0, 3), torch.float32) == 0


@pytest.mark.parametrize(
    ("tensor", "got"),
    [
        (torch.zeros(4, 2)[:, 1], "got torch.float32 on cpu with the strides \\(2,\\)"),
        (torch.zeros(1).expand(4), "strides \\(0,\\)"),
        (torch.zeros(4, dtype=torch.float64), "got torch.float64"),
        (torch.zeros(4, dtype=torch.int32), "got torch.int32"),
        (torch.zeros(4, device="meta"), "on meta"),
    ],
)
def test_what_has_no_such_address(tensor, got):
    with pytest.raises(InputError, match=f"GenMix: expected contiguous torch.float32 on the CPU, .*{got}"):
        address(tensor, torch.float32)


def test_memory_that_was_given_back():
    tensor = torch.zeros(4)
    tensor.untyped_storage().resize_(0)
    with pytest.raises(InputError, match="at address 0; move a GenMix and its bank together"):
        address(tensor, torch.float32)


def test_which_tensors_have_an_address():
    assert has_address(torch.zeros(2))
    assert has_address(torch.zeros(0))
    assert not has_address(torch.zeros(2, device="meta"))
    seen = []
    torch.func.functionalize(lambda x: seen.append(has_address(x)) or x + 1)(torch.zeros(2))
    torch.vmap(lambda x: seen.append(has_address(x)) or x + 1)(torch.zeros(2, 2))
    assert seen == [False, False]


@pytest.fixture
def looked_for_again():
    parallel_region.cache_clear()
    yield
    parallel_region.cache_clear()


def test_torch_on_other_threads_than_openmp(looked_for_again, monkeypatch, threads):
    monkeypatch.setattr(torch.__config__, "parallel_info", lambda: "ATen parallel backend: native thread pool")
    assert parallel_region() is None
    threads(4)
    assert threads_for(100 * GRAIN) == 1


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_an_openmp_that_is_not_among_the_symbols(looked_for_again, monkeypatch, error):
    """On macOS and Windows."""

    def missing(name):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert parallel_region() is None
