"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genmix_transforms.cli.options import Fit, comma_separated, open_patches, parse_share, split_patches
from genmix_transforms.errors import InputError


@pytest.mark.parametrize(
    ("text", "parts"), [(None, []), ("", []), ("a", ["a"]), (" a, b ,,c", ["a", "b", "c"]), (",", [])]
)
def test_lists(text: str | None, parts: list[str]) -> None:
    assert comma_separated(text) == parts


@pytest.mark.parametrize(("text", "share"), [(None, None), ("0/1", (0, 1)), ("3/16", (3, 16))])
def test_shares(text: str | None, share: tuple[int, int] | None) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["", "1", "/", "1/", "/2", "a/2", "-1/2", "1/2/3", "1.0/2"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(InputError, match="--share: expected RANK/COUNT, such as 0/1 for all shards, got"):
        parse_share(text)


def test_what_was_done_is_said(discs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patches = open_patches(str(discs), size=32, fit=Fit.PAD, channels=None, group_key=None)
    assert patches.images.shape[1:] == (1, 32, 32)
    split_patches(patches, split_seed=3, official=True)
    out = capsys.readouterr().out
    assert "discs.npz: 48 patches, 1 x 32 x 32 (bright 24, dark 24)" in out
    assert "20x20" in out
    assert "32x32" in out
    assert "split with seed 3: 24 to train (bright 12, dark 12), 12 to validate, 12 to test" in out


def test_the_sources_own_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = np.array(["train"] * 8 + ["val"] * 4 + ["test"] * 4)
    labels = np.arange(16) % 2
    np.savez(tmp_path / "s.npz", images=np.zeros((16, 16, 16), np.uint8), labels=labels, split=split)
    patches = open_patches(str(tmp_path / "s.npz"), size=None, fit=Fit.RESIZE, channels=None, group_key=None)
    train, _, _ = split_patches(patches, split_seed=0, official=True)
    assert len(train) == 8
    assert "as the source is split: 8 to train" in capsys.readouterr().out
    split_patches(patches, split_seed=0, official=False)
    assert "split with seed 0: 8 to train" in capsys.readouterr().out


def test_commands_name_them_as_python_does(genmix: Callable[..., Any]) -> None:
    for command in (["train", "dcgan"], ["train", "stylegan"], ["fill"], ["evaluate"]):
        out = genmix(*command, "--help").out
        for option in ("--size", "--fit", "--channels", "--group-key", "--split-seed", "--official", "--device"):
            assert option in out, (command, option)
