"""The one function that mixes: the equation and its laws by every way, which way is taken when, what is refused."""

import os
import subprocess
import sys
import warnings

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from genmix_transforms import GenMix
from genmix_transforms.errors import InputError
from genmix_transforms.transforms import mix as module
from genmix_transforms.transforms import mix_eager
from genmix_transforms.transforms.drawing import Draw
from genmix_transforms.transforms.mix import GRAIN, Units, fast_ways, mix

F16, F32 = torch.float16, torch.float32

needs_numba = pytest.mark.skipif(
    module._compiled_mix() is None, reason="Numba is an extra: pip install 'genmix-transforms[cpu]'"
)


@pytest.fixture
def taken(monkeypatch):
    """The ways that were taken, in order."""
    names = []

    def count(name, way):
        def counted(*arguments, **options):
            names.append(name)
            return way(*arguments, **options)

        return counted

    for name, function in {"plain": "mix_plainly", "pieces": "mix_in_pieces"}.items():
        monkeypatch.setattr(module, function, count(name, getattr(module, function)))
    compiled = module._compiled_mix()
    if compiled is not None:
        monkeypatch.setattr(module, "_compiled_mix", lambda: count("compiled", compiled))
    return names


def without_numba(patch):
    patch.setattr(module, "_compiled_mix", lambda: None)


def one_image_a_piece(patch):
    without_numba(patch)
    patch.setattr(mix_eager, "PIECE", 1)


def eagerly(patch):
    patch.setattr(module, "fast_ways", lambda: False)


WAYS = {
    "compiled": pytest.param(lambda patch: None, marks=needs_numba),
    "pieces": without_numba,
    "pieces of one image": one_image_a_piece,
    "eager": eagerly,
}


@pytest.fixture(params=WAYS.values(), ids=WAYS.keys())
def way(request, monkeypatch):
    """Leave only one way."""
    request.param(monkeypatch)


def test_equation_one(way, case):
    case.run(mix)


def test_laws(way, law):
    law(mix)


# On the CPU


@needs_numba
@pytest.mark.parametrize(
    ("way", "options"),
    [
        ("compiled", {}),
        ("compiled", {"inplace": True, "own": "some"}),
        ("compiled", {"out_layout": "contiguous"}),
        ("compiled", {"shape": (3, 2, 3, 5, 7), "dtype": torch.bfloat16}),
        ("compiled", {"dtype": torch.uint16, "bank_dtype": torch.uint16}),
        ("pieces", {"dtype": F16}),
        ("pieces", {"layout": "channels last"}),
        ("pieces", {"layout": "every second column", "inplace": True}),
        ("pieces", {"bank_layout": "channels last"}),
        ("pieces", {"out_layout": "channels last"}),
    ],
)
def test_on_the_cpu(taken, make_case, way, options):
    make_case(**options).run(mix)
    assert taken == [way]


@needs_numba
def test_a_negated_view_is_not_compiled_for(taken, make_case):
    """Its memory holds the other sign."""
    case = make_case()
    mixed = mix(torch._neg_view(case.images), case.pixels, case.draw, case.units)
    assert taken == ["pieces"]
    expected = mix(-case.images, case.pixels, case.draw, case.units)
    assert torch.allclose(mixed, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"layout": "channels last", "own": "some"}, {"dtype": torch.uint8}])
def test_without_numba(taken, monkeypatch, make_case, options):
    monkeypatch.setattr(module, "_compiled_mix", lambda: None)
    make_case(**options).run(mix)
    assert taken == ["pieces"]


def test_numba_is_looked_for(monkeypatch):
    module._import_numba_way.cache_clear()
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    try:
        assert module._compiled_mix() is None
    finally:
        module._import_numba_way.cache_clear()


