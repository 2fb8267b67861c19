"""Tables of options, made from the commands and the settings themselves when the site is built.

A line ``<!-- options: genmix train dcgan -->`` of a page becomes the table of a command's options, and a line
``<!-- settings: genmix_transforms.generators.dcgan.settings.DCGANSettings -->`` that of a settings class. Options that
many commands share are said once, by a line ``<!-- shared options: data -->``; a command's table then only names them.
"""

import pkgutil
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_OPTIONS = re.compile(r"^<!-- options: genmix ([\w -]+?) -->$", flags=re.MULTILINE)
_SHARED = re.compile(r"^<!-- shared options: (\w+) -->$", flags=re.MULTILINE)
_SETTINGS = re.compile(r"^<!-- settings: ([\w.]+) -->$", flags=re.MULTILINE)
_DEFAULT = re.compile(r"\s*\(default: (.+)\)$")
_OF_EVERY_COMMAND = {"help", "config", "assignments", "dry_run", "device"}


@dataclass(frozen=True)
class Shared:
    """Options that many commands have, with the same words and the same default.

    Args:
        page: where their table stands, with its anchor.
        title: of that section, in a sentence.
        command: one that has them all.
        names: the parameters.
    """

    page: str
    title: str
    command: str
    names: tuple[str, ...]


SHARED = {
    "data": Shared(
        page="cli.md#data-options",
        title="data options",
        command="train dcgan",
        names=(
            "split",
            "size",
            "fit",
            "channels",
            "window",
            "hu_of_zero",
            "group_key",
            "split_seed",
            "official",
        ),
    ),
    "training": Shared(
        page="cli-train.md#training-options",
        title="training options",
        command="train dcgan",
        names=(
            "init",
            "pretrain",
            "pretrain_steps",
            "unlabelled",
            "all_data",
            "seed",
            "restart",
            "mixed_precision",
            "checkpoint_every",
            "report_to",
            "fast_math",
        ),
    ),
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls it for every page."""
    markdown = _SHARED.sub(lambda match: shared_table(SHARED[match[1]]), markdown)
    markdown = _OPTIONS.sub(lambda match: options_table(find_command(match[1].split())), markdown)
    return _SETTINGS.sub(lambda match: pkgutil.resolve_name(match[1]).table(), markdown)


def find_command(words: list[str]) -> Any:
    """The command that is called so, without ``genmix``."""
    import typer

    from genmix_transforms.cli.main import app

    command: Any = typer.main.get_command(app)
    for word in words:
        found = command.get_command(None, word)
        if found is None:
            raise ValueError(f"there is no command genmix {' '.join(words)}")
        command = getattr(found, "loaded", found)
    return command


def options_table(command: Any) -> str:
    """The arguments and options of a command as a Markdown table, and the names of those that it shares.

    Those for ``--set`` stand last.
    """
    parameters = [parameter for parameter in command.params if parameter.name not in _OF_EVERY_COMMAND]
    also = []
    for shared in SHARED.values():
        said = {parameter.name: _row(parameter) for parameter in _shared_parameters(shared)}
        here = {parameter.name for parameter in parameters if said.get(parameter.name) == _row(parameter)}
        if len(here) > 1:
            names = ", ".join(_name(parameter) for parameter in parameters if parameter.name in here)
            also.append(f"Also the [{shared.title}]({shared.page}): {names}.")
            parameters = [parameter for parameter in parameters if parameter.name not in here]
    return "\n\n".join([_table(parameters), *also])


def shared_table(shared: Shared) -> str:
    """The options that many commands share as a Markdown table."""
    return _table(_shared_parameters(shared))


def _shared_parameters(shared: Shared) -> list[Any]:
    parameters = {parameter.name: parameter for parameter in find_command(shared.command.split()).params}
    return [parameters[name] for name in shared.names]


def _table(parameters: Iterable[Any]) -> str:
    parameters = sorted(
        parameters, key=lambda parameter: (_kind(parameter) == "option", bool(getattr(parameter, "hidden", False)))
    )
    return "\n".join(["| option | what | default |", "|---|---|---|", *map(_row, parameters)])


def _row(parameter: Any) -> str:
    help, default = parameter.help or "", parameter.default
    if match := _DEFAULT.search(help):
        help, default = help[: match.start()], match[1]
    default = getattr(default, "value", default)
    is_flag = _kind(parameter) == "option" and parameter.is_flag
    shown = "required" if parameter.required else "" if is_flag or default in (None, (), []) else f"`{default}`"
    return f"| {_name(parameter)} | {_cell(help)} | {shown.replace('|', ' ')} |"


def _name(parameter: Any) -> str:
    if _kind(parameter) != "option":
        return f"`{parameter.name.upper()}`"
    if getattr(parameter, "hidden", False):
        return f"`--set {parameter.name}=VALUE`"
    return ", ".join(f"`{word}`" for word in [*parameter.opts, *parameter.secondary_opts])


def _kind(parameter: Any) -> str:
    return str(parameter.param_type_name)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;").replace("{", "&#123;")
