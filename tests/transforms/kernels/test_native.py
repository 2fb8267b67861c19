"""Calls of compiled loops: how a task is packed, and on how many threads it runs."""

import ctypes
import struct

import pytest
import torch

from genmix_transforms.transforms.kernels import native
from genmix_transforms.transforms.kernels.native import GRAIN, Layout, callable_at, parallel_region, run


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
        (1, 100 * GRAIN, None),
        (4, GRAIN, None),  # too little for two
        (4, 2 * GRAIN, 2),
        (4, 3 * GRAIN - 1, 2),
        (4, 100 * GRAIN, 4),
        (4, 0, None),
    ],
)
def test_as_many_threads_as_there_is_work_for(threads, in_parallel, allowed, values, expected):
    threads(allowed)
    called = []
    run(called.append, b"task", values)
    assert (in_parallel, called) == (([], [b"task"]) if expected is None else ([expected], []))


def test_one_thread_where_a_fork_has_left_the_others_behind(threads, in_parallel, monkeypatch):
    monkeypatch.setattr(native, "_pool_was_left", False)  # put back afterwards
    threads(4)
    native._after_fork()
    called = []
    run(called.append, b"task", 100 * GRAIN)
    assert (in_parallel, called) == ([], [b"task"])
    threads(1)  # a parent that had one thread leaves none behind
    native._after_fork()
    threads(4)
    run(called.append, b"task", 100 * GRAIN)
    assert in_parallel == [4]


@pytest.fixture
def looked_for_again():
    parallel_region.cache_clear()
    yield
    parallel_region.cache_clear()


def test_torch_on_other_threads_than_openmp(looked_for_again, monkeypatch, threads):
    monkeypatch.setattr(torch.__config__, "parallel_info", lambda: "ATen parallel backend: native thread pool")
    assert parallel_region() is None
    threads(4)
    called = []
    run(called.append, b"task", 100 * GRAIN)
    assert called == [b"task"]


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_an_openmp_that_is_not_among_the_symbols(looked_for_again, monkeypatch, error):
    """On macOS and Windows."""

    def missing(name):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert parallel_region() is None