@pytest.mark.parametrize(
    "error", ["ImportError('needs NumPy 2.3 or less')", "SystemError('wrong')", "AttributeError('x')", "OSError('y')"]
)
def test_a_numba_that_cannot_be_imported(monkeypatch, tmp_path, make_case, error):
    """Whatever it raises: training goes on without it, and says so once."""
    (tmp_path / "numba.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    monkeypatch.delitem(sys.modules, "genmix_transforms.transforms.mix_numba", raising=False)
    monkeypatch.setattr(module, "_numba_fails", False)
    module._import_numba_way.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"Numba is installed and does not work \(.*\): mixing goes without it"):
            make_case().run(mix)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            make_case().run(mix)
    finally:
        module._import_numba_way.cache_clear()


@needs_numba
@pytest.mark.parametrize("inplace", [False, True])
def test_a_numba_that_cannot_compile(monkeypatch, make_case, taken, inplace):
    def fails(*arguments, **options):
        raise TypeError("a compiler's internal error")

    monkeypatch.setattr(module, "_compiled_mix", lambda: None if module._numba_fails else fails)
    monkeypatch.setattr(module, "_numba_fails", False)
    with pytest.warns(UserWarning, match=r"does not work \(TypeError: a compiler's internal error\)"):
        make_case(inplace=inplace, own="some").run(mix)
    make_case().run(mix)
    assert taken == ["pieces", "pieces"]


# The switch


SWITCH = """
import torch
from genmix_transforms import GenMix, SyntheticBank
bank = SyntheticBank(torch.zeros(2, 3, 600, 600, dtype=torch.uint8), torch.arange(2), classes=["a", "b"])
genmix = GenMix(bank, check_range=False)
images, labels = genmix(torch.rand(2, 3, 600, 600), torch.arange(2))
import sys
print("numba" in sys.modules, images.untyped_storage().resizable())
"""


def run(script, **environment):
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_everything_fast_can_be_switched_off():
    """What is left are torch's own operations and torch's own memory."""
    found = run(SWITCH, GENMIX_KERNELS="eager")
    assert found.stdout.split() == ["False", "True"], found.stderr


@pytest.mark.parametrize("value", ["auto", None])
def test_the_fast_ways_are_on_by_default(monkeypatch, value):
    monkeypatch.delenv("GENMIX_KERNELS", raising=False)
    if value is not None:
        monkeypatch.setenv("GENMIX_KERNELS", value)
    fast_ways.cache_clear()
    assert fast_ways()
    fast_ways.cache_clear()


@pytest.mark.parametrize("value", ["", "0", "Eager", "triton"])
def test_another_switch_is_refused_when_a_genmix_is_built(monkeypatch, random_bank, value):
    monkeypatch.setenv("GENMIX_KERNELS", value)
    fast_ways.cache_clear()
    try:
        with pytest.raises(InputError, match=f"GENMIX_KERNELS must be auto or eager, got '{value}'"):
            GenMix(random_bank())
    finally:
        fast_ways.cache_clear()


# What does not fit together


OUTSIDE = "mix: partners are outside the bank \\(7 images\\) or the batch \\(5\\)"


