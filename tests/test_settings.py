"""Settings: one field says type, default, bounds and help, and everything else follows from it."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.settings import Settings, option


@dataclass(frozen=True, kw_only=True)
class Walk(Settings):
    """A setting of every type."""

    PRESETS: ClassVar = {"short": {"steps": 10, "speed": 1.0}, "long": {"steps": 1000, "speed": 1.0}}

    preset: str = option("short", help="Values by name.")
    steps: int = option(help="How many.", least=1, most=10_000)
    speed: float = option(help="In meters a second.", above=0)
    slope: float = option(0.0, help="Of the way.", least=-1, below=1, rare=True)
    weather: Literal["sun", "rain"] = option("sun", help="To expect.")
    dog: bool = option(False, help="Take one along.")
    map: Path | None = option(None, help="Where one is.")
    stops: tuple[str, ...] = option((), help="Where to rest.")
    shoes: tuple[Literal["left", "right"], ...] = option(("left", "right"), help="To wear.")
    start: tuple[float, float] = option((0.0, 0.0), help="Where it begins.", runtime=True)
    food: int | Mapping[str, int] = option(1, help="Pieces, or pieces of each kind.", least=0)
    names: Mapping[str, str] | None = option(None, help="Of who comes.")
    guide: Any = option(None, help="Anything.")

    def check(self) -> None:
        """A rule across fields."""
        if self.dog and self.weather == "rain":
            raise InputError("dog: not in the rain")


def make(**given: Any) -> Walk:
    return Walk.of(given, name="walk")


def test_presets_fill_in_what_is_left_out_and_what_is_given_wins() -> None:
    assert (make().preset, make().steps) == ("short", 10)
    assert make(preset="long").steps == 1000
    assert make(preset="long", steps=7).steps == 7


def test_values_take_their_fields_type() -> None:
    walk = make(speed=2, steps=np.int64(3), stops=["a", "b"], start=[1, 2], map="here", food={"apple": np.int32(2)})
    assert (walk.speed, type(walk.speed)) == (2.0, float)
    assert (walk.steps, type(walk.steps)) == (3, int)
    assert (walk.stops, walk.start, walk.map) == (("a", "b"), (1.0, 2.0), Path("here"))
    assert walk.food == {"apple": 2}
    assert dataclasses.replace(walk, speed=3).speed == 3.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stepz": 1}, "walk: no such option: stepz; did you mean steps[?] There are preset, steps, speed"),
        ({"xyz": 1}, "walk: no such option: xyz; there are preset"),
        ({"preset": "far"}, "walk: preset must be one of short, long, got 'far'"),
        ({"steps": 0}, "walk: steps must be a whole number, from 1 to 10000, got 0"),
        ({"steps": 1.5}, "steps must be a whole number, from 1 to 10000, got 1.5"),
        ({"steps": True}, "steps must be a whole number, from 1 to 10000, got True"),
        ({"steps": "3"}, "steps must be a whole number, from 1 to 10000, got '3'"),
        ({"speed": 0}, "speed must be positive, got 0"),
        ({"speed": math.nan}, "speed must be positive, got nan"),
        ({"speed": math.inf}, "speed must be positive, got inf"),
        ({"speed": "fast"}, "speed must be a number, positive, got 'fast'"),
        ({"slope": 1}, "slope must be at least -1 and below 1, got 1"),
        ({"weather": "snow"}, "weather must be one of sun, rain, got 'snow'"),
        ({"dog": 1}, "dog must be True or False, got 1"),
        ({"stops": "a,b"}, "stops must be a list, got 'a,b'"),
        ({"stops": [1]}, "stops must be a text, got 1"),
        ({"shoes": ["middle"]}, "shoes must be one of left, right, got 'middle'"),
        ({"start": [1.0]}, r"start must be 2 values, got 1: \[1.0\]"),
        ({"food": {"apple": -1}}, "food of apple must be a whole number, at least 0, got -1"),
        ({"names": "Ann"}, "names must be a mapping from names to values, got 'Ann'"),
        ({"map": 3}, "map must be a path, got 3"),
        ({"dog": True, "weather": "rain"}, "walk: dog: not in the rain"),
    ],
)
def test_values_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(**given)


def written(name: str) -> Any:
    return next(setting for setting in Walk.options() if setting.name == name)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("steps", "12", 12),
        ("speed", "1e-3", 0.001),
        ("dog", "true", True),
        ("dog", "no", False),
        ("weather", "rain", "rain"),
        ("map", "none", None),
        ("stops", "a, b", ("a", "b")),
        ("stops", "none", ()),
        ("shoes", "left", ("left",)),
        ("start", "1,2.5", (1.0, 2.5)),
        ("food", "3", 3),
        ("food", "apple=3, bread=1", {"apple": 3, "bread": 1}),
        ("names", "first=Ann B,second=Bo", {"first": "Ann B", "second": "Bo"}),
    ],
)
def test_texts_are_read_as_the_command_line_writes_them(name: str, text: str, value: Any) -> None:
    assert written(name).parse(text) == value
    assert written(name).check(written(name).parse(text), name=name) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("steps", "1.5", "steps: expected a whole number, got '1.5'"),
        ("speed", "fast", "speed: expected a number, got 'fast'"),
        ("dog", "maybe", "dog: expected true or false, got 'maybe'"),
        ("names", "Ann", "names: expected NAME=VALUE, with commas between several, got 'Ann'"),
        ("food", "apple=x", "food: expected a whole number, got 'x'"),
    ],
)
def test_texts_that_cannot_be_read(name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        written(name).parse(text)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "steps": st.integers(1, 10_000),
            "speed": st.floats(1e-6, 1e6),
            "dog": st.booleans(),
            "stops": st.lists(st.text("abc", min_size=1, max_size=3), max_size=3),
            "start": st.tuples(st.floats(-9, 9), st.floats(-9, 9)),
            "food": st.one_of(
                st.integers(0, 9), st.dictionaries(st.text("abc", min_size=1), st.integers(0, 9), min_size=1)
            ),
        },
    )
)
def test_what_is_written_is_read_and_json_makes_the_same_settings(given: dict[str, Any]) -> None:
    walk = make(**given)
    assert make(**walk.to_json()) == walk
    for setting in Walk.options():
        value = getattr(walk, setting.name)
        if setting.name != "guide":
            assert setting.parse(setting.write(value)) == value


def test_options_say_all_that_the_fields_say() -> None:
    speed, slope, shoes = written("speed"), written("slope"), written("shoes")
    assert (speed.type, speed.help, speed.above, speed.range_text()) == (float, "In meters a second.", 0, "positive")
    assert (slope.rare, slope.range_text(), written("start").runtime) == (True, "at least -1 and below 1", True)
    assert (shoes.items, shoes.choices, written("weather").choices) == (0, ("left", "right"), ("sun", "rain"))
    assert written("steps").default_text() == "10; long 1000"
    assert speed.default_text() == "1.0"  # all presets say the same
    assert written("preset").choices == ("short", "long")
    assert (written("map").optional, written("map").default_text()) == (True, "")


def test_the_table_has_a_row_for_every_setting() -> None:
    rows = Walk.table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [field.name for field in dataclasses.fields(Walk)]
    assert "| `weather` | To expect. | `sun`, `rain` | sun |" in rows
    assert "| `steps` | How many. | from 1 to 10000 | 10; long 1000 |" in rows


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().steps = 3  # type: ignore[misc]
