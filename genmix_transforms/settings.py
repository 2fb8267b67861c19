"""What a setting is: a field of a frozen dataclass that says its type, its default, its bounds and its help, once.

Checks, command-line options, configuration files, tables of the documentation and the provenance all read the fields.
"""

import dataclasses
import difflib
import math
import operator
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args, get_origin

from genmix_transforms.errors import InputError

_KEY = "genmix_option"

NONE = "none"
"""The word for None, and for no values at all, on the command line."""


@dataclass(frozen=True, kw_only=True)
class _Said:
    """What :func:`option` was told; its documentation is there."""

    help: str
    least: float | None
    most: float | None
    above: float | None
    below: float | None
    rare: bool
    runtime: bool
    panel: str | None


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    rare: bool = False,
    runtime: bool = False,
    panel: str | None = None,
) -> Any:
    """Declare a setting: a field of a :class:`Settings` class.

    Args:
        default: left out, every preset gives a value.
        help: a sentence or two, for the command line and the documentation.
        least: the smallest allowed number.
        most: the largest allowed number.
        above: a number that the value must exceed.
        below: a number that the value must stay under.
        rare: keep it out of ``--help``; ``--set NAME=VALUE`` and configuration files set it.
        runtime: it does not change what a run learns, so that a resumed run may have another value.
        panel: the heading it stands under in ``--help``.

    Returns:
        A dataclass field.
    """
    said = _Said(help=help, least=least, most=most, above=above, below=below, rare=rare, runtime=runtime, panel=panel)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata={_KEY: said})
    return dataclasses.field(default=default, metadata={_KEY: said})


