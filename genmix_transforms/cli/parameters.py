"""Command-line options from settings: a command names the settings that it takes, and has an option for each field."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, cast

import typer

from genmix_transforms.errors import InputError
from genmix_transforms.settings import Option, Settings


def with_settings(
    panels: Mapping[str, str] | None = None, /, **settings: type[Settings]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every field of some settings.

    The command gets one mapping for each of them: the values that the user gave, by name. What was left out is not in
    it, so that ``Settings.of`` can tell it from what was given. Fields that are ``rare`` stay out of the help.

    Args:
        panels: headings in the help, by the name of the settings; a field's own heading goes before.
        **settings: the settings, each by the name of the command's parameter for it.

    Returns:
        A decorator.

    Example:
        >>> from dataclasses import dataclass
        >>> from genmix_transforms.settings import option
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Walk(Settings):
        ...     speed: float = option(1.5, help="In meters a second.", above=0)
        >>> @with_settings(walk=Walk)
        ... def command(out: str, walk: dict) -> None:
        ...     print(out, walk)
        >>> command(out="there", speed="2")
        there {'speed': 2.0}
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        fields = {setting.name: (where, setting) for where, kind in settings.items() for setting in kind.options()}

        def command(**given: Any) -> None:
            picked: dict[str, dict[str, Any]] = {where: {} for where in settings}
            for name, (where, setting) in fields.items():
                value = given.pop(name, None)
                if value is not None and value != []:
                    picked[where][name] = _read(setting, value)
            function(**given, **picked)

        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(function).parameters.values()
            if parameter.name not in settings
        ]
        made = [_parameter(setting, (panels or {}).get(where)) for where, setting in fields.values()]
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        return declare(command, [*own, *made])

    return decorate


def without(function: Callable[..., None], name: str) -> Callable[..., None]:
    """Take an option from a command; its parameter keeps its default."""
    kept = [parameter for parameter in inspect.signature(function).parameters.values() if parameter.name != name]
    return declare(function, kept)


def flag(name: str) -> str:
    """How the command line writes the name of an option."""
    return f"--{name.replace('_', '-')}"


def describe(setting: Option) -> str:
    """What the help says of a setting: what it is, the words it may be, its default."""
    text = setting.help
    if setting.choices and (setting.items is not None or setting.name == "preset"):
        text += f" {'Any' if setting.items == 0 else 'One'} of {', '.join(setting.choices)}."
    default = setting.default_text()
    return f"{text} (default: {default})" if default and setting.type is not bool else text


def declare(function: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """Give a function the signature that Typer reads."""
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function


def _parameter(setting: Option, panel: str | None) -> inspect.Parameter:
    """A Typer parameter that is None unless the user gives a value."""
    options: dict[str, Any] = {"hidden": setting.rare, "show_default": False}
    names = [flag(setting.name)]
    kind: Any = str
    if setting.items is None and not setting.keyed:
        if setting.type is bool:
            kind = bool
            names = [f"{flag(setting.name)}/--no-{setting.name.replace('_', '-')}"]
        elif setting.choices and setting.name != "preset":
            kind = _words(setting)
        elif setting.type in (int, float):
            kind = setting.type
    elif setting.items == 0 and setting.type is str and not setting.choices:
        kind = list[str]  # texts may hold commas: each is an option of its own
    said = typer.Option(*names, help=describe(setting), rich_help_panel=setting.panel or panel, **options)
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, said],
    )


def _words(setting: Option) -> type[StrEnum]:
    """The words that a setting may be, as Typer takes them."""
    make: Any = StrEnum
    return cast(type[StrEnum], make(setting.name, {word: word for word in setting.choices}))


def _read(setting: Option, value: Any) -> Any:
    try:
        if isinstance(value, list):
            return tuple(value)
        return setting.parse(str(value)) if isinstance(value, str) else value
    except InputError as error:
        raise InputError(f"{flag(setting.name)}: {str(error).removeprefix(f'{setting.name}: ')}") from error
