"""The picture of the rooms says what the source files import today."""

import importlib.util
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def rooms():
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "figures" / "rooms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_drawn_from_the_code_as_it_is(rooms):
    found = rooms.read_rooms()
    drawn = rooms.draw(found, {room: rooms.summary(room) for room in found})
    kept = (ROOT / "docs" / "assets" / "rooms.svg").read_text(encoding="utf-8")
    assert drawn == kept, "draw it anew: python docs/figures/rooms.py docs/assets/rooms.svg"


def test_every_room_is_there_and_the_command_line_on_top(rooms):
    found = rooms.read_rooms()
    heights = rooms.floors(found)
    assert set(found) == {"bank", "cli", "data", "evaluation", "files", "generators", "transforms"}
    assert max(heights, key=heights.get) == "cli"
    assert heights["files"] == 0
    assert "data" not in found["transforms"]
    assert "transforms" not in found["data"]


def test_an_arrow_that_follows_is_left_out(rooms):
    found = {"top": {"middle", "low"}, "middle": {"low"}, "low": set(), "beside": {"low"}}
    assert rooms.arrows(found) == [("beside", "low"), ("middle", "low"), ("top", "middle")]
    assert rooms.floors(found) == {"low": 0, "middle": 1, "beside": 1, "top": 2}
    picture = ElementTree.fromstring(rooms.draw(found, dict.fromkeys(found, "R & D")))
    boxes = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert boxes == {"top/", "middle/", "low/", "beside/", "R & D"}


def test_a_circle_has_no_floors(rooms):
    with pytest.raises(ValueError, match="rooms in a circle: one, two"):
        rooms.floors({"one": {"two"}, "two": {"one"}, "low": set()})
