"""The evolution of fixed seeds: what is kept, what is drawn, and that it survives."""

import pytest
import torch

from genmix_transforms.errors import InputError
from genmix_transforms.generators.evolution import COLUMNS, Evolution
from genmix_transforms.generators.state import pack, unpack


def images(value: int, *, classes: int = 2) -> list[torch.Tensor]:
    """Of each class eight images, told apart by their values."""
    return [torch.full((8, 1, 16, 16), (value + label) % 256, dtype=torch.uint8) for label in range(classes)]


def filled(times: list[int], *, classes: int = 2) -> Evolution:
    evolution = Evolution([f"class {number}" for number in range(classes)], batch_size=4)
    for number, time in enumerate(times):
        evolution.add(time, images(10 * number, classes=classes))
    return evolution


def test_rows_are_seeds_and_columns_times() -> None:
    rows = filled([0, 40, 80]).rows()
    assert [name for name, _ in rows] == ["class 0"] * 3 + ["class 1"] * 3
    assert [[int(image[0, 0, 0]) for image in row] for _, row in rows] == [[0, 10, 20]] * 3 + [[1, 11, 21]] * 3


@pytest.mark.parametrize(("classes", "rows"), [(1, 6), (2, 6), (3, 6), (4, 4), (12, 12), (30, 12)])
def test_every_class_has_a_row_while_there_is_room(classes: int, rows: int) -> None:
    assert len(filled([0], classes=classes).rows()) == rows


def test_first_and_last_stay_and_the_rest_is_thinned_evenly() -> None:
    evolution = filled(list(range(0, 4100, 100)))
    assert len(evolution.images_seen) == COLUMNS
    assert evolution.images_seen[0] == 0
    assert evolution.images_seen[-1] == 4000
    gaps = [after - before for before, after in zip(evolution.images_seen, evolution.images_seen[1:], strict=False)]
    assert max(gaps) <= 1000
    shown = [int(image[0, 0, 0]) for image in evolution.rows()[0][1]]
    assert shown == [(time // 100 * 10) % 256 for time in evolution.images_seen]


def test_the_picture_shows_the_images_and_names_the_steps() -> None:
    evolution = filled([0, 40, 8000])
    picture = evolution.picture()
    grey = torch.tensor(list(picture.convert("L").tobytes())).view(picture.height, picture.width)
    top, side = 24, 6 * 16 + 2  # the headings; patches of 16 pixels are enlarged six times
    for row in range(6):
        for column in range(3):
            centre = grey[top + row * side + 48, picture.width - (3 - column) * side + 48]
            assert centre == 10 * column + row // 3


def test_its_state_goes_through_a_checkpoint() -> None:
    whole, first = filled([0, 4, 8, 12]), filled([0, 4])
    second = Evolution(first.classes, batch_size=4)
    second.load_state_dict(unpack(*pack(first.state_dict())))
    second.add(8, images(20))
    second.add(12, images(30))
    assert second.images_seen == whole.images_seen
    assert second.picture().tobytes() == whole.picture().tobytes()


def test_time_does_not_go_back() -> None:
    with pytest.raises(InputError, match="8 images seen come after 8"):
        filled([0, 8, 8])
