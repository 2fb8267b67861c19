"""Recycled memory: what anybody still holds is never written over, what nobody holds is used again."""

import copy
import multiprocessing
import pickle
import sys
import threading
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset, default_collate

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.transforms import output_memory as memory_module
from genmix_transforms.transforms.output_memory import RecycledMemory

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8]
LARGE = memory_module.SMALLEST
SMALLEST = 1 << 19  # in these tests, for their speed
SHAPE = (4, 3, 224, 224)  # in uint8 602112 bytes, above that


def of_torch(tensor):
    """Whether the memory is of torch's own allocator: only that can be resized."""
    return tensor.untyped_storage().resizable()


def like(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype)


@pytest.fixture(autouse=True)
def smallest(monkeypatch):
    monkeypatch.setattr(memory_module, "SMALLEST", SMALLEST)


@pytest.fixture
def memory():
    return RecycledMemory()


# What it gives


@pytest.mark.parametrize("dtype", DTYPES)
def test_shape_dtype_and_alignment(memory, dtype):
    for _ in range(2):  # fresh, and used again
        out = memory.empty_like(like(*SHAPE, dtype=dtype))
        assert not of_torch(out)
        assert (out.shape, out.dtype, out.device.type) == (SHAPE, dtype, "cpu")
        assert out.is_contiguous()
        assert out.data_ptr() % 64 == 0
        assert not out.requires_grad
        assert out.untyped_storage().nbytes() == out.numel() * out.element_size()  # nothing more is saved to a file
        del out


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_go_in_and_come_out(memory, dtype):
    values = torch.randint(0, 256, SHAPE).to(dtype)
    assert torch.equal(memory.empty_like(values).copy_(values), values)


def layouts():
    batch = torch.empty(4, 8, 100, 100)
    volume = torch.empty(4, 2, 24, 40, 40)
    return {
        "contiguous": batch,
        "channels last": batch.to(memory_format=torch.channels_last),
        "volumes, channels last": volume.to(memory_format=torch.channels_last_3d),
        "dimensions in another order": batch.permute(3, 1, 0, 2),
        "every second row": batch[:, :, ::2],
        "one image for all": batch[:1].expand(4, -1, -1, -1),
        "a part of the channels": torch.empty(8, 8, 100, 100)[:, 2:6],
        "one image": torch.empty(1, 3, 256, 256).to(memory_format=torch.channels_last),
    }


@pytest.mark.parametrize("layout", layouts())
def test_strides_are_those_that_torch_would_give(memory, layout):
    images = layouts()[layout]
    out = memory.empty_like(images)
    assert not of_torch(out)
    assert (out.shape, out.stride()) == (images.shape, torch.empty_like(images).stride())


def test_strides_of_one_channel_that_is_last(memory):
    """Contiguous either way, but the strides tell a convolution which layout is meant."""
    images = torch.empty(4, 256, 256, 1).permute(0, 3, 1, 2)
    assert memory.empty_like(images).stride() == torch.empty_like(images).stride() == (65536, 1, 256, 1)


