"""``genmix train --unlabelled`` and ``--pretrain``: pools on the command line, and what is refused of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from genmix_transforms.data import open_dataset
from genmix_transforms.generators import ADM, DCGAN, load_generator

Genmix = Callable[..., Any]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat folder of 24 grey images of 20 pixels."""
    folder = tmp_path_factory.mktemp("pool") / "flat"
    folder.mkdir()
    for number, pixels in enumerate(np.random.default_rng(5).integers(0, 256, (24, 20, 20), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def options(tiny_options: list[str], discs: Path) -> list[str]:
    return ["-q", "train", "dcgan", "--data", str(discs), "--size", "16", *tiny_options]


def test_a_folder_of_images_alone_is_trained_on_whole(
    genmix: Genmix, pool: Path, tiny_options: list[str], tmp_path: Path
) -> None:
    command = ["-q", "train", "dcgan", "--data", pool, "--size", 16, *tiny_options]
    refused = genmix(*command, "--out", tmp_path / "run")
    assert refused.code == 2
    assert "images without labels are read with labelled=False (genmix train ... --unlabelled)" in refused.err
    outcome = genmix(*command, "--out", tmp_path / "run", "--unlabelled")
    assert outcome.code == 0, outcome.err
    generator = load_generator(tmp_path / "run")
    assert generator.provenance["training_set"]["class_counts"] == {"unlabelled": 24}
    # A split that somebody asks for holds here too.
    outcome = genmix(*command, "--out", tmp_path / "part", "--unlabelled", "--split-seed", 1)
    assert load_generator(tmp_path / "part").provenance["training_set"]["class_counts"] == {"unlabelled": 12}


def test_pretrained_on_a_pool_and_run_again(
    genmix: Genmix, pool: Path, discs: Path, options: list[str], tmp_path: Path
) -> None:
    command = [*options, "--pretrain", pool, "--pretrain-steps", 2, "--out", tmp_path / "run"]
    dry = genmix(*command, "--dry-run")
    assert dry.code == 0, dry.err
    assert "# on the pool: about" in dry.out
    assert (yaml.safe_load(dry.out)["pretrain"], yaml.safe_load(dry.out)["pretrain_steps"]) == (str(pool), 2)
    assert not (tmp_path / "run").exists()
    outcome = genmix(*command)
    assert outcome.code == 0, outcome.err
    assert "flat: 24 patches" in outcome.out
    first, second = (load_generator(tmp_path / "run" / name) for name in ("pretrain", "."))
    assert (first.provenance["steps"], second.provenance["steps"]) == (2, 4)
    assert second.classes == ("bright", "dark")
    start = second.provenance["options"]["started_from"]
    assert start == DCGAN.adapted_to(tmp_path / "run/pretrain", open_dataset(discs, size=16)).weights_hash
    again = genmix(*command)
    assert again.code == 0, again.err
    assert load_generator(tmp_path / "run").weights_hash == second.weights_hash
    # What has been trained on the pool serves other labels too.
    outcome = genmix(*options, "--init", tmp_path / "run/pretrain", "--out", tmp_path / "other", "--split-seed", 3)
    assert outcome.code == 0, outcome.err
    assert load_generator(tmp_path / "other").provenance["options"]["started_from"] == start


def test_of_a_pool_that_comes_split_the_training_part(genmix: Genmix, options: list[str], tmp_path: Path) -> None:
    images = np.random.default_rng(6).integers(0, 256, (30, 20, 20), dtype=np.uint8)
    np.savez(tmp_path / "pool.npz", images=images, split=np.repeat([0, 1, 2], 10))
    outcome = genmix(*options, "--pretrain", tmp_path / "pool.npz", "--pretrain-steps", 1, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "its training part: 10" in outcome.out
    counts = load_generator(tmp_path / "run/pretrain").provenance["training_set"]["class_counts"]
    assert counts == {"unlabelled": 10}


def test_only_class_rows(genmix: Genmix, pool: Path, discs: Path, tmp_path: Path) -> None:
    flags = tmp_path / "flags.json"
    flags.write_text(
        '{"image_size": 8, "num_channels": 32, "channel_mult": [1, 1], "num_res_blocks": 1, '
        '"attention_resolutions": [4], "num_head_channels": 32, "diffusion_steps": 30}'
    )
    outcome = genmix(
        *["-q", "train", "adm", "--data", discs, "--pretrain", pool, "--pretrain-steps", 5, "--size", 8, "--steps", 2],
        *["--batch-size", 4, "--configuration", flags, "--tune", "classes", "--set", "null_class=true"],
        *["--device", "cpu", "--out", tmp_path / "run"],
    )
    assert outcome.code == 0, outcome.err
    first, second = (load_generator(tmp_path / "run" / name) for name in ("pretrain", "."))
    assert isinstance(first, ADM)
    assert isinstance(second, ADM)
    assert second.provenance["settings"]["preset"] == "classes"
    assert first.provenance["settings"]["tune"] == "all"
    assert (first.configuration.class_cond, second.configuration.null_class) == (False, True)
    rows = second.network.state_dict().pop("class_embedding.weight")
    assert rows[:2].any(dim=1).all()
    assert not rows[2].any()
    before = first.network.state_dict()
    assert all(value.equal(before[name]) for name, value in second.network.state_dict().items() if name in before)


def test_a_pool_with_test_images_is_refused(genmix: Genmix, discs: Path, options: list[str], tmp_path: Path) -> None:
    # The data's own file, whose split another file says: the test part is in it.
    refused = genmix(*options, "--pretrain", discs, "--out", tmp_path / "run")
    assert refused.code == 2
    assert "discs.npz: 12 of its 48 images are in the val part of the split" in refused.err
    assert "pool.without(val, test)" in refused.err
    assert not (tmp_path / "run").exists()
    assert (
        genmix(*options, "--pretrain", discs, "--all-data", "--pretrain-steps", 1, "--out", tmp_path / "all").code == 0
    )


def test_weights_that_saw_test_images_are_refused(
    genmix: Genmix, discs: Path, options: list[str], tmp_path: Path
) -> None:
    assert genmix(*options, "--unlabelled", "--out", tmp_path / "pool").code == 0  # all of the file
    refused = genmix(*options, "--init", tmp_path / "pool", "--out", tmp_path / "run")
    assert refused.code == 2
    assert "these weights were trained on 12 of the 12 images of the val part" in refused.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--pretrain", "WIDE"],
            "of 3 x 16 x 16 (C x H x W), discs.npz (train) of 1 x 16 x 16; bring both to one size",
        ),
        (["--pretrain-steps", "3"], "--pretrain-steps are steps on a pool: give --pretrain POOL"),
        (["--pretrain", "POOL", "--per-class"], "give --pretrain or --per-class, not both"),
        (["--pretrain", "POOL", "--init", "x"], "give --pretrain or --init, not both"),
        (["--pretrain", "nowhere"], "'nowhere': no such file or folder"),
    ],
)
def test_what_does_not_go_together(
    genmix: Genmix, pool: Path, options: list[str], tmp_path: Path, more: list[str], message: str
) -> None:
    np.savez(tmp_path / "wide.npz", images=np.zeros((8, 20, 20, 3), np.uint8))
    places = {"POOL": pool, "WIDE": tmp_path / "wide.npz"}
    refused = genmix(*options, *(places.get(word, word) for word in more), "--out", tmp_path / "run")
    assert refused.code == 2
    assert message in refused.err
    assert not (tmp_path / "run").exists()


def test_textual_inversion_says_why_not(genmix: Genmix, pool: Path, discs: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    refused = genmix("-q", "train", "textual-inversion", "--data", discs, "--pretrain", pool, "--out", tmp_path / "run")
    assert refused.code == 2
    assert "no pre-training: what it knows of images is its base model's" in refused.err
