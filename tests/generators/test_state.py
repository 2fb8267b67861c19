"""Training state on disk."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.errors import CorruptFileError
from genmix_transforms.generators.checkpoints import Checkpoints
from genmix_transforms.generators.state import (
    all_finite,
    clear,
    load_checkpoint,
    pack,
    read_record,
    state_bytes,
    unpack,
    weights_hash,
)


def save_checkpoint(folder: Path, objects: dict[str, Any], *, images_seen: int, record: dict[str, Any]) -> None:
    with Checkpoints(folder, record) as checkpoints:
        checkpoints.save(objects, images_seen=images_seen)


scalars = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5)
states = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(states)
def test_any_nested_state_goes_through_json_and_back(state: Any) -> None:
    outline, tensors = pack(state)
    assert tensors == {}
    assert unpack(json.loads(json.dumps(outline)), {}) == state


def test_an_optimiser_goes_on_exactly(tmp_path: Path) -> None:
    def make() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        return model, torch.optim.Adam(model.parameters(), lr=0.1, betas=(0.5, 0.99), fused=True)

    def step(model: torch.nn.Module, optimiser: torch.optim.Optimizer, number: int) -> None:
        optimiser.zero_grad()
        model(torch.full((3, 4), float(number))).square().sum().backward()
        optimiser.step()

    model, optimiser = make()
    for number in range(3):
        step(model, optimiser, number)
    save_checkpoint(tmp_path, {"model": model, "optimiser": optimiser}, images_seen=24, record={"seed": 1})
    for number in range(3, 6):
        step(model, optimiser, number)

    other, other_optimiser = make()
    record = read_record(tmp_path)
    assert record is not None
    assert record["seed"] == 1
    assert load_checkpoint(tmp_path, record, {"model": other, "optimiser": other_optimiser}) == 24
    for number in range(3, 6):
        step(other, other_optimiser, number)
    assert torch.equal(model.weight, other.weight)


def test_only_the_last_checkpoint_is_kept(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    for seen in (8, 16):
        save_checkpoint(tmp_path, {"model": model}, images_seen=seen, record={})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint.json", "state-000000000016.safetensors"]


def test_no_checkpoint_is_none_and_clear_leaves_none(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    save_checkpoint(tmp_path, {"model": torch.nn.Linear(2, 2)}, images_seen=8, record={})
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == []
    clear(tmp_path / "nowhere")


def test_a_changed_state_file_is_refused(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    save_checkpoint(tmp_path, {"model": model}, images_seen=8, record={})
    file = tmp_path / "state-000000000008.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    record = read_record(tmp_path)
    assert record is not None
    with pytest.raises(CorruptFileError, match="not the file that checkpoint.json describes"):
        load_checkpoint(tmp_path, record, {"model": model})
    file.unlink()
    with pytest.raises(CorruptFileError, match="start again with --restart"):
        load_checkpoint(tmp_path, record, {"model": model})


def test_a_broken_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text('{"images_seen": 8')
    with pytest.raises(CorruptFileError, match="not readable"):
        read_record(tmp_path)


def test_what_cannot_be_saved_says_where_it_is() -> None:
    with pytest.raises(TypeError, match="/a/1: a set cannot go into a checkpoint"):
        pack({"a": [1, {2}]})


def test_the_hash_sees_values_names_and_types_but_not_order() -> None:
    a, b = torch.arange(3.0), torch.arange(2)
    assert weights_hash({"a": a, "b": b}) == weights_hash({"b": b, "a": a.clone()})
    assert len({weights_hash(x) for x in ({"a": a}, {"b": a}, {"a": a + 1}, {"a": a.double()}, {"a": a[None]})}) == 5
    assert weights_hash({"s": torch.tensor(3)}) != weights_hash({"s": torch.tensor(4)})


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_memory_layout_is_part_of_the_state(tmp_path: Path, dimensions: int) -> None:
    model: torch.nn.Conv2d | torch.nn.Conv3d
    if dimensions == 2:
        model = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    else:
        model = torch.nn.Conv3d(3, 4, 3).to(memory_format=torch.channels_last_3d)
    optimiser = torch.optim.Adam(model.parameters(), fused=True)
    model(torch.rand(2, 3, *[8] * dimensions)).sum().backward()
    optimiser.step()
    strides = [value.stride() for value in optimiser.state[model.weight].values()]
    save_checkpoint(tmp_path, {"optimiser": optimiser}, images_seen=1, record={})
    record = read_record(tmp_path)
    assert record is not None
    load_checkpoint(tmp_path, record, {"optimiser": optimiser})
    assert [value.stride() for value in optimiser.state[model.weight].values()] == strides
    assert model.weight.stride() in strides


class Held:
    """Any state."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


def test_the_file_is_one_that_safetensors_reads(tmp_path: Path) -> None:
    types = (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool,
    )  # fmt: skip
    state = {f"of \u00e9 {dtype}": torch.arange(6).view(2, 3).to(dtype) for dtype in types}
    state |= {"empty": torch.zeros(0, 3), "scalar": torch.tensor(3.5), "large": torch.rand(5 * 2**20)}
    save_checkpoint(tmp_path, {"held": Held(state)}, images_seen=8, record={})
    read = safetensors.torch.load_file(tmp_path / "state-000000000008.safetensors")
    assert {name.removeprefix("/held/") for name in read} == set(state)
    for name, tensor in state.items():
        assert read[f"/held/{name}"].dtype == tensor.dtype
        assert torch.equal(read[f"/held/{name}"], tensor)
    record, other = read_record(tmp_path), Held(None)
    assert record is not None
    load_checkpoint(tmp_path, record, {"held": other})  # its hash is that of the file
    assert torch.equal(other.state["large"], state["large"])


def test_its_size_is_known_before_an_optimiser_has_moments(tmp_path: Path) -> None:
    model = torch.nn.Linear(300, 200)
    optimiser = torch.optim.Adam(model.parameters())
    objects = {"model": model, "optimiser": optimiser}
    before = state_bytes(objects)
    model(torch.rand(2, 300)).sum().backward()
    optimiser.step()
    save_checkpoint(tmp_path, objects, images_seen=8, record={})
    size = (tmp_path / "state-000000000008.safetensors").stat().st_size
    assert size == pytest.approx(before, rel=0.01)
    assert size == pytest.approx(state_bytes(objects), rel=0.01)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_found(value: float) -> None:
    good = {"a": [torch.ones(3)], "count": torch.tensor(3), "none": None}
    assert all_finite({"held": Held(good)})
    assert all_finite({})
    assert not all_finite({"held": Held(good), "other": Held({"b": (torch.tensor([1.0, value]),)})})
