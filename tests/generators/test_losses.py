"""The losses' file: means, what is forgotten, and what stops a run."""

import json
import resource
from pathlib import Path

import pytest
import torch

from genmix_transforms.errors import DiskFullError
from genmix_transforms.generators.losses import Losses
from genmix_transforms.generators.processes import Processes

ALONE = Processes(0, 1, torch.device("cpu"))


def test_means_are_written_a_line_at_a_time(tmp_path: Path) -> None:
    losses = Losses(tmp_path / "training/losses.jsonl", images_seen=0, processes=ALONE)
    for value in (1.0, 3.0):
        losses.add({"a": torch.tensor(value), "b": torch.tensor(value, dtype=torch.bfloat16, requires_grad=True)})
    assert losses.take(8) == {"a": 2.0, "b": 2.0}
    losses.add({"a": torch.tensor(5.0)})
    assert losses.take(12) == {"a": 5.0}
    lines = [json.loads(line) for line in (tmp_path / "training/losses.jsonl").read_text().splitlines()]
    assert lines == [{"images_seen": 8, "a": 2.0, "b": 2.0}, {"images_seen": 12, "a": 5.0}]


def test_what_happens_again_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "losses.jsonl"
    path.write_text('{"images_seen": 8, "a": 1}\n{"images_seen": 12, "a": 1}\n{"images_seen": 16, "a"')
    Losses(path, images_seen=8, processes=ALONE)
    assert path.read_text() == '{"images_seen": 8, "a": 1}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(value: float, tmp_path: Path) -> None:
    losses = Losses(tmp_path / "losses.jsonl", images_seen=0, processes=ALONE)
    losses.add({"a": torch.tensor(1.0), "b": torch.tensor(value)})
    with pytest.raises(FloatingPointError, match="the b loss is .* at 1,200 images; the last checkpoint is kept"):
        losses.take(1200)
    assert (tmp_path / "losses.jsonl").read_text() == ""


def test_a_full_disk_is_said_with_the_file(tmp_path: Path) -> None:
    losses = Losses(tmp_path / "losses.jsonl", images_seen=0, processes=ALONE)
    losses.add({"a": torch.tensor(1.0)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, before[1]))
    try:
        with pytest.raises(DiskFullError, match=r"losses\.jsonl: the disk is full .*Free some space"):
            losses.take(4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
