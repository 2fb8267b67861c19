"""Commands that are known by name and help, and are imported when they are used."""

from functools import cached_property
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand

from genmix_transforms.cli.command import Command


class LateCommand(TyperCommand):
    """A command of which name and help are known; its module is imported when it is used.

    Args:
        name: what it is called by.
        place: ``module:function`` or ``module:app`` in this package.
        help: a sentence for the list of commands.
    """

    def __init__(self, name: str, place: str, help: str) -> None:
        super().__init__(name, help=help, short_help=help)
        self._place = place

    @cached_property
    def loaded(self) -> Any:
        """The command or group itself."""
        module, _, attribute = self._place.partition(":")
        return as_command(getattr(import_module(f"genmix_transforms.cli.{module}"), attribute), name=str(self.name))

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse a command line: what follows is the loaded command's."""
        return self.loaded.make_context(info_name, args, parent=parent, **extra)


def as_command(found: Any, *, name: str) -> Any:
    """A function with Typer's annotations, or a Typer with commands of its own, as a command or group of this name."""
    around = typer.Typer(add_completion=False)
    around.callback()(lambda: None)
    if isinstance(found, typer.Typer):
        around.add_typer(found, name=name)
    else:
        around.command(name, cls=Command)(found)
    group: Any = typer.main.get_command(around)
    return group.commands[name]
