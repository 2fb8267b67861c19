"""The benchmark that holds the audit's numbers to those of other programs."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from genmix_transforms.data.patches import PatchDataset

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("timing", "audit_quality"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("audit_quality")
    for name in ("timing", "audit_quality"):
        sys.modules.pop(name, None)


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(20, 4, generator=generator, dtype=torch.float64) for _ in range(2))


def test_a_program_that_is_missing_is_skipped_with_the_reason(script, features, monkeypatch, capsys):
    for name in script.RIVALS:
        for module in (name, f"{name}.metric_kid", f"{name}.metric_fid", f"{name}.metric_prc"):
            monkeypatch.setitem(sys.modules, module, None)
    assert script.compare(*features, nearest=3, what="both")
    out = capsys.readouterr().out
    assert out.count("skipped: not installed") == 2


def test_another_number_is_told(script, features, monkeypatch, capsys):
    right = script.of_ours(*features, 3)
    monkeypatch.setattr(script, "RIVALS", {"same": lambda *_: right, "other": lambda *_: {"KID": right["KID"] + 1e-4}})
    assert not script.compare(*features, nearest=3, what="both")
    out = capsys.readouterr().out
    assert out.count("NOT EQUAL") == 1
    assert out.count("| equal |") == 6


def test_each_fault_is_put_into_the_bank(script):
    images = torch.randint(0, 256, (12, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    patches = PatchDataset(images=images, labels=torch.arange(12) % 3, classes=("a", "b", "c"))
    good, collapsed, wrong, noise = script.banks_of(patches).values()
    assert torch.equal(good.images, images[patches.labels.argsort(stable=True)])
    for number in range(3):
        same = collapsed.images[collapsed.labels == number].int()
        assert int((same - same[0]).abs().max()) <= 6
    assert torch.equal(wrong.images[wrong.labels == 1], good.images[good.labels == 0])
    assert not torch.equal(noise.images, good.images)
