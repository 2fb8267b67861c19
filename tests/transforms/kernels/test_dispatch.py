"""Which way is taken when; and that whichever it is, what comes out is one and the same thing."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from genmix_transforms.transforms.drawing import Draw
from genmix_transforms.transforms.kernels import dispatch, mix_with_bank
from genmix_transforms.transforms.kernels.compiled import numba_is_there

F16, F32 = torch.float16, torch.float32
WAYS = {"plain": "mix_plainly", "pieces": "mix_in_pieces", "compiled": "mix_compiled", "fused": "mix_fused"}

needs_numba = pytest.mark.skipif(not numba_is_there(), reason="Numba is an extra: pip install 'genmix-transforms[cpu]'")


@pytest.fixture
def taken(monkeypatch):
    """The ways that were taken, in order."""
    names = []
    for name, function in WAYS.items():
        way = getattr(dispatch, function)

        def counted(*arguments, name=name, way=way, **options):
            names.append(name)
            return way(*arguments, **options)

        monkeypatch.setattr(dispatch, function, counted)
    return names


@pytest.fixture(params=[pytest.param(True, marks=needs_numba), False], ids=["with Numba", "without"])
def numba(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(dispatch, "can_mix", lambda *tensors: False)
    return request.param


def test_equation_one(numba, case):
    case.run(mix_with_bank)


def test_laws(numba, law):
    law(mix_with_bank)


# On the CPU


@needs_numba
@pytest.mark.parametrize(
    ("way", "options"),
    [
        ("compiled", {}),
        ("compiled", {"inplace": True, "own": "some"}),
        ("compiled", {"out_layout": "contiguous", "arrays": True}),
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
    make_case(**options).run(mix_with_bank)
    assert taken == [way]


@pytest.mark.parametrize("options", [{}, {"layout": "channels last", "own": "some"}, {"dtype": torch.uint8}])
def test_without_numba(taken, monkeypatch, make_case, options):
    monkeypatch.setattr("genmix_transforms.transforms.kernels.compiled.numba_is_there", lambda: False)
    make_case(**options).run(mix_with_bank)
    assert taken == ["pieces"]


# Where somebody follows the operations


def test_images_that_require_gradients(taken, make_case):
    case = make_case(own="some")
    fast = case.run(mix_with_bank)
    images = case.images.clone().requires_grad_()
    mixed = mix_with_bank(images, case.pixels, case.draw, case.units)
    assert taken[1:] == ["plain"]
    assert mixed.requires_grad
    (gradient,) = torch.autograd.grad(mixed.sum(), images)
    assert bool((gradient > 0).any())
    assert torch.allclose(mixed, fast, rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(mix_with_bank(images, case.pixels, case.draw, case.units), fast)
    with torch.inference_mode():
        assert torch.equal(mix_with_bank(images, case.pixels, case.draw, case.units), fast)
    assert "plain" not in taken[2:]


class Watching(torch.Tensor):
    """A subclass that has something to say about every operation."""


@pytest.mark.parametrize("kind", [Watching, torch.nn.Parameter])
def test_subclasses(taken, make_case, kind):
    case = make_case(own="some")
    fast = case.run(mix_with_bank)
    images = kind(case.images) if kind is torch.nn.Parameter else case.images.as_subclass(kind)
    with torch.no_grad():
        mixed = mix_with_bank(images, case.pixels, case.draw, case.units)
        out = torch.zeros_like(images)
        assert mix_with_bank(images, case.pixels, case.draw, case.units, out=out) is out
    assert taken[1:] == ["plain", "plain"]
    assert torch.allclose(mixed.as_subclass(torch.Tensor), fast, rtol=1e-6, atol=1e-6)
    assert torch.equal(out.as_subclass(torch.Tensor), mixed.as_subclass(torch.Tensor))
    if kind is Watching:
        assert type(mixed) is Watching


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_it_is_one_graph(make_case, backend):
    """Also out of place into given memory, and in place."""
    case = make_case(own="some")
    expected = case.run(mix_with_bank)
    torch._dynamo.reset()
    step = torch.compile(mix_with_bank, fullgraph=True, backend=backend)
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
    mixed = mix_with_bank(case.images.to("meta"), case.pixels.to("meta"), draw, units)
    assert (taken, mixed.shape, mixed.dtype) == (["plain"], case.images.shape, F32)


def test_fake_tensors(taken, make_case):
    """As torch works out the shapes of a model."""
    case = make_case(own="some")
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(tensor) for tensor in (case.images, case.pixels, *case.draw)]
        units = case.units._replace(scale=mode.from_tensor(case.units.scale), shift=mode.from_tensor(case.units.shift))
        mixed = mix_with_bank(*fake[:2], Draw(*fake[2:]), units)
    assert isinstance(mixed, FakeTensor)
    assert (taken, mixed.shape) == (["plain"], case.images.shape)


# On CUDA: a batch that says that it is there


@pytest.fixture
def says_cuda(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True), raising=False)
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda self: False), raising=False)


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_on_cuda(says_cuda, monkeypatch, make_case, layout):
    """The way itself is stood in for: it is :mod:`test_cuda`'s."""
    case, given = make_case(layout=layout), []
    monkeypatch.setattr(dispatch, "triton_is_there", lambda: True)
    monkeypatch.setattr(dispatch, "mix_fused", lambda *arguments, out: given.append((arguments, out)) or out)
    found = mix_with_bank(case.images, case.pixels, case.draw, case.units)
    ((arguments, out),) = given
    assert all(
        one is other for one, other in zip(arguments, (case.images, case.pixels, case.draw, case.units), strict=True)
    )
    assert found is out
    assert (out.shape, out.stride(), out.dtype) == (case.images.shape, case.images.stride(), F32)
    assert mix_with_bank(case.images, case.pixels, case.draw, case.units, out=case.images) is case.images
    assert given[1][1] is case.images


def test_on_cuda_without_triton(says_cuda, taken, monkeypatch, make_case):
    monkeypatch.setattr(dispatch, "triton_is_there", lambda: False)
    make_case(own="some").run(mix_with_bank)
    make_case(own="some", inplace=True).run(mix_with_bank)
    assert taken == ["plain", "plain"]


def test_on_cuda_with_gradients(says_cuda, taken, monkeypatch, make_case):
    monkeypatch.setattr(dispatch, "triton_is_there", lambda: True)
    case = make_case()
    assert mix_with_bank(case.images.requires_grad_(), case.pixels, case.draw, case.units).requires_grad
    assert taken == ["plain"]
