"""The Triton kernel, run by Triton's interpreter on the CPU, compiled for GPUs that are not here, and on one"""

import importlib
import re
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="Triton is not installed; torch for Linux brings it")

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.transforms.drawing import Draw
from genmix_transforms.transforms.mix import Units
from genmix_transforms.transforms.mix_eager import mix_plainly

KERNEL = "genmix_transforms.transforms.mix_triton"

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),  # of NumPy, for infinity and NaN
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION"),
]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def module_for(patch, *, interpreted):
    """Import the way anew: whether its kernel is interpreted is decided when Triton decorates it."""
    patch.setenv("TRITON_INTERPRET", "1" if interpreted else "0")
    patch.delitem(sys.modules, KERNEL, raising=False)
    package = sys.modules[KERNEL.rpartition(".")[0]]
    before = package.__dict__.get("mix_triton")
    module = importlib.import_module(KERNEL)
    patch.delitem(sys.modules, KERNEL)
    patch.setitem(sys.modules, KERNEL, module)
    if before is not None:
        patch.setattr(package, "mix_triton", before)
    return module


@pytest.fixture(scope="module")
def interpreter():
    with pytest.MonkeyPatch.context() as patch:
        yield module_for(patch, interpreted=True)


def mix(images, pixels, drawn, units, *, out=None):
    out = torch.empty_like(images) if out is None else out
    return sys.modules[KERNEL].mix_fused(images, pixels, drawn, *units, out=out)


# Interpreted: what the kernel computes


def interpreted(images, pixels, drawn, units, *, out=None):
    return mix(images, pixels, drawn, units, out=out)


interpreted.truncates_to_bfloat16 = True


def test_equation_one(interpreter, monkeypatch, case):
    """By several programs an image; under the laws, and in practice, small images are one program's."""
    monkeypatch.setattr(interpreter, "BLOCK", 32)
    case.run(interpreted)


def test_laws(interpreter, law):
    law(interpreted)


@settings(max_examples=12)
@given(data=st.data())
def test_any_shape_layout_and_block(interpreter, make_case, data):
    spatial = data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=3), "spatial")
    layouts = ["contiguous", "channels last", "every second column", "every second image", "images last"]
    case = make_case(
        shape=(data.draw(st.integers(0, 4), "N"), data.draw(st.integers(1, 4), "C"), *spatial),
        dtype=data.draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8])),
        bank_dtype=data.draw(st.sampled_from([torch.uint8, torch.uint16]), "bank dtype"),
        layout=data.draw(st.sampled_from(layouts), "layout"),
        bank_layout=data.draw(st.sampled_from(layouts), "bank"),
        out_layout=data.draw(st.sampled_from([None, *layouts]), "out"),
        own=data.draw(st.sampled_from(["none", "some", "all"]), "own"),
        inplace=data.draw(st.booleans(), "in place"),
        seed=data.draw(st.integers(0, 1000), "seed"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "BLOCK", data.draw(st.sampled_from([1, 2, 8, 32, 2048]), "block"))
        case.run(interpreted)


def test_a_row_that_32_bits_do_not_reach(interpreter):
    """A bank of ten gigabytes has more values than 32 bits count. Of this one's two, only the last row is touched."""
    side = 256
    one = torch.randint(0, 256, (1, 1, side, side), dtype=torch.uint8)
    count = 2**31 // side**2 + 3
    bank = torch.empty(count, 1, side, side, dtype=torch.uint8)
    bank[count - 1] = one[0]
    draw = Draw(torch.ones(1), torch.tensor([count - 1]), None)
    units = Units.between_integers(torch.ones(1, 1, 1), 1.0)
    mixed = mix(torch.zeros(1, 1, side, side, dtype=torch.uint8), bank, draw, units)
    assert torch.equal(mixed, one)


def test_strides_of_dimensions_of_size_one(interpreter, make_case):
    """They may be anything, and mean nothing."""
    case = make_case(shape=(1, 3, 4, 5))
    strange = torch.empty_strided((1, 3, 4, 5), (999, 20, 5, 1)).copy_(case.images)
    expected = case.run(interpreted)
    assert torch.equal(mix(strange, case.pixels, case.draw, case.units), expected)


# Compiled: that each variant can be, and that the compiler keeps what the rounding is made of

HOPPER = ("cuda", 90, 32)
TARGETS = {"nvidia": ("cuda", 80, 32), "amd": ("hip", "gfx942", 64)}
TYPES = {
    torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64", torch.uint8: "u8",
    torch.uint16: "u16", torch.int64: "i64", torch.bool: "i1",
}  # fmt: skip
PIXELS = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.uint16]


class Recorded:
    """Stands in for the kernel, and keeps what it is launched with."""

    def __getitem__(self, grid):
        def launch(*arguments, **named):
            self.grid, self.arguments, self.named = grid, arguments, named

        return launch


