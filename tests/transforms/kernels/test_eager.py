"""The mix by plain tensor operations: the equation, its gradient, and one graph."""

import pytest
import torch

from genmix_transforms.transforms.kernels.eager import mix_plainly


def mix(images, pixels, drawn, units, *, out=None):
    mixed = mix_plainly(images, pixels, drawn, units)
    return mixed if out is None else out.copy_(mixed)


def test_equation_one(case):
    if case.layout in ("every second column", "images last") and case.out_layout is None:
        case.out_layout = "contiguous"  # of these layouts it does not promise to be kept
    case.run(mix)


def test_laws(law):
    law(mix)


@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (4, 1, 5, 5), (1, 3, 5, 5), (3, 2, 4, 5, 6), (3, 1, 4, 5, 6)])
@pytest.mark.parametrize("own", ["none", "some"])
@pytest.mark.parametrize("bank_layout", ["contiguous", "channels last"])
def test_the_memory_format_is_kept(make_case, shape, own, bank_layout):
    for layout in ("contiguous", "channels last"):
        case = make_case(shape=shape, layout=layout, own=own, bank_layout=bank_layout)
        assert mix(case.images, case.pixels, case.draw, case.units).stride() == case.images.stride()


@pytest.mark.parametrize("own", ["none", "some", "all"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_gradient(make_case, own, dtype):
    """A real image has 1 - lambda in its own mix, and lambda in those that it is the partner of."""
    case = make_case(dtype=dtype, own=own)
    images = case.images.requires_grad_()
    weights = torch.rand(images.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    mixed = mix_plainly(images, case.pixels, case.draw, case.units)
    (found,) = torch.autograd.grad((mixed * weights).sum(), images)
    expected = torch.zeros(images.shape, dtype=torch.float64)
    for n, (lam, index) in enumerate(zip(case.draw.lam.tolist(), case.draw.index.tolist(), strict=True)):
        expected[n] += (1 - lam) * weights[n].double()
        if own != "none" and case.draw.from_batch[n]:
            expected[index] += lam * weights[n].double()
    tolerance = {torch.float64: 1e-7, torch.float32: 1e-6, torch.bfloat16: 2**-7}[dtype]
    assert torch.allclose(found.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("options", [{}, {"own": "some", "layout": "channels last"}, {"dtype": torch.uint8}])
def test_in_one_graph(make_case, backend, options):
    case = make_case(**options)
    torch._dynamo.reset()
    found = torch.compile(mix_plainly, fullgraph=True, backend=backend)(case.images, case.pixels, case.draw, case.units)
    assert torch.equal(found, mix_plainly(case.images, case.pixels, case.draw, case.units))
    assert found.stride() == case.images.stride()


def test_where_there_are_no_values(make_case):
    """On the meta device, as shapes are worked out: nothing is read."""
    case = make_case(own="some")
    units = case.units._replace(scale=case.units.scale.to("meta"), shift=case.units.shift.to("meta"))
    draw = type(case.draw)(*(value.to("meta") for value in case.draw))
    mixed = mix_plainly(case.images.to("meta"), case.pixels.to("meta"), draw, units)
    assert (mixed.device.type, mixed.shape) == ("meta", case.images.shape)