@dataclass(frozen=True, kw_only=True)
class Option(_Said):
    """A setting, as checks, commands and tables see it: what :func:`option` was told of it, and what its type says.

    Args:
        name: of the field, the Python argument and, with hyphens, the command-line option.
        type: of a value: int, float, bool, str, Path, or object for anything, which its owner checks.
        items: None for a single value; for a tuple the number of its items, or 0 for any number.
        keyed: whether a value may be a mapping, from names to values of the type.
        single: whether a value may be one that is no mapping.
        choices: the words that a value may be; empty for any.
        optional: whether None is allowed.
        default: the value where neither user nor preset gives one; ``dataclasses.MISSING`` if presets always do.
        presets: the values that presets give, by the preset's name.
    """

    name: str
    type: type
    items: int | None
    keyed: bool
    single: bool
    choices: tuple[str, ...]
    optional: bool
    default: Any
    presets: Mapping[str, Any]

    def check(self, value: Any, *, name: str) -> Any:
        """Return ``value`` as the setting's own type.

        Args:
            value: what a user gave.
            name: how the message names the setting.

        Raises:
            InputError: another type, or a value out of range.
        """
        if (value is None and self.optional) or self.type is object:
            return value
        if self.keyed and (isinstance(value, Mapping) or not self.single):
            if not isinstance(value, Mapping):
                raise InputError(f"{name} must be a mapping from names to values, got {value!r}")
            return {str(key): self._one(item, name=f"{name} of {key}") for key, item in value.items()}
        if self.items is None:
            return self._one(value, name=name)
        if isinstance(value, str) or not isinstance(value, (tuple, list)):
            raise InputError(f"{name} must be a list, got {value!r}")
        if self.items and len(value) != self.items:
            raise InputError(f"{name} must be {self.items} values, got {len(value)}: {value!r}")
        return tuple(self._one(item, name=name) for item in value)

    def parse(self, text: str) -> Any:
        """Read a value as the command line writes it.

        Items have commas between them, those of a mapping are ``NAME=VALUE``; ``none`` is no value.

        Raises:
            InputError: a text that is no such value.
        """
        text = text.strip()
        if text == NONE and (self.optional or self.items == 0) and NONE not in self.choices:
            return None if self.optional else ()
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if self.keyed and ("=" in text or not self.single):
            pairs = [part.partition("=") for part in parts]
            if not all(key.strip() and value.strip() for key, _, value in pairs):
                raise InputError(f"{self.name}: expected NAME=VALUE, with commas between several, got {text!r}")
            return {key.strip(): self._read(value.strip()) for key, _, value in pairs}
        if self.items is not None:
            return tuple(self._read(part) for part in parts)
        return self._read(text)

    def write(self, value: Any) -> str:
        """Write a value as :meth:`parse` reads it."""
        if value is None or (self.items == 0 and not value):
            return NONE
        if isinstance(value, Mapping):
            return ",".join(f"{key}={item}" for key, item in value.items())
        if self.items is not None:
            return ",".join(str(item) for item in value)
        return str(value).lower() if isinstance(value, bool) else str(value)

    def default_text(self) -> str:
        """The default in words: the value, or the first preset's and those of the presets that have another."""
        if self.name == "preset":
            return self.choices[0] if self.choices else ""
        if not self.presets:
            return "" if self.default in (None, dataclasses.MISSING) else self.write(self.default)
        texts = {preset: self.write(value) for preset, value in self.presets.items()}
        first, *others = texts.values()
        named = [f"{preset} {text}" for preset, text in texts.items() if text != first]
        return "; ".join([first, *named]) if others else first

    def range_text(self) -> str:
        """The allowed numbers in words; empty if any number is allowed."""
        if self.above == 0 and self.most is None and self.below is None:
            return "positive"
        lower = f"at least {self.least}" if self.least is not None else ""
        lower = f"above {self.above}" if self.above is not None else lower
        upper = f"at most {self.most}" if self.most is not None else ""
        upper = f"below {self.below}" if self.below is not None else upper
        if self.least is not None and self.most is not None:
            return f"from {self.least} to {self.most}"
        return " and ".join(part for part in (lower, upper) if part)

    def _one(self, value: Any, *, name: str) -> Any:
        if self.choices:
            if value not in self.choices:
                raise InputError(f"{name} must be one of {', '.join(self.choices)}, got {value!r}")
            return value
        if self.type is bool:
            if not isinstance(value, bool):
                raise InputError(f"{name} must be True or False, got {value!r}")
            return value
        if self.type is int:
            return self._in_range(_whole(value), value, kind="a whole number", name=name)
        if self.type is float:
            return self._in_range(_number(value), value, kind="a number", name=name)
        if not isinstance(value, (str, Path)):
            raise InputError(f"{name} must be a {'path' if self.type is Path else 'text'}, got {value!r}")
        return self.type(value)

    def _in_range(self, number: Any, given: Any, *, kind: str, name: str) -> Any:
        allowed = self.range_text()
        if number is None:
            raise InputError(f"{name} must be {kind}{f', {allowed}' if allowed else ''}, got {given!r}")
        # Written so that NaN fails every comparison.
        inside = (
            math.isfinite(number)
            and (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )
        if not inside:
            whole = "a whole number, " if self.type is int else ""
            raise InputError(f"{name} must be {whole}{allowed or 'a finite number'}, got {given!r}")
        return number

    def _read(self, text: str) -> Any:
        if self.type is bool:
            if text.lower() not in ("true", "false", "yes", "no", "on", "off"):
                raise InputError(f"{self.name}: expected true or false, got {text!r}")
            return text.lower() in ("true", "yes", "on")
        if self.type in (int, float):
            try:
                return self.type(text)
            except ValueError:
                kind = "a whole number" if self.type is int else "a number"
                raise InputError(f"{self.name}: expected {kind}, got {text!r}") from None
        return text


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of something: fields made with :func:`option`, checked when they are put together.

    Values have their field's own type: a list given for a tuple becomes a tuple, a whole number given for a float a
    float. A subclass is a frozen dataclass too.

    Attributes:
        PRESETS: named sets of values; the first is the default. A class that has any has a field ``preset``.

    Raises:
        InputError: a value of another type, or out of range; the message names the setting.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Walk(Settings):
        ...     PRESETS = {"short": {"steps": 10}, "long": {"steps": 1000}}
        ...     preset: str = option("short", help="Values by name.")
        ...     steps: int = option(help="How many.", least=1)
        ...     speed: float = option(1.5, help="In meters a second.", above=0)
        >>> Walk.of({"preset": "long", "speed": 2}, name="walk")
        Walk(preset='long', steps=1000, speed=2.0)
        >>> Walk.of({"sped": 2}, name="walk")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        genmix_transforms.errors.InputError: walk: no such option: sped; did you mean speed? There are ...
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __post_init__(self) -> None:
        for setting in self.options():
            object.__setattr__(self, setting.name, setting.check(getattr(self, setting.name), name=setting.name))
        self.check()

    def check(self) -> None:
        """Check what takes several settings together; a subclass says it.

        Raises:
            InputError: values that do not go together.
        """

    @classmethod
    def of(cls, given: Mapping[str, Any], *, name: str) -> Self:
        """Put settings together from what was given, what the preset says, and the defaults, in this order.

        Args:
            given: values by name.
            name: of what is set, for messages.

        Raises:
            InputError: a name that is no setting (the message proposes the nearest), no such preset, or a value that
                cannot be.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        check_names(given, names, name=name)
        values: dict[str, Any] = {}
        if cls.PRESETS:
            preset = given.get("preset", next(iter(cls.PRESETS)))
            if preset not in cls.PRESETS:
                raise InputError(f"{name}: preset must be one of {', '.join(cls.PRESETS)}, got {preset!r}")
            values |= {"preset": preset, **cls.PRESETS[preset]}
        try:
            return cls(**{**values, **given})
        except InputError as error:
            raise InputError(f"{name}: {error}") from error

    @classmethod
    def options(cls) -> tuple[Option, ...]:
        """The settings, in the order of their fields."""
        return _options(cls)

    @classmethod
    def table(cls) -> str:
        """The settings as a Markdown table: name, what it is, what is allowed, default."""
        rows = [
            f"| `{setting.name}` | {setting.help} | {_allowed(setting)} | {setting.default_text()} |"
            for setting in cls.options()
        ]
        return "\n".join(["| setting | what | allowed | default |", "|---|---|---|---|", *rows])

    def to_json(self) -> dict[str, Any]:
        """The values by name, as JSON can hold them."""
        return {setting.name: _plain(getattr(self, setting.name)) for setting in self.options()}


def check_names(given: Mapping[str, Any], names: typing.Collection[str], *, name: str) -> None:
    """Refuse names that are not among ``names``, and propose the nearest.

    Raises:
        InputError: an unknown name.
    """
    for word in given:
        if word not in names:
            near = difflib.get_close_matches(str(word), names, n=1)
            proposal = f"did you mean {near[0]}? There are" if near else "there are"
            raise InputError(f"{name}: no such option: {word}; {proposal} {', '.join(names)}")


def _options(cls: type[Settings]) -> tuple[Option, ...]:
    hints = typing.get_type_hints(cls)
    return tuple(
        Option(
            name=field.name,
            default=field.default,
            presets={preset: values[field.name] for preset, values in cls.PRESETS.items() if field.name in values},
            **vars(field.metadata[_KEY]),
            **{**_read_type(hints[field.name]), **({"choices": tuple(cls.PRESETS)} if field.name == "preset" else {})},
        )
        for field in dataclasses.fields(cls)
    )


def _read_type(hint: Any) -> dict[str, Any]:
    """What an annotation says of an :class:`Option`."""
    found: dict[str, Any] = {"items": None, "keyed": False, "single": False, "choices": (), "optional": False}
    members = get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for member in members:
        if member is type(None):
            found["optional"] = True
            continue
        origin, within = get_origin(member), get_args(member)
        if origin is Mapping:
            found |= {"keyed": True, "type": within[1]}
            continue
        found["single"] = True
        if origin is tuple:
            found["items"] = 0 if within[-1] is Ellipsis else len(within)
            member = within[0]
        if get_origin(member) is Literal:
            found |= {"type": str, "choices": get_args(member)}
        else:
            found["type"] = object if member is Any else member
    return found


def _allowed(setting: Option) -> str:
    return ", ".join(f"`{word}`" for word in setting.choices) or setting.range_text()


def _whole(value: Any) -> int | None:
    read: Callable[[Any], int] = operator.index
    try:
        return None if isinstance(value, bool) else read(value)
    except TypeError:
        return None


def _number(value: Any) -> float | None:
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        return None
    return float(value)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Settings):
        return value.to_json()
    return str(value) if isinstance(value, Path) else value
