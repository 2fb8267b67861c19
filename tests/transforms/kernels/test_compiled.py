"""The mix compiled by Numba: one pass, in other memory and in place."""

import ctypes
import multiprocessing
import sys
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba", reason="Numba is an extra: pip install 'genmix-transforms[cpu]'")

from genmix_transforms.transforms.drawing import Draw
from genmix_transforms.transforms.kernels import Units, compiled, native
from genmix_transforms.transforms.kernels.compiled import can_mix, mix_compiled

DTYPES = (torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.uint16)
LAYOUTS = ("contiguous", "a part")


def mix(images, pixels, drawn, units, *, out=None):
    out = torch.empty_like(images) if out is None else out
    assert can_mix(images, pixels, out)
    return mix_compiled(images, pixels, drawn, units, out=out)


def test_equation_one(case):
    case.run(mix)


def test_laws(law):
    law(mix)


@pytest.mark.parametrize("bank_dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("inplace", [False, True])
@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(0, 6), st.integers(1, 4), st.integers(1, 40)),
    own=st.sampled_from(["none", "some", "all"]),
    seed=st.integers(0, 1000),
)
def test_any_shape(make_case, bank_dtype, inplace, shape, own, seed):
    """Rows of any length: whole vectors and what is left of them."""
    make_case(shape=shape, own=own, inplace=inplace, bank_dtype=bank_dtype, seed=seed).run(mix)


def test_every_bfloat16():
    """Rounded as torch rounds: all 65,536 of them, mixed with 0."""
    bits = torch.arange(65536, dtype=torch.int32).to(torch.uint16)
    images = bits.view(torch.bfloat16).view(1, 1, 256, 256)
    lam = torch.tensor([0.4])
    units = Units(torch.ones(1, 1, 1), torch.zeros(1, 1, 1))
    draw = Draw(lam, torch.tensor([0]), None)
    mixed = mix(images, torch.zeros(1, 1, 256, 256, dtype=torch.uint8), draw, units)
    expected = torch.lerp(images.float(), torch.zeros(1), lam).bfloat16()
    finite = images.isfinite()
    # One spacing: whether a product was rounded before it was added may show.
    assert torch.allclose(mixed[finite].double(), expected[finite].double(), rtol=2**-8, atol=2.0**-133)
    assert not mixed[~finite].isfinite().any()
    assert torch.equal(mixed.isnan(), expected.isnan())


def test_after_a_fork(make_case):
    """In a DataLoader's worker."""
    assert forked(lambda: make_case().run(mix).flatten().tolist()) == make_case().run(mix).flatten().tolist()


@pytest.fixture
def threads():
    """To say how many torch has; as many as before, afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


BIG = (3, 3, 211, 201)
"""Of values that 2, 3 or 5 threads cannot share evenly, in the middle of rows."""


@pytest.fixture
def teams(monkeypatch):
    """The sizes of the teams of threads that were called upon."""
    parallel = native.parallel_region()
    if parallel is None:
        pytest.skip("torch runs on another library of threads than OpenMP here")
    sizes = []
    monkeypatch.setattr(native, "parallel_region", lambda: lambda *of: sizes.append(of[2]) or parallel(*of))
    return sizes


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_however_many_threads(make_case, threads, teams, count, inplace, dtype):
    """The same bits."""
    found = []
    for number in (1, count):
        threads(number)
        found.append(make_case(shape=BIG, own="some", inplace=inplace, dtype=dtype).run(mix))
    assert torch.equal(*found)
    assert teams == [count]


def test_fewer_shares_than_threads(make_case, threads, teams):
    """Who has no share leaves the values alone."""
    threads(8)
    shape = (1, 1, 300, 300)
    assert native.threads_for(300 * 300) == 2
    make_case(shape=shape, own="all").run(mix)
    make_case(shape=shape, inplace=True).run(mix)
    assert teams == [8, 8]


@pytest.mark.parametrize("shape", [(2, 3, 9, 7), BIG])
def test_within_a_team_of_others(make_case, threads, shape):
    """Called by one thread of a team of OpenMP's, it is the whole batch that is mixed, by that thread alone."""
    parallel = native.parallel_region()
    if parallel is None:
        pytest.skip("torch runs on another library of threads than OpenMP here")
    threads(2)
    cases = [make_case(shape=shape, seed=seed) for seed in range(2)]
    mixed = []
    body = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(lambda _: mixed.append(cases.pop().run(mix)) or 0)
    parallel(ctypes.cast(body, ctypes.c_void_p), None, 2, 0)
    assert len(mixed) == 2


