"""The mix in pieces: the same whatever the size of a piece, and in the images' own memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genmix_transforms.transforms.kernels import cpu
from genmix_transforms.transforms.kernels.cpu import mix_in_pieces

ANY_LAYOUT = [
    "contiguous",
    "channels last",
    "every second column",
    "every second image",
    "some channels",
    "images last",
]


def mix(images, pixels, drawn, units, *, out=None):
    return mix_in_pieces(images, pixels, drawn, units, out=torch.empty_like(images) if out is None else out)


@pytest.mark.parametrize("piece", [1, 400, cpu.PIECE])  # an image at a time, two, all
def test_equation_one(monkeypatch, case, piece):
    monkeypatch.setattr(cpu, "PIECE", piece)
    case.run(mix)


@pytest.mark.parametrize("piece", [1, cpu.PIECE])
def test_laws(monkeypatch, law, piece):
    monkeypatch.setattr(cpu, "PIECE", piece)
    law(mix)


@pytest.mark.parametrize("own", ["none", "some", "all"])
@pytest.mark.parametrize("inplace", [False, True])
def test_the_size_of_a_piece_changes_no_bit(monkeypatch, make_case, own, inplace):
    found = []
    for piece in (1, 189, 190, 2 * 189, 3 * 189, 10**6):
        monkeypatch.setattr(cpu, "PIECE", piece)
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
        patch.setattr(cpu, "PIECE", data.draw(st.integers(1, 500), "piece"))
        case.run(mix)


def test_the_buffer_is_of_a_piece(make_case):
    """A batch of many pieces takes no memory of its size besides the output."""
    case = make_case(shape=(64, 3, 128, 128), dtype=torch.uint8)  # in float32 12.6 MB
    out = torch.empty_like(case.images)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        mix_in_pieces(case.images, case.pixels, case.draw, case.units, out=out)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 < largest <= 4 * cpu.PIECE