@pytest.fixture(scope="module")
def compile_for(tmp_path_factory, make_case):
    """Triton's compiler without a GPU: ``compile_for(target, **case)`` returns the assembly for a launch, by kind."""
    import triton
    from triton.backends import backends
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        module = module_for(patch, interpreted=False)
        kernel, launch = module.mix_kernel, Recorded()
        patch.setattr(module, "mix_kernel", launch)

        def build(target, **options):
            if {"cuda": "nvidia", "hip": "amd"}[target[0]] not in backends:
                pytest.skip(f"Triton was built without a compiler for {target[0]}")
            case = make_case(**{"shape": (2, 3, 224, 224), **options})
            mix(case.images, case.pixels, case.draw, case.units)
            names = kernel.arg_names
            tensors = dict(zip(names, launch.arguments, strict=False))
            constants = {name: value for name, value in launch.named.items() if name in names}
            source = ASTSource(
                fn=kernel,
                signature={
                    **{name: f"*{TYPES[tensor.dtype]}" for name, tensor in tensors.items()},
                    **dict.fromkeys(constants, "constexpr"),
                },
                constexprs={(names.index(name),): value for name, value in constants.items()},
                attrs={(names.index(name),): [["tt.divisibility", 16]] for name in tensors},
            )
            others = {name: value for name, value in launch.named.items() if name not in names}
            return triton.compile(source, target=GPUTarget(*target), options=others).asm

        yield build


@pytest.mark.parametrize("dtype", PIXELS)
def test_it_compiles(compile_for, dtype):
    """With and without partners of the batch, for both orders of memory, and for banks of 16 bits."""
    last = "channels last"
    for options in (
        {},
        {"own": "some", "layout": last},
        {"own": "some", "bank_layout": last, "bank_dtype": torch.uint16},
        {"layout": last, "bank_layout": last},
    ):
        assert len(compile_for(HOPPER, dtype=dtype, **options)["cubin"]) > 1000


@pytest.mark.parametrize("maker", TARGETS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.uint8])
def test_it_compiles_for_other_gpus(compile_for, maker, dtype):
    binary = {"nvidia": "cubin", "amd": "hsaco"}[maker]
    assert len(compile_for(TARGETS[maker], dtype=dtype, own="some")[binary]) > 1000


def test_the_compiler_keeps_the_rounding(compile_for):
    """12582912 is added, and taken away again: a compiler that rearranged sums would drop both."""
    ptx = compile_for(HOPPER, dtype=torch.uint8)["ptx"]
    added, taken = (len(re.findall(rf"add\S*\.f32.*0f{bits}B400000", ptx)) for bits in "4C")
    assert added == taken > 0
    assert "B400000" not in compile_for(HOPPER)["ptx"]


def test_bfloat16_is_rounded_to_the_nearest(compile_for):
    """Which the interpreter does not: it cuts off."""
    assert re.search(r"cvt\.rn\.bf16(x2)?\.f32", compile_for(HOPPER, dtype=torch.bfloat16)["ptx"])


def test_memory_is_read_and_written_in_vectors(compile_for):
    """Four values at a time: else the memory's bandwidth is out of reach."""
    ptx = compile_for(HOPPER)["ptx"]
    assert len(re.findall(r"st\.global\.v4\.b32", ptx)) == sys.modules[KERNEL].BLOCK // 128 // 4
    assert not re.search(r"st\.global\.b32|ld\.global\S*\.b8", ptx)


def test_memory_is_read_in_vectors_with_the_channels_last(compile_for):
    ptx = compile_for(HOPPER, layout="channels last", bank_layout="channels last")["ptx"]
    assert not re.search(r"ld\.global\S*\.b8", ptx)


# On a GPU


def on_cuda(images, pixels, drawn, units, *, out=None):
    """The way, on a GPU, for tensors of the CPU; while it runs, nothing may wait for the device."""

    def move(tensor):
        moved = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")
        return moved.copy_(tensor)

    there = [move(images), move(pixels)]
    draw = Draw(*(None if value is None else move(value) for value in drawn))
    units = units._replace(scale=units.scale.cuda(), shift=units.shift.cuda())
    target = None if out is None else there[0] if out is images else move(out)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = mix(*there, draw, units, out=target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    if out is not None:
        return out.copy_(found)
    return torch.empty_strided(found.shape, found.stride(), dtype=found.dtype, device="cpu").copy_(found)


@pytest.fixture
def on_device(monkeypatch):
    module_for(monkeypatch, interpreted=False)


@needs_cuda
def test_equation_one_on_a_gpu(on_device, case):
    case.run(on_cuda)


@needs_cuda
def test_laws_on_a_gpu(on_device, law):
    law(on_cuda)


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8])
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_it_computes_what_plain_operations_do(on_device, make_case, dtype, layout):
    """At a size of practice, and under a look for reads and writes beyond the tensors."""
    case = make_case(shape=(16, 3, 224, 224), dtype=dtype, layout=layout, own="some", plain=True)
    images, pixels = case.images.cuda(), case.pixels.cuda()
    draw = Draw(*(value.cuda() for value in case.draw))
    units = case.units._replace(scale=case.units.scale.cuda(), shift=case.units.shift.cuda())
    found, expected = mix(images, pixels, draw, units), mix_plainly(images, pixels, draw, *units)
    tolerance = {torch.float16: 2**-10, torch.bfloat16: 2**-7}.get(dtype, 1e-6)
    if dtype == torch.uint8:
        assert (found.int() - expected.int()).abs().max() <= 1
        assert (found != expected).double().mean() < 1e-4  # where a half was missed by a rounding
    else:
        assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance)
    assert found.stride() == images.stride()


