"""The mix compiled by Numba: one pass, in other memory and in place; on several threads; its machine code on disk."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba", reason="Numba is an extra: pip install 'genmix-transforms[cpu]'")

import numba

import genmix_transforms
from genmix_transforms.transforms import mix_numba
from genmix_transforms.transforms.drawing import Draw
from genmix_transforms.transforms.mix import Units, mix

DTYPES = (torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.uint16)


@pytest.fixture(autouse=True)
def nothing_but_numba(monkeypatch):
    """So that these tests show nothing else by mistake."""
    monkeypatch.setattr("genmix_transforms.transforms.mix.mix_in_pieces", None)


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


BIG = (3, 3, 211, 201)
"""Of values that 2, 3 or 5 threads cannot share evenly, in the middle of rows."""


@pytest.fixture
def shared(monkeypatch):
    """How many threads shared the calls that several did share."""
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("there is one core here")
    found, way = [], mix_numba._shared
    monkeypatch.setattr(mix_numba, "_shared", lambda *arguments: found.append(arguments[-1]) or way(*arguments))
    return found


@pytest.mark.parametrize(("dtype", "inplace"), [
    (torch.float32, False), (torch.bfloat16, True), (torch.uint8, False),
    # The parallel loop of each dtype is compiled for some seconds.
    *(pytest.param(dtype, True, marks=pytest.mark.slow) for dtype in (torch.float64, torch.uint16)),
])  # fmt: skip
def test_however_many_threads(make_case, threads, shared, inplace, dtype):
    """The same bits; and Numba's own number of threads is as before."""
    found, before = [], numba.get_num_threads()
    for number in (1, 2):
        threads(number)
        found.append(make_case(shape=BIG, own="some", inplace=inplace, dtype=dtype).run(mix))
    assert torch.equal(*found)
    assert shared == [2]
    assert numba.get_num_threads() == before


def test_no_more_threads_than_numba_has(make_case, threads, shared):
    threads(64)
    make_case(shape=(3, 3, 600, 600)).run(mix)
    assert shared == [numba.config.NUMBA_NUM_THREADS]


def test_a_call_while_another_is_shared_stays_on_its_thread(make_case, threads, shared):
    """Of Numba's pools of threads, "workqueue" ends the process when two call upon it at once."""
    threads(2)
    with mix_numba._one_at_a_time:
        make_case(shape=BIG).run(mix)
    assert shared == []
    make_case(shape=BIG).run(mix)
    assert shared == [2]


def test_without_a_pool_of_threads(monkeypatch, make_case, threads):
    def fails(*arguments):
        raise ValueError("No threading layer could be loaded.")

    monkeypatch.setattr(mix_numba, "_shared", fails)
    monkeypatch.setattr(mix_numba, "_threads_work", True)
    threads(2)
    for _ in range(2):
        make_case(shape=BIG).run(mix)


WORKQUEUE = """
import threading, torch
from genmix_transforms import GenMix, SyntheticBank
torch.set_num_threads(2)
bank = SyntheticBank(torch.full((2, 3, 128, 128), 255, dtype=torch.uint8), torch.ones(2).long(), classes=["a", "b"])
genmix, wrong = GenMix(bank), []
def work():
    for _ in range(30):
        images, labels = genmix(torch.zeros(8, 3, 128, 128), torch.zeros(8, dtype=torch.int64))
        expected = labels[:, 1].view(-1, 1, 1, 1).expand_as(images)
        wrong.append(not torch.allclose(images, expected, atol=1e-6))
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
import numba

import genmix_transforms
print(numba.threading_layer(), len(wrong), any(wrong))
"""


def test_many_callers_of_a_pool_that_allows_one(make_case, threads):
    """In a later process, which finds the machine code that this one has left."""
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("there is one core here")
    threads(2)
    make_case(shape=BIG).run(mix)
    found = run(WORKQUEUE, NUMBA_THREADING_LAYER="workqueue")
    assert found.stdout.split() == ["workqueue", "120", "False"], found.stderr
    assert LINE not in found.stderr


def forked(work):
    """What ``work`` gives in a forked process; None: it hangs."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=lambda: queue.put(work()))
    process.start()
    process.join(60)
    hangs = process.is_alive()
    process.kill()
    return None if hangs or queue.empty() else queue.get()


@pytest.mark.parametrize(("parent", "child"), [(2, 2), (1, 2)])
def test_after_a_fork_of_a_process_with_threads(make_case, threads, parent, child):
    """Which did not come along. DataLoader's workers have one thread; others that fork may not."""
    threads(2)
    expected = make_case(shape=BIG).run(mix)  # the pool of threads is there from now on
    case = make_case(shape=BIG)
    threads(parent)

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


def test_images_that_require_gradients_where_none_are_kept(make_case):
    """As in a validation loop; NumPy refuses such tensors, memory they share it does not."""
    case = make_case(own="some")
    expected = case.run(mix)
    case.images = case.images.requires_grad_()
    with torch.no_grad():
        assert torch.equal(mix(case.images, case.pixels, case.draw, case.units), expected)
    with torch.inference_mode():
        assert torch.equal(mix(case.images, case.pixels, case.draw, case.units), expected)


# Machine code on disk

SCRIPT = """
import sys, torch
from genmix_transforms import GenMix, SyntheticBank
import genmix_transforms
bank = SyntheticBank(torch.full((2, 1, 8, 8), 255, dtype=torch.uint8), torch.ones(2).long(), classes=["a", "b"])
images, labels = GenMix(bank)(torch.zeros(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64))
assert torch.allclose(images, labels[:, 1].view(-1, 1, 1, 1).expand_as(images), atol=1e-6)
from genmix_transforms.transforms import mix
assert mix._compiled_mix() is not None  # Numba has not been given up
print(genmix_transforms.__file__)
"""
LINE = "GenMix: compiling the mix, once (some seconds)"


def start(script, *, path=None, **environment):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path)] if path else sys.path), **environment}
    return subprocess.Popen(
        [sys.executable, "-W", "error::UserWarning:genmix_transforms", "-c", script],
        env=environment,
        cwd=path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(script, **options):
    process = start(script, **options)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    return subprocess.CompletedProcess([], 0, stdout, stderr)


@pytest.mark.slow
def test_compiled_once_by_two_processes_at_once_and_anew_for_another_cpu(tmp_path):
    """The line is written when it is compiled, and only then."""
    folder = {"NUMBA_CACHE_DIR": str(tmp_path)}
    at_once = [start(SCRIPT, **folder) for _ in range(2)]
    for process in at_once:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        assert stderr.count(LINE) <= 1
    # A process that comes later finds what they have left; one with another processor, whose home folder is the same,
    # does not take it.
    later, elsewhere = start(SCRIPT, **folder), start(SCRIPT, **folder, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
    for process, count in ((later, 0), (elsewhere, 1)):
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        assert stderr.count(LINE) == count


@pytest.mark.slow
def test_an_installation_that_cannot_be_written(tmp_path):
    """Nor is there a home: every process compiles for itself, and nothing fails. Files stand where folders would."""
    source = Path(genmix_transforms.__file__).parent
    site = tmp_path / "site-packages"
    shutil.copytree(source, site / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    (site / source.name / "transforms" / "__pycache__").write_text("no folder")
    home = tmp_path / "home"
    home.write_text("no folder")
    nowhere = {"NUMBA_CACHE_DIR": str(home / "cache"), "HOME": str(home), "XDG_CACHE_HOME": str(home)}
    found = run(SCRIPT, path=site, **nowhere)
    assert found.stdout.strip() == str(site / source.name / "__init__.py")
    assert found.stderr.count(LINE) == 1