@pytest.mark.parametrize("smallest", [SMALLEST, LARGE])
def test_small_outputs_are_torchs_own(monkeypatch, memory, smallest):
    """From SMALLEST bytes on, whatever the dtype."""
    monkeypatch.setattr(memory_module, "SMALLEST", smallest)
    assert of_torch(memory.empty_like(like(smallest // 4 - 1)))
    assert not of_torch(memory.empty_like(like(smallest // 4)))
    assert of_torch(memory.empty_like(like(smallest - 1, dtype=torch.uint8)))
    assert not of_torch(memory.empty_like(like(smallest, dtype=torch.uint8)))
    assert memory.empty_like(like(0, 3, 512, 512)).shape == (0, 3, 512, 512)


def test_another_default_device(memory):
    """Scripts set it to CUDA; the output is on the CPU all the same."""
    images = like(*SHAPE).fill_(3)
    with torch.device("meta"):
        out = memory.empty_like(images)
    assert out.device.type == "cpu"
    assert torch.equal(out.copy_(images), images)


def test_an_output_is_a_tensor_like_any_other(memory):
    """No view: in training loops ``detach_`` and in-place operations on a leaf are met, and refuse views."""
    out = memory.empty_like(like(*SHAPE))
    assert not out._is_view()
    out.detach_()


def test_an_output_can_shrink_and_its_clone_can_grow(memory):
    """Lent memory has no allocator, and torch says so."""
    out = memory.empty_like(like(*SHAPE)).fill_(7)
    with pytest.raises(RuntimeError, match="not resizable"):
        # Another output: after the error torch leaves it with the new shape over the old memory, as any such tensor.
        memory.empty_like(like(*SHAPE)).resize_(2 * SHAPE[0], *SHAPE[1:])
    assert out.clone().resize_(2 * SHAPE[0], *SHAPE[1:]).shape[0] == 2 * SHAPE[0]
    assert bool((out.resize_(2, *SHAPE[1:]) == 7).all())


# What is held is not written over


def graph(out):
    """The backward pass of a product needs both factors: the graph holds the output, nobody else."""
    factor = torch.ones((), requires_grad=True)
    return factor, (out * factor).sum()


def gradient(held):
    factor, loss = held
    (found,) = torch.autograd.grad(loss, factor, retain_graph=True)
    return np.float32(found)


def cycle(out):
    held = [out]
    held.append(held)
    return held


HOLDERS = {  # how an output is held, and how to get at its values then
    "the tensor": (lambda out: out, lambda held: held),
    "a view": (lambda out: out.view(-1), lambda held: held),
    "a part": (lambda out: out[1:, :, ::2], lambda held: held),
    "another dtype's view": (lambda out: out.view(torch.int32), lambda held: held.view(torch.float32)),
    "detach": (lambda out: out.detach(), lambda held: held),
    "a subclass": (lambda out: torch.nn.Parameter(out, requires_grad=False), lambda held: held),
    "numpy": (lambda out: out.numpy(), np.asarray),
    "a part of numpy": (lambda out: out.numpy()[1:].reshape(-1)[3:], np.asarray),
    "numpy and back": (lambda out: torch.from_numpy(out.numpy()), np.asarray),
    "a memoryview": (lambda out: memoryview(out.numpy()), np.asarray),
    "the storage": (
        lambda out: out.untyped_storage(),
        lambda held: torch.empty(0).set_(held, 0, (held.nbytes() // 4,), (1,)),
    ),
    "a DLPack capsule": (torch.utils.dlpack.to_dlpack, None),
    "NumPy by DLPack": (np.from_dlpack, np.asarray),
    "torch by DLPack": (torch.from_dlpack, lambda held: held),
    "an autograd graph": (graph, gradient),
    "shared memory": (lambda out: out.share_memory_(), lambda held: held),
    "a closure": (lambda out: lambda: out, lambda held: held()),
    "a cycle": (cycle, lambda held: held[0]),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_is_held_is_not_written_over(memory, holder):
    hold, look = HOLDERS[holder]
    out = memory.empty_like(like(*SHAPE)).copy_(values := torch.rand(SHAPE))
    expected = values if holder != "an autograd graph" else np.float32(values.sum())
    held = hold(out)
    del out
    for number in range(4):
        memory.empty_like(like(*SHAPE)).fill_(-number - 1)
        later = memory.empty_like(like(2 * SHAPE[0], *SHAPE[1:])).fill_(-number - 1)
    if look is None:  # a capsule can be opened once
        look, held = np.asarray, torch.utils.dlpack.from_dlpack(held)
    found = np.asarray(look(held))
    if holder == "a part":
        expected = expected[1:, :, ::2]
    if holder == "a part of numpy":
        expected = expected[1:].reshape(-1)[3:]
    if holder == "an autograd graph":
        assert found == pytest.approx(float(expected), rel=1e-5)
    else:
        assert np.array_equal(found.reshape(-1), np.asarray(expected).reshape(-1))
    assert bool((later == -4).all())


@pytest.mark.parametrize("holder", [name for name in HOLDERS if name not in ("shared memory", "a cycle")])
def test_after_the_last_holder_the_block_is_used_again(memory, holder):
    """The very block, not one that happens to be at the same address: what was written is still there."""
    out = memory.empty_like(like(*SHAPE)).fill_(7)
    address = out.data_ptr()
    held = HOLDERS[holder][0](out)
    del out
    assert memory.empty_like(like(*SHAPE)).data_ptr() != address
    del held
    elsewhere = [torch.zeros(SHAPE) for _ in range(3)]  # would be given the memory if the system had it
    again = [memory.empty_like(like(*SHAPE)) for _ in range(2)]
    found = [one for one in again if one.data_ptr() == address]
    assert len(found) == 1
    assert bool((found[0] == 7).all())
    assert len(elsewhere) == 3


def test_an_output_moved_to_shared_memory_gives_its_block_back(memory):
    out = memory.empty_like(like(*SHAPE)).fill_(7)
    address = out.data_ptr()
    view = out[1]
    out.share_memory_()
    assert out.is_shared()
    again = memory.empty_like(like(*SHAPE))
    assert again.data_ptr() == address
    again.fill_(-1)
    assert bool((out == 7).all())
    assert bool((view == 7).all())


def test_a_step_after_another_stays_in_one_block(memory):
    """As a training loop has it: the last batch is held while the next is made, so that two blocks take turns."""
    addresses = set()
    batch = None
    for _ in range(10):
        batch = memory.empty_like(like(*SHAPE))
        addresses.add(batch.data_ptr())
    assert len(addresses) == 2


def test_growing_and_shrinking(memory):
    """The last batch of an epoch is smaller, that of the validation larger."""
    for count in (8, 5, 4, 3, 2, 8, 16, 15, 7, 1, 40, 39, 20, 19, 3):
        images = torch.full((count, *SHAPE[1:]), float(count))
        first, second = (memory.empty_like(images).copy_(images) for _ in range(2))
        assert first.shape == second.shape == images.shape
        assert first.data_ptr() != second.data_ptr()
        second.neg_()
        assert torch.equal(first, images)


def test_a_block_serves_what_fills_at_least_half_of_it(memory):
    large = memory.empty_like(like(16, *SHAPE[1:]))
    address = large.data_ptr()
    del large
    assert memory.empty_like(like(9, *SHAPE[1:])).data_ptr() == address
    assert memory.empty_like(like(8, *SHAPE[1:])).data_ptr() == address
    assert memory.empty_like(like(16, *SHAPE[1:], dtype=torch.float16)).data_ptr() == address  # bytes count
    held = memory.empty_like(like(7, *SHAPE[1:]))
    assert held.untyped_storage().nbytes() == held.nbytes
    assert memory.empty_like(like(17, *SHAPE[1:])).shape[0] == 17


def test_few_blocks_are_kept():
    """Many outputs held at once (a list of batches) leave no more than two blocks behind, and the end leaves none."""
    size = like(*SHAPE).numel() * 4
    tracemalloc.start()
    try:
        memory = RecycledMemory()
        outputs = [memory.empty_like(like(*SHAPE)) for _ in range(6)]
        assert tracemalloc.get_traced_memory()[0] >= 6 * size
        outputs.clear()
        assert 2 * size <= tracemalloc.get_traced_memory()[0] < 2.1 * size
        small = memory.empty_like(like(1, *SHAPE[1:]))  # would waste three quarters of a block: one is given up
        assert tracemalloc.get_traced_memory()[0] < 1.5 * size
        survivor = memory.empty_like(like(*SHAPE)).fill_(7)
        del memory, small
        survivor.add_(1)
        assert bool((survivor == 8).all())  # an output may outlive what it came from
        del survivor
        assert tracemalloc.get_traced_memory()[0] < 0.1 * size
    finally:
        tracemalloc.stop()


OPERATIONS = st.lists(
    st.tuples(
        st.integers(1, 6),  # images
        st.sampled_from([dtype for dtype in DTYPES if dtype != torch.bfloat16]),  # which NumPy does not know
        st.sampled_from(["the tensor", "a view", "a part", "numpy", "a part of numpy", "shared memory", "dropped"]),
        st.integers(0, 5),  # which held one is dropped before
    ),
    max_size=12,
)


@settings(max_examples=25)
@given(OPERATIONS)
def test_whatever_the_order_of_taking_holding_and_dropping(operations):
    memory, held = RecycledMemory(), []
    for number, (count, dtype, holder, dropped) in enumerate(operations):
        if dropped < len(held):
            held.pop(dropped)
        out = memory.empty_like(like(count + 1, 3, 256, 256, dtype=dtype)).fill_(number + 1)
        if holder != "dropped":
            held.append((number + 1, HOLDERS[holder][0](out)))
        del out
        for value, holding in held:
            flat = holding.reshape(-1)
            assert (flat[0], flat[-1]) == (value, value)
            assert bool((flat == value).all())


# Copies, modes, threads


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))])
def test_a_copy_is_empty(memory, duplicate):
    out = memory.empty_like(like(*SHAPE)).fill_(7)
    del out
    other = duplicate(memory)
    theirs = other.empty_like(like(*SHAPE)).fill_(8)
    ours = memory.empty_like(like(*SHAPE))
    assert ours.data_ptr() != theirs.data_ptr()
    assert bool((ours == 7).all())  # the original still had its block
    assert len(pickle.dumps(memory)) < 200


def test_a_copied_output_is_held_for_itself(memory):
    out = memory.empty_like(like(*SHAPE)).fill_(7)
    copies = copy.deepcopy(out), pickle.loads(pickle.dumps(out)), out.clone()
    del out
    memory.empty_like(like(*SHAPE)).fill_(-1)
    assert all(bool((one == 7).all()) for one in copies)


def test_inference_mode(memory):
    with torch.inference_mode():
        inside = memory.empty_like(like(*SHAPE)).fill_(7)
        assert inside.is_inference()
        address = inside.data_ptr()
    assert bool((inside == 7).all())
    del inside
    after = memory.empty_like(like(*SHAPE))
    assert after.data_ptr() == address
    assert not after.is_inference()  # a block remembers nothing of it
    weight = torch.ones((), requires_grad=True)
    (after.fill_(2) * weight).sum().backward()
    assert weight.grad == after.numel() * 2


def test_an_output_can_require_gradients(memory):
    out = memory.empty_like(like(*SHAPE)).fill_(3).requires_grad_()
    (out**2).sum().backward()
    assert bool((out.grad == 6).all())


def test_threads(memory):
    """Several take from one memory at once; each finds in its outputs what it wrote."""
    wrong, switch = [], sys.getswitchinterval()
    start = threading.Barrier(4)

    def work(name):
        start.wait()
        held = []
        for number in range(40):
            value = 100 * name + number
            held.append((value, memory.empty_like(like(1, 1, 400, 400)).fill_(value)))
            if number % 3 == 2:
                held.pop(0)
            wrong.extend((value, name) for value, out in held if not bool((out == value).all()))
            del held[:-3]

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert not wrong


def test_an_output_dropped_in_another_thread(memory):
    outputs = [memory.empty_like(like(*SHAPE)).fill_(7)]
    address = outputs[0].data_ptr()
    thread = threading.Thread(target=outputs.clear)
    thread.start()
    thread.join()
    assert memory.empty_like(like(*SHAPE)).data_ptr() == address


# Processes


def test_a_forked_process_writes_in_memory_of_its_own(memory):
    """The child drops its copy of an output and uses the block again; the parent, which holds it, sees none of that."""
    held = [memory.empty_like(like(*SHAPE)).fill_(7)]

    def child(queue):
        address = held.pop().data_ptr()
        out = memory.empty_like(like(*SHAPE)).fill_(-1)
        queue.put(out.data_ptr() == address)

    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert queue.get()
    assert bool((held[0] == 7).all())


@pytest.mark.parametrize("strategy", ["file_descriptor", "file_system"])
@pytest.mark.parametrize("form", ["batches", "views"])
def test_in_the_workers_of_a_data_loader(strategy, form):
    """Workers go on to the next batch while the last is on its way: all are kept, and every one is what it must be.

    Real image n is of the level n / 64 and of class 0, the bank's are 1 and of class 1: all follows from the label.
    """
    before = torch.multiprocessing.get_sharing_strategy()
    side, count, batch_size = 160, 38, 4  # 1.2 MB a batch; the last is smaller
    levels = torch.arange(count) / 64
    images = levels.view(-1, 1, 1, 1).expand(-1, 3, side, side)
    bank = SyntheticBank(
        torch.full((2, 3, side, side), 255, dtype=torch.uint8), torch.tensor([1, 1]), classes=["real", "bank"]
    )
    genmix = GenMix(bank)

    def collate(samples):
        mixed, labels = genmix(*default_collate(samples))
        assert mixed.nbytes < SMALLEST or not of_torch(mixed)  # else this test would show nothing
        return ([mixed[:, channel] for channel in range(3)] if form == "views" else mixed), labels

    genmix(
        *default_collate([(images[0], torch.tensor(0))] * batch_size)
    )  # the main process holds a block when it forks
    torch.multiprocessing.set_sharing_strategy(strategy)
    try:
        loader = DataLoader(
            TensorDataset(images, torch.zeros(count, dtype=torch.int64)),
            batch_size=batch_size,
            num_workers=2,
            prefetch_factor=3,
            collate_fn=collate,
            multiprocessing_context="fork",
        )
        batches = list(loader)
    finally:
        torch.multiprocessing.set_sharing_strategy(before)
    assert len(batches) == 10
    start = 0
    for mixed, labels in batches:
        mixed = torch.stack(mixed, dim=1) if form == "views" else mixed
        real = levels[start : start + len(labels)]
        expected = real + labels[:, 1] * (1 - real)
        assert torch.allclose(mixed, expected.view(-1, 1, 1, 1).expand_as(mixed), rtol=0, atol=3e-7)
        start += len(labels)
    assert start == count
    assert len({float(labels[0, 1]) for _, labels in batches}) == 10


def test_batches_of_a_training_loop_that_keeps_them():
    """All epochs' batches at once, each checked against its own labels at the end."""
    bank = SyntheticBank(
        torch.full((2, 3, 160, 160), 255, dtype=torch.uint8), torch.tensor([1, 1]), classes=["real", "bank"]
    )
    genmix = GenMix(bank, generator=torch.Generator().manual_seed(0))
    kept = [genmix(torch.zeros(4, 3, 160, 160), torch.zeros(4, dtype=torch.int64)) for _ in range(12)]
    for mixed, labels in kept:
        assert torch.allclose(mixed, labels[:, 1].view(-1, 1, 1, 1).expand_as(mixed), rtol=0, atol=1e-7)
    assert len({float(labels[0, 1]) for _, labels in kept}) == 12
    assert len({mixed.data_ptr() for mixed, _ in kept}) == 12