@needs_cuda
def test_in_a_cuda_graph(on_device, make_case):
    """What is captured is applied to what stands in its inputs at each replay."""
    case = make_case(shape=(8, 3, 33, 31), own="some", inplace=False)
    images, pixels = case.images.cuda(), case.pixels.cuda()
    draw = Draw(*(value.cuda() for value in case.draw))
    units = case.units._replace(scale=case.units.scale.cuda(), shift=case.units.shift.cuda())
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for inplace in (False, True):
            mix(images.clone(), pixels, draw, units)  # compiles
            if inplace:
                mix(other := images.clone(), pixels, draw, units, out=other)
    torch.cuda.current_stream().wait_stream(stream)
    graph, out, own = torch.cuda.CUDAGraph(), torch.empty_like(images), images.clone()
    with torch.cuda.graph(graph):
        mix(images, pixels, draw, units, out=out)
        mix(own, pixels, draw, units, out=own)
    for seed in range(3):
        torch.manual_seed(seed)
        images.copy_(torch.rand_like(images))
        own.copy_(images)
        draw.lam.copy_(torch.rand_like(draw.lam))
        draw.index.copy_(torch.randint_like(draw.index, 7))
        graph.replay()
        expected = mix_plainly(images, pixels, draw, *units)
        assert torch.allclose(out, expected, rtol=1e-5, atol=1e-6)
        assert torch.allclose(own, expected, rtol=1e-5, atol=1e-6)


@needs_cuda
@pytest.mark.parametrize("own_generator", [False, True])
def test_a_whole_genmix_in_a_cuda_graph(on_device, own_generator):
    """Every replay draws anew. Real images are 0 and of class 0, synthetic ones 1 and of class 1."""
    bank = SyntheticBank(torch.full((4, 3, 16, 16), 255, dtype=torch.uint8), torch.ones(4).long(), classes=["a", "b"])
    generator = torch.Generator("cuda").manual_seed(0) if own_generator else None
    genmix = GenMix(bank, real_partner=0.3, generator=generator).cuda()
    images, labels = torch.zeros(8, 3, 16, 16, device="cuda"), torch.zeros(8, dtype=torch.int64, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            genmix(images, labels)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    if own_generator:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        mixed, soft = genmix(images, labels)
    seen = []
    for _ in range(3):
        graph.replay()
        seen.append(soft[:, 1].clone())
        assert torch.allclose(mixed, soft[:, 1].view(-1, 1, 1, 1).expand_as(mixed), atol=1e-6)
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


@needs_cuda
@pytest.mark.parametrize("options", [{}, {"pairing": "other", "p": 0.7, "real_partner": 0.4}, {"inplace": True}])
def test_a_whole_call_waits_for_nothing(on_device, options):
    bank = SyntheticBank(
        torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8), torch.arange(12) % 3, classes=["a", "b", "c"]
    )
    genmix = GenMix(bank, **options).cuda()
    images, labels = torch.rand(8, 3, 16, 16, device="cuda"), torch.arange(8, device="cuda") % 3
    rows = torch.nn.functional.one_hot(labels, 3).float()
    genmix(images.clone(), labels)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        for given in (labels, rows, labels.int(), labels[:, None]):
            genmix(images.clone(), given)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
def test_a_bank_of_more_values_than_32_bits_count(on_device):
    if torch.cuda.mem_get_info()[0] < 6 * 2**30:
        pytest.skip("less than 6 GB of GPU memory are free")
    count = 2**32 // (3 * 256 * 256) + 3
    bank = torch.zeros(count, 3, 256, 256, dtype=torch.uint8, device="cuda")
    bank[-1] = 200
    images = torch.zeros(2, 3, 256, 256, dtype=torch.uint8, device="cuda")
    draw = Draw(torch.ones(2, device="cuda"), torch.tensor([count - 1, 0], device="cuda"), None)
    mixed = mix(images, bank, draw, Units.between_integers(torch.ones(3, 1, 1, device="cuda"), 1.0))
    assert bool((mixed[0] == 200).all())
    assert not mixed[1].any()
