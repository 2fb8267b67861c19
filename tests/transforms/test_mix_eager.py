"""The mix by torch's own operations: in pieces, whatever their size; and plainly: its gradient, and one graph."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.transforms import mix as mix_module
from genmix_transforms.transforms import mix_eager
from genmix_transforms.transforms.mix_eager import mix_in_pieces, mix_plainly

ANY_LAYOUT = [
    "contiguous",
    "channels last",
    "every second column",
    "every second image",
    "some channels",
    "images last",
]


def mix(images, pixels, drawn, units, *, out=None):
    """Mix in pieces: on the CPU, as if there were no Numba."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mix_module, "_compiled_mix", lambda: None)
        return mix_module.mix(images, pixels, drawn, units, out)


@pytest.mark.parametrize("own", ["none", "some", "all"])
@pytest.mark.parametrize("inplace", [False, True])
def test_the_size_of_a_piece_changes_no_bit(monkeypatch, make_case, own, inplace):
    found = []
    for piece in (1, 189, 190, 2 * 189, 3 * 189, 10**6):
        monkeypatch.setattr(mix_eager, "PIECE", piece)
        found.append(make_case(shape=(7, 3, 9, 7), own=own, inplace=inplace).run(mix))
    assert all(torch.equal(one, found[0]) for one in found)


@settings(max_examples=60)
@given(data=st.data())
def test_any_shape_layout_and_piece(make_case, data):
    spatial = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3), "spatial")
    shape = (data.draw(st.integers(0, 5), "N"), data.draw(st.integers(1, 4), "C"), *spatial)
    layouts = [name for name in ANY_LAYOUT if name != "channels last" or len(shape) > 3]
    case = make_case(
        shape=shape,
        dtype=data.draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8])),
        layout=data.draw(st.sampled_from(layouts), "layout"),
        bank_layout=data.draw(st.sampled_from(layouts), "bank"),
        out_layout=data.draw(st.sampled_from([None, *layouts]), "out"),
        own=data.draw(st.sampled_from(["none", "some", "all"]), "own"),
        inplace=data.draw(st.booleans(), "in place"),
        seed=data.draw(st.integers(0, 1000), "seed"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mix_eager, "PIECE", data.draw(st.integers(1, 500), "piece"))
        case.run(mix)


def test_the_buffer_is_of_a_piece(make_case):
    """A batch of many pieces takes no memory of its size besides the output."""
    case = make_case(shape=(64, 3, 128, 128), dtype=torch.uint8)  # in float32 12.6 MB
    out = torch.empty_like(case.images)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        mix_in_pieces(case.images, case.pixels, case.draw, *case.units, out=out)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 < largest <= 4 * mix_eager.PIECE


# Plainly


@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (4, 1, 5, 5), (1, 3, 5, 5), (3, 2, 4, 5, 6), (3, 1, 4, 5, 6)])
@pytest.mark.parametrize("own", ["none", "some"])
@pytest.mark.parametrize("bank_layout", ["contiguous", "channels last"])
def test_the_memory_format_is_kept(make_case, shape, own, bank_layout):
    for layout in ("contiguous", "channels last"):
        case = make_case(shape=shape, layout=layout, own=own, bank_layout=bank_layout)
        assert mix_plainly(case.images, case.pixels, case.draw, *case.units).stride() == case.images.stride()


@pytest.mark.parametrize("own", ["none", "some", "all"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_gradient(make_case, own, dtype):
    """A real image has 1 - lambda in its own mix, and lambda in those that it is the partner of."""
    case = make_case(dtype=dtype, own=own)
    images = case.images.requires_grad_()
    weights = torch.rand(images.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    mixed = mix_plainly(images, case.pixels, case.draw, *case.units)
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
    found = torch.compile(mix_plainly, fullgraph=True, backend=backend)(
        case.images, case.pixels, case.draw, *case.units
    )
    assert torch.equal(found, mix_plainly(case.images, case.pixels, case.draw, *case.units))
    assert found.stride() == case.images.stride()


def test_where_there_are_no_values(make_case):
    """On the meta device, as shapes are worked out: nothing is read."""
    case = make_case(own="some")
    units = case.units._replace(scale=case.units.scale.to("meta"), shift=case.units.shift.to("meta"))
    draw = type(case.draw)(*(value.to("meta") for value in case.draw))
    mixed = mix_plainly(case.images.to("meta"), case.pixels.to("meta"), draw, *units)
    assert (mixed.device.type, mixed.shape) == ("meta", case.images.shape)
