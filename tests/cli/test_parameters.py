"""Command-line options made from settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
import typer
from typer.testing import CliRunner

from genmix_transforms.cli.command import Command
from genmix_transforms.cli.parameters import describe, with_settings, without
from genmix_transforms.errors import InputError
from genmix_transforms.settings import Settings, option


@dataclass(frozen=True, kw_only=True)
class Walk(Settings):
    PRESETS: ClassVar = {"short": {"steps": 10}, "long": {"steps": 1000}}

    preset: str = option("short", help="Values by name.")
    steps: int = option(help="How many.", least=1)
    speed: float = option(1.5, help="In meters a second.", above=0)
    dog: bool = option(True, help="Take one along.")
    weather: Literal["sun", "rain"] = option("sun", help="To expect.")
    stops: tuple[str, ...] = option((), help="Where to rest.")
    shoes: tuple[Literal["left", "right"], ...] = option(("left", "right"), help="To wear.")
    start: tuple[float, float] = option((0.0, 0.0), help="Where it begins.", rare=True)
    food: int | Mapping[str, int] = option(1, help="Pieces.")


@dataclass(frozen=True, kw_only=True)
class Rest(Settings):
    minutes: int = option(5, help="How long.", least=0)


def call(*arguments: object) -> tuple[dict[str, Any], str]:
    """What a command with these arguments gets, and what it says."""
    got: dict[str, Any] = {}

    @with_settings({"rest": "Resting"}, walk=Walk, rest=Rest)
    def command(out: str, walk: dict[str, Any], rest: dict[str, Any], seed: int = 0) -> None:
        """Walk."""
        got.update(out=out, walk=walk, rest=rest, seed=seed)

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(cls=Command)(command)
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if isinstance(done.exception, InputError):
        raise done.exception
    return got, done.output


def test_only_what_is_given_reaches_the_command() -> None:
    got, _ = call("there", "--steps", 12, "--no-dog", "--minutes", 0)
    assert got == {"out": "there", "walk": {"steps": 12, "dog": False}, "rest": {"minutes": 0}, "seed": 0}
    assert call("there")[0]["walk"] == {}


def test_values_of_every_type() -> None:
    got, _ = call(
        *["there", "--speed", 2, "--weather", "rain", "--stops", "a, b", "--stops", "c", "--shoes", "left"],
        *["--food", "apple=3,bread=1", "--set", "start=1,2", "--preset", "long"],
    )
    assert got["walk"] == {
        "preset": "long",
        "speed": 2.0,
        "weather": "rain",
        "stops": ("a, b", "c"),  # texts may hold commas
        "shoes": ("left",),
        "start": (1.0, 2.0),
        "food": {"apple": 3, "bread": 1},
    }
    assert call("there", "--shoes", "none")[0]["walk"] == {"shoes": ()}
    assert Walk.of(got["walk"], name="walk").steps == 1000


def test_the_help_has_defaults_and_panels_and_leaves_rare_settings_out() -> None:
    _, help = call("--help")
    assert "How many. (default: 10; long 1000)" in help
    assert "In meters a second. (default: 1.5)" in help
    assert "<sun|rain>" in help
    assert "Any of left, right." in help
    assert "Resting" in help
    assert "--start" not in help


def test_values_that_cannot_be_read_name_the_option() -> None:
    with pytest.raises(InputError, match="--food: expected a whole number, got 'x'"):
        call("there", "--food", "apple=x")
    assert "is not one of" in call("there", "--weather", "snow")[1]


def test_an_option_can_be_taken_away() -> None:
    @with_settings(rest=Rest)
    def command(rest: dict[str, Any], seed: int = 7) -> None:
        typer.echo(f"{rest} {seed}")

    app = typer.Typer(add_completion=False)
    app.command(cls=Command)(without(command, "seed"))
    assert CliRunner().invoke(app, ["--minutes", "3"]).output == "{'minutes': 3} 7\n"
    assert "No such option: --seed" in CliRunner().invoke(app, ["--seed", "3"]).output


def test_a_setting_in_words() -> None:
    words = {setting.name: describe(setting) for setting in Walk.options()}
    assert words["preset"] == "Values by name. One of short, long. (default: short)"
    assert words["dog"] == "Take one along."  # the flags say the rest