@pytest.mark.parametrize(
    ("row", "own"),
    [(7, "none"), (-1, "none"), (10**9, "none"), (2**62, "none"), (-(2**62), "none"), (5, "all"), (-1, "all")],
)
def test_partners_outside(way, make_case, row, own):
    """A foreign bank or a foreign draw: nothing is read there, and nothing is written before that is known."""
    for inplace in (False, True):
        case = make_case(own=own, inplace=inplace)
        case.draw.index[3] = row
        before = case.images.clone()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(InputError, match=OUTSIDE):
                mix(case.images, case.pixels, case.draw, case.units, out=case.images if inplace else None)
        assert torch.equal(case.images, before)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"pixels": torch.zeros(7, 3, 8, 7, dtype=torch.uint8)}, r"the bank's images are 3 x 8 x 7 .*\(5, 3, 9, 7\)"),
        ({"pixels": torch.zeros(7, 1, 9, 7, dtype=torch.uint8)}, "the bank's images are 1 x 9 x 7"),
        (
            {"pixels": torch.zeros(7, 3, 9, 7)},
            "pixels must be uint8 or uint16 on cpu as the images are, got torch.float32",
        ),
        ({"pixels": torch.zeros(7, 3, 9, 7, dtype=torch.uint8, device="meta")}, "got torch.uint8 on meta"),
        ({"lam": torch.zeros(4)}, "got 5 images and 4 labels"),
        ({"lam": torch.zeros(5, dtype=torch.float64)}, r"must have torch.float32 \(5,\) on cpu, got torch.float64"),
        ({"index": torch.zeros(4, dtype=torch.int64)}, r"must have torch.int64 \(5,\) on cpu, got torch.int64 \(4,\)"),
        ({"index": torch.zeros(5, dtype=torch.int32)}, "got torch.int32"),
        ({"index": torch.zeros(5, dtype=torch.int64, device="meta")}, "on meta"),
        (
            {"from_batch": torch.zeros(6, dtype=torch.bool)},
            r"must have torch.bool \(5,\) on cpu, got torch.bool \(6,\)",
        ),
        (
            {"scale": torch.zeros(2, 1, 1)},
            r"units must be float32 for 3 channels on cpu, got torch.float32 \(2, 1, 1\)",
        ),
        ({"shift": torch.zeros(3, 1, 1, device="meta")}, "on meta; move a GenMix and its bank together"),
        ({"out": torch.zeros(5, 3, 9, 8)}, r"out must be like the images, \(5, 3, 9, 7\) torch.float32 on cpu, got"),
        ({"out": torch.zeros(5, 3, 9, 7, dtype=F16)}, "out must be like the images"),
        ({"images": torch.zeros(5, 3, 9, 7, dtype=torch.int64)}, "uint8 or uint16, got torch.int64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tensors_that_do_not_fit_together(way, make_case, change, text):
    case = make_case()
    given = {
        "images": case.images,
        "pixels": case.pixels,
        "out": None,
        **case.draw._asdict(),
        **case.units._asdict(),
        **change,
    }
    draw = Draw(given["lam"], given["index"], given["from_batch"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=text):
            mix(given["images"], given["pixels"], draw, Units(given["scale"], given["shift"]), given["out"])


# How many threads


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
def test_as_many_threads_as_there_is_work_for(threads, allowed, values, expected):
    threads(allowed)
    assert module._threads_for(values) == expected


def test_a_forked_process_stays_on_one_thread(threads, monkeypatch):
    monkeypatch.setattr(module, "_is_forked", False)  # put back afterwards
    threads(4)
    assert module._threads_for(100 * GRAIN) == 4
    module._after_fork()
    assert module._threads_for(100 * GRAIN) == 1


# Where somebody follows the operations


def test_images_that_require_gradients(taken, make_case):
    case = make_case(own="some")
    fast = case.run(mix)
    images = case.images.clone().requires_grad_()
    mixed = mix(images, case.pixels, case.draw, case.units)
    assert taken[1:] == ["plain"]
    assert mixed.requires_grad
    (gradient,) = torch.autograd.grad(mixed.sum(), images)
    assert bool((gradient > 0).any())
    assert torch.allclose(mixed, fast, rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(mix(images, case.pixels, case.draw, case.units), fast)
    with torch.inference_mode():
        assert torch.equal(mix(images, case.pixels, case.draw, case.units), fast)
    assert "plain" not in taken[2:]


class Watching(torch.Tensor):
    """A subclass that has something to say about every operation."""


@pytest.mark.parametrize("kind", [Watching, torch.nn.Parameter])
def test_subclasses(taken, make_case, kind):
    case = make_case(own="some")
    fast = case.run(mix)
    images = kind(case.images) if kind is torch.nn.Parameter else case.images.as_subclass(kind)
    with torch.no_grad():
        mixed = mix(images, case.pixels, case.draw, case.units)
        out = torch.zeros_like(images)
        assert mix(images, case.pixels, case.draw, case.units, out=out) is out
    assert taken[1:] == ["plain", "plain"]
    assert torch.allclose(mixed.as_subclass(torch.Tensor), fast, rtol=1e-6, atol=1e-6)
    assert torch.equal(out.as_subclass(torch.Tensor), mixed.as_subclass(torch.Tensor))
    if kind is Watching:
        assert type(mixed) is Watching


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_it_is_one_graph(make_case, backend):
    """Also out of place into given memory, and in place."""
    case = make_case(own="some")
    expected = case.run(mix)
    torch._dynamo.reset()
    step = torch.compile(mix, fullgraph=True, backend=backend)
    found = step(case.images, case.pixels, case.draw, case.units)
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-6)
    out = torch.zeros_like(case.images)
    step(case.images, case.pixels, case.draw, case.units, out=out)
    assert torch.equal(out, found)
    step(case.images, case.pixels, case.draw, case.units, out=case.images)
    assert torch.equal(case.images, found)


def test_where_there_are_no_values(taken, make_case):
    case = make_case()
    units = case.units._replace(scale=case.units.scale.to("meta"), shift=case.units.shift.to("meta"))
    draw = Draw(*(None if value is None else value.to("meta") for value in case.draw))
    mixed = mix(case.images.to("meta"), case.pixels.to("meta"), draw, units)
    assert (taken, mixed.shape, mixed.dtype) == (["plain"], case.images.shape, F32)


def test_fake_tensors(taken, make_case):
    """As torch works out the shapes of a model."""
    case = make_case(own="some")
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(tensor) for tensor in (case.images, case.pixels, *case.draw)]
        units = case.units._replace(scale=mode.from_tensor(case.units.scale), shift=mode.from_tensor(case.units.shift))
        mixed = mix(*fake[:2], Draw(*fake[2:]), units)
    assert isinstance(mixed, FakeTensor)
    assert (taken, mixed.shape) == (["plain"], case.images.shape)


# On CUDA: a batch that says that it is there


@pytest.fixture
def says_cuda(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True), raising=False)
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda self: False), raising=False)


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_on_cuda(says_cuda, monkeypatch, make_case, layout):
    """The way itself is stood in for: it is :mod:`test_mix_triton`'s."""
    case, given = make_case(layout=layout), []
    monkeypatch.setattr(module, "_fused_mix", lambda: lambda *arguments, out: given.append((arguments, out)) or out)
    found = mix(case.images, case.pixels, case.draw, case.units)
    ((arguments, out),) = given
    assert all(
        one is other for one, other in zip(arguments, (case.images, case.pixels, case.draw, *case.units), strict=True)
    )
    assert found is out
    assert (out.shape, out.stride(), out.dtype) == (case.images.shape, case.images.stride(), F32)
    assert mix(case.images, case.pixels, case.draw, case.units, out=case.images) is case.images
    assert given[1][1] is case.images


def test_on_cuda_without_triton(says_cuda, taken, monkeypatch, make_case):
    monkeypatch.setattr(module, "_fused_mix", lambda: None)
    make_case(own="some").run(mix)
    make_case(own="some", inplace=True).run(mix)
    assert taken == ["plain", "plain"]


def test_on_cuda_with_gradients(says_cuda, taken, monkeypatch, make_case):
    monkeypatch.setattr(module, "_fused_mix", lambda: pytest.fail)
    case = make_case()
    assert mix(case.images.requires_grad_(), case.pixels, case.draw, case.units).requires_grad
    assert taken == ["plain"]


def test_triton_is_looked_for(monkeypatch):
    module._fused_mix.cache_clear()
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    try:
        assert module._fused_mix() is None
    finally:
        module._fused_mix.cache_clear()
