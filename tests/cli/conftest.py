"""The command, called in this process, with its exit code and what it printed."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from genmix_transforms.cli.main import main
from genmix_transforms.files.progress import show_progress_bars


@dataclass
class Outcome:
    """What a user sees of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def genmix(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Outcome]]:
    """``genmix("bank", "info", folder)`` as a shell would run it; options after the quiet flag."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    showwarning, handlers = warnings.showwarning, logging.root.handlers[:]

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["genmix", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    yield call
    show_progress_bars(True)  # -q switches them off for good
    warnings.showwarning = showwarning
    logging.root.handlers[:] = handlers


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz of 48 patches of 20 pixels: bright discs, and dark ones."""
    random = np.random.default_rng(0)
    labels = np.arange(48) % 2
    grid = np.arange(20)
    centre = random.integers(7, 13, (48, 2))
    distance = (grid[None, :, None] - centre[:, :1, None]) ** 2 + (grid[None, None] - centre[:, 1:, None]) ** 2
    disc = distance < 16
    images = np.where(labels[:, None, None] == 0, disc, ~disc) * 180 + random.integers(0, 40, disc.shape)
    path = tmp_path_factory.mktemp("data") / "discs.npz"
    np.savez(path, images=images.astype(np.uint8), labels=labels, label_names=np.array(["bright", "dark"]))
    return path


TINY = "--steps 4 --batch-size 4 --base-width 4 --device cpu".split()

TINY_STYLEGAN = (
    "--steps 4 --batch-size 4 --fmap-base 64 --fmap-max 8 --latent-size 8 --mapping-layers 2 --device cpu".split()
)


@pytest.fixture(scope="session")
def tiny_stylegan_options() -> list[str]:
    return TINY_STYLEGAN


@pytest.fixture(scope="session")
def tiny_options() -> list[str]:
    return TINY
