"""Tiny base models that the tests of this room share: saved once, opened once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from genmix_transforms.generators.textual_inversion.base_model import find_base_model, open_base_model
from genmix_transforms.generators.textual_inversion.network import LatentDiffusion
from tests.generators.textual_inversion.tiny_pipelines import save_ldm, save_stable_diffusion


@pytest.fixture(scope="session", autouse=True)
def no_bars_while_loading() -> Iterator[None]:
    """Their bars, one a model, would bury what the tests say."""
    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
    yield
    for logging in (diffusers_logging, transformers_logging):
        logging.enable_progress_bar()


@pytest.fixture(scope="session")
def ldm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of the paper's kind, in the hub's layout. Not to be written to."""
    return save_ldm(tmp_path_factory.mktemp("base") / "tiny-ldm")


@pytest.fixture(scope="session")
def stable_diffusion_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion, in the hub's layout. Not to be written to."""
    return save_stable_diffusion(tmp_path_factory.mktemp("base") / "tiny-stable-diffusion")


@pytest.fixture(scope="session")
def ldm(ldm_folder: Path) -> LatentDiffusion:
    """The same, opened. Not to be changed."""
    return open_base_model(find_base_model(ldm_folder))


@pytest.fixture(scope="session")
def stable_diffusion(stable_diffusion_folder: Path) -> LatentDiffusion:
    """The same, opened. Not to be changed."""
    return open_base_model(find_base_model(stable_diffusion_folder))
