"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from genmix_transforms.cli.options import (
    Data,
    DataOptions,
    Fit,
    comma_separated,
    parse_share,
    parse_window,
    takes_data_options,
)
from genmix_transforms.data import open_dataset
from genmix_transforms.errors import InputError, MissingPathError


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


def test_windows() -> None:
    assert parse_window("40,400") == (40, 400)
    assert parse_window(None) is None
    for text in ("40", "40,400,3", "a,b", "40,0"):
        with pytest.raises(InputError, match="--window: window must be a level and a width above 0"):
            parse_window(text)
        with pytest.raises(InputError, match="--window"):
            DataOptions(window=text)


def test_a_window_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.arange(864, 880, dtype=np.uint16)[:, None, None].repeat(16, 1).repeat(16, 2)
    np.savez(tmp_path / "ct.npz", images=pixels, labels=np.arange(16) % 2)
    patches = DataOptions(window="40,400", hu_of_zero=-1000).open(str(tmp_path / "ct.npz"))
    assert patches.images[0, 0, 0, 0] == 15
    assert "-160 HU is 0, 240 HU is 255; a stored 0 is -1000 HU" in capsys.readouterr().out


def test_what_was_done_is_said(discs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = DataOptions(size=32, fit=Fit.PAD, split_seed=3)
    patches = options.open(str(discs))
    assert patches.images.shape[1:] == (1, 32, 32)
    options.split_patches(patches)
    out = capsys.readouterr().out
    assert "discs.npz: 48 patches, 1 x 32 x 32 (bright 24, dark 24)" in out
    assert "20x20" in out
    assert "32x32" in out
    assert "split with seed 3: 24 to train (bright 12, dark 12), 12 to validate, 12 to test" in out


def test_the_sources_own_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = np.array(["train"] * 8 + ["val"] * 4 + ["test"] * 4)
    labels = np.arange(16) % 2
    images = np.arange(16, dtype=np.uint8)[:, None, None].repeat(16, 1).repeat(16, 2)
    np.savez(tmp_path / "s.npz", images=images, labels=labels, split=split)
    patches = DataOptions().open(str(tmp_path / "s.npz"))
    train, _, _ = DataOptions().split_patches(patches)
    assert len(train) == 8
    assert "as the source is split: 8 to train" in capsys.readouterr().out
    DataOptions(official=False).split_patches(patches)
    assert "split with seed 0: 8 to train" in capsys.readouterr().out


def test_the_split_of_a_file(discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_dataset(discs).save_split(tmp_path / "split.csv", seed=5)
    options = DataOptions(size=16, split=tmp_path / "split.csv")
    parts = options.split_patches(options.open(str(discs)))
    for part, expected in zip(parts, open_dataset(discs).split(seed=5), strict=True):
        assert torch.equal(part.origins, expected.origins)
    assert f"split as {tmp_path / 'split.csv'} says: 24 to train" in capsys.readouterr().out
    train = options.open_training_set(str(discs), all_data=False, painter="DCGAN")
    assert torch.equal(train.origins, parts[0].origins)


def test_folds_from_a_seed_and_from_files(discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patches = open_dataset(discs)
    patches.save_split(tmp_path / "{fold}.csv", folds=3, seed=7)
    of_seed = DataOptions(split_seed=7).fold_patches(patches, 3)
    of_files = DataOptions(split=tmp_path / "{fold}.csv").fold_patches(patches, 3)
    assert [[part.fingerprint for part in parts] for parts in of_files] == [
        [part.fingerprint for part in parts] for parts in of_seed
    ]
    out = capsys.readouterr().out
    assert "3 folds with seed 7\n  fold 0: 24 to train" in out
    assert "{fold}.csv says" in out
    with pytest.raises(InputError, match=r"each of 3 folds has its own file; write \{fold\} for its number"):
        DataOptions(split=tmp_path / "0.csv").fold_patches(patches, 3)


def test_options_that_exclude_each_other(tmp_path: Path) -> None:
    file = tmp_path / "split.csv"
    with pytest.raises(MissingPathError, match=r"split\.csv: no such file; genmix split DATA --out split\.csv"):
        DataOptions(split=file)
    file.touch()
    for options in ({"split_seed": 0}, {"official": False}):
        with pytest.raises(InputError, match="--split says who is in which part; leave --split-seed and --no-official"):
            DataOptions(split=file, **options)
    with pytest.raises(InputError, match="--all-data trains on every patch; leave --split out"):
        DataOptions(split=file).open_training_set("nowhere", all_data=True, painter="DCGAN")


def test_a_command_gets_them_all_as_one(genmix: Callable[..., Any]) -> None:
    app = typer.Typer(add_completion=False)

    @app.command()
    @takes_data_options
    def command(data: Data, options: DataOptions, loud: bool = False) -> None:
        """Say what it got."""
        typer.echo(f"{data} {options} {loud}")

    run = CliRunner().invoke
    assert run(app, ["--data", "phantom"]).output == f"phantom {DataOptions()} False\n"
    given = ["--data", "x", "--size", "64", "--fit", "pad", "--channels", "1", "--group-key", "p", "--no-official"]
    expected = DataOptions(size=64, fit=Fit.PAD, channels=1, group_key="p", split_seed=2, official=False)
    assert run(app, [*given, "--split-seed", "2", "--loud"]).output == f"x {expected} True\n"
    helped = run(app, ["--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    for name in ("--data", "--size", "--fit", "--channels", "--group-key", "--split", "--split-seed", "--no-official"):
        assert name in helped
    assert "Say what it got." in helped


def test_commands_name_them_as_python_does(genmix: Callable[..., Any]) -> None:
    for command in (["train", "dcgan"], ["train", "stylegan"], ["fill"], ["evaluate"]):
        out = genmix(*command, "--help").out
        for option in ("--size", "--fit", "--channels", "--group-key", "--split-seed", "--official", "--device"):
            assert option in out, (command, option)
