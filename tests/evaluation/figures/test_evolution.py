"""The figure of a training: the images that its checkpoint holds, in their places, under the number of images seen."""

import numpy as np
import pytest
import torch

from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError
from genmix_transforms.evaluation.figures import evolution_figure
from genmix_transforms.evaluation.figures.evolution import read_evolution
from genmix_transforms.evaluation.figures.style import WIDTH
from genmix_transforms.generators.checkpoints import Checkpoints
from genmix_transforms.generators.evolution import Evolution

CLASSES = ("cyst", "metastasis")
TIMES = (0, 1600, 4000)


def run(folder, *, times=TIMES, classes=CLASSES, dtype=torch.uint8, **others):
    """A training's folder; the images of class c and seed s are 100 c + 10 s + their column."""
    evolution = Evolution(classes, batch_size=16)
    for column, seen in enumerate(times):
        images = [
            torch.stack([torch.full((1, 8, 8), 100 * label + 10 * seed + column) for seed in range(3)]).to(dtype)
            for label in range(len(classes))
        ]
        evolution.add(seen, images)
    record = {"options": {"classes": list(classes)}, "batch_size": 16}
    objects = (
        {"evolution": evolution, "network": torch.nn.Linear(2, 2)} if times else {"network": torch.nn.Linear(2, 2)}
    )
    with Checkpoints(folder / "training", record) as checkpoints:
        checkpoints.save({**objects, **others}, images_seen=4000)
    return folder


def test_a_row_a_class_and_seed_and_a_column_a_time(tmp_path):
    figure = evolution_figure(run(tmp_path))
    rows = {}
    for image in figure.axes[0].images:
        left, _, _, top = image.get_extent()
        rows.setdefault(top, {})[left] = int(np.asarray(image.get_array())[0, 0])
    found = [[row[left] for left in sorted(row)] for _, row in sorted(rows.items())]
    assert found == [
        [100 * label + 10 * seed + column for column in range(3)] for label in range(2) for seed in range(3)
    ]


def test_names_and_numbers(tmp_path):
    texts = [text.get_text() for text in evolution_figure(run(tmp_path)).axes[0].texts]
    assert texts == ["before", "1,600 images\n100 steps", "4,000 images\n250 steps", "cyst", "metastasis"]


@pytest.mark.parametrize("times", [(0, 1600), tuple(range(0, 16000, 1600))])
@pytest.mark.parametrize("name", ["a class with a long name", "hemangioma", "MMMMMMMMMM"])
def test_it_fits_a_page(tmp_path, times, name):
    figure = evolution_figure(run(tmp_path, times=times, classes=(name, "b")))
    assert figure.get_figwidth() * 25.4 <= WIDTH + 1e-6
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.y1 for box in boxes) <= figure.bbox.height
    assert max(image.get_extent()[2] for image in figure.axes[0].images) <= figure.get_figheight() * 25.4


def test_it_is_the_run_s_own_figure(tmp_path):
    evolution, batch_size = read_evolution(run(tmp_path))
    assert (evolution.images_seen, evolution.classes, batch_size) == (list(TIMES), CLASSES, 16)
    assert evolution.picture().width > 0


def test_runs_that_have_none(tmp_path):
    with pytest.raises(MissingPathError, match=r"no state of a training \(training/checkpoint.json\)"):
        evolution_figure(tmp_path / "nowhere")
    with pytest.raises(InputError, match="this training kept no images of fixed seeds"):
        evolution_figure(run(tmp_path / "gan", times=()))
    empty = run(tmp_path / "empty", times=(), evolution=Evolution(CLASSES, batch_size=16))
    with pytest.raises(InputError, match="has kept no images yet"):
        evolution_figure(empty)


def test_a_damaged_checkpoint(tmp_path):
    folder = run(tmp_path)
    (file,) = (folder / "training").glob("state-*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CorruptFileError, match=r"state-.*cannot be read"):
        evolution_figure(folder)
    file.unlink()
    with pytest.raises(CorruptFileError, match="cannot be read"):
        evolution_figure(folder)
