"""Tables of options, made from the commands and the settings themselves when the site is built.

A line ``<!-- options: genmix train dcgan -->`` of a page becomes the table of a command's options, and a line
``<!-- settings: genmix_transforms.generators.dcgan.settings.DCGANSettings -->`` that of a settings class.
"""

import pkgutil
import re
from typing import Any

_OPTIONS = re.compile(r"^<!-- options: genmix ([\w -]+?) -->$", flags=re.MULTILINE)
_SETTINGS = re.compile(r"^<!-- settings: ([\w.]+) -->$", flags=re.MULTILINE)
_DEFAULT = re.compile(r"\s*\(default: (.+)\)$")
_OF_EVERY_COMMAND = {"help", "config", "assignments"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls it for every page."""
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
    """The arguments and options of a command as a Markdown table; those for ``--set`` stand last."""
    parameters = [parameter for parameter in command.params if parameter.name not in _OF_EVERY_COMMAND]
    parameters.sort(key=lambda parameter: (_kind(parameter) == "option", bool(getattr(parameter, "hidden", False))))
    rows = [_row(parameter) for parameter in parameters]
    return "\n".join(["| option | what | default |", "|---|---|---|", *rows])


def _row(parameter: Any) -> str:
    help, default = parameter.help or "", parameter.default
    if match := _DEFAULT.search(help):
        help, default = help[: match.start()], match[1]
    default = getattr(default, "value", default)
    is_flag = _kind(parameter) == "option" and parameter.is_flag
    shown = "required" if parameter.required else "" if is_flag or default in (None, (), []) else f"`{default}`"
    if _kind(parameter) != "option":
        name = f"`{parameter.name.upper()}`"
    elif getattr(parameter, "hidden", False):
        name = f"`--set {parameter.name}=VALUE`"
    else:
        name = ", ".join(f"`{word}`" for word in [*parameter.opts, *parameter.secondary_opts])
    return f"| {name} | {_cell(help)} | {shown.replace('|', ' ')} |"


def _kind(parameter: Any) -> str:
    return str(parameter.param_type_name)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;").replace("{", "&#123;")