def forked(work):
    """What ``work`` gives in a forked process; None: it hangs."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=lambda: queue.put(work()))
    process.start()
    process.join(60)
    hangs = process.is_alive()
    process.kill()
    return None if hangs else queue.get()


@pytest.mark.parametrize(("parent", "child"), [(2, 2), (1, 2)])
def test_after_a_fork_of_a_process_with_threads(make_case, threads, parent, child):
    """Which did not come along. DataLoader's workers have one thread; others that fork may not."""
    threads(2)
    expected = make_case(shape=BIG).run(mix)
    case = make_case(shape=BIG)
    threads(parent)  # the team is still there

    def work():
        torch.set_num_threads(child)
        mixed = mix(case.images, case.pixels, case.draw, case.units, out=case.images)
        return mixed.numpy()[-1, -1, -1].tolist()

    assert forked(work) == expected[-1, -1, -1].tolist()


def test_several_callers_at_once(make_case):
    """The kernels keep nothing between calls."""
    cases = [make_case(shape=(4, 3, 20, 20), own="some", inplace=True, seed=seed) for seed in range(4)]
    callers = [threading.Thread(target=lambda case=case: [case.run(mix) for _ in range(3)]) for case in cases]
    errors = []
    before, threading.excepthook = threading.excepthook, lambda arguments: errors.append(arguments.exc_value)
    try:
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    finally:
        threading.excepthook = before
    assert not errors


# What is compiled for


@pytest.mark.parametrize("which", range(3))
def test_layouts_that_are_left_to_others(lay, which):
    """Images, bank and output must each be contiguous."""
    images = torch.rand(4, 3, 6, 6)
    assert can_mix(images, images, images)
    assert can_mix(lay(images, "a part"), images, images)
    for layout in ("channels last", "every second column", "every second image", "some channels", "images last"):
        tensors = [images] * 3
        tensors[which] = lay(images, layout)
        assert not can_mix(*tensors)


def test_dtypes_that_are_left_to_others():
    images = torch.rand(4, 3, 6, 6)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.uint16):
        some = images.to(dtype)
        assert can_mix(some, images.byte(), some) == (dtype in DTYPES)


def test_without_numba(monkeypatch):
    monkeypatch.setattr(compiled, "numba_is_there", lambda: False)
    images = torch.rand(4, 3, 6, 6)
    assert not can_mix(images, images, images)


def test_numba_is_looked_for(monkeypatch):
    compiled.numba_is_there.cache_clear()
    assert compiled.numba_is_there()
    compiled.numba_is_there.cache_clear()
    monkeypatch.setattr(compiled, "find_spec", lambda name: None)
    try:
        assert not compiled.numba_is_there()
    finally:
        compiled.numba_is_there.cache_clear()


def test_a_numba_that_does_not_work(monkeypatch, tmp_path):
    """Numba refuses a NumPy that is newer than it knows: training goes on without it."""
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 2.3 or less')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "numba")
    compiled.numba_is_there.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"Numba is installed and does not work \(Numba needs NumPy 2.3 or less\)"):
            assert not compiled.numba_is_there()
    finally:
        compiled.numba_is_there.cache_clear()


def test_images_that_require_gradients_where_none_are_kept(make_case):
    """As in a validation loop; NumPy refuses such tensors, memory they share it does not."""
    case = make_case(own="some")
    expected = case.run(mix)
    case.images = case.images.requires_grad_()
    with torch.no_grad():
        assert torch.equal(mix(case.images, case.pixels, case.draw, case.units), expected)
    with torch.inference_mode():
        assert torch.equal(mix(case.images, case.pixels, case.draw, case.units), expected)


def test_a_negated_view_is_left_to_others():
    """Its memory holds the other sign."""
    images = torch.rand(4, 3, 6, 6)
    assert not can_mix(torch._neg_view(images), images.byte(), images)
