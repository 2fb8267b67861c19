"""The class of every command: settings from a file (``--config``), rare settings by name (``--set``), dry runs.

A command stays a plain function for typer, registered with this class::

    @app.command(cls=Command)
    def fill(context: typer.Context, out: Out, seed: Seed = 0, dry_run: DryRun = False) -> None: ...

An option with ``hidden=True`` is rare: it leaves the help, and ``--set NAME=VALUE`` or a file sets it.
"""

import contextlib
import io
import json
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TextIO

import typer
from typer.core import TyperCommand

from genmix_transforms.errors import InputError, MissingPathError

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only check everything, and print estimates and the settings in the form that --config takes.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


class Command(TyperCommand):
    """A command that takes its options from a file too, and its rare options by name.

    Values from a file and from ``--set`` go the way of the command line's: same names, same types, same checks. The
    command line wins over ``--set``, and ``--set`` over the file.

    Raises:
        InputError: while it parses: the file is missing or malformed, a name is unknown (the nearest is proposed), or a
            value is not what the option takes.
    """

    def __init__(self, name: str | None, *, params: list[Any] | None = None, **settings: Any) -> None:
        own = {option.name: option for option in _own_options()}
        params = params or []
        self._settable = {parameter.name: parameter for parameter in params if parameter.name != "dry_run"}
        self._names = {_plain(word): name for name, parameter in self._settable.items() for word in parameter.opts}
        self._names |= {name: name for name in self._settable}
        if any(_is_rare(parameter) for parameter in params):
            settings["epilog"] = settings.get("epilog") or "Rare settings: --set help lists them."
        else:
            del own["assignments"]
        super().__init__(name, params=[*params, *own.values()], **settings)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line, with the file's settings and those of ``--set`` as its defaults."""
        if ctx.resilient_parsing:  # a shell asks for completions
            return super().parse_args(ctx, args)
        given = self.make_parser(ctx).parse_args(args=list(args))[0]
        if given.get("help"):
            return super().parse_args(ctx, args)
        assignments = given.get("assignments") or []
        if "help" in assignments:
            typer.echo(self._help_of_rare_options(ctx))
            ctx.exit()
        settings = self._read(Path(given["config"])) if isinstance(given.get("config"), str) else {}
        settings |= self._parse_assignments(assignments)
        ctx.default_map = {name: setting.words for name, setting in settings.items()}
        for name, setting in settings.items():
            # The parser counts no words as an answer here, and never asks for the default.
            if self._settable[name].nargs == -1 and not given.get(name):
                args = [*setting.words, *args]
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            name = str(getattr(error.param, "name", ""))
            source = ctx.get_parameter_source(name)
            if name in settings and getattr(source, "name", "") == "DEFAULT_MAP":
                raise InputError(f"{settings[name].source}: {name}: {error.message}") from error
            raise

    def invoke(self, ctx: Any) -> Any:
        """Call the command's function. In a dry run, all that it says becomes comments of the printed settings."""
        if not ctx.params.get("dry_run"):
            return super().invoke(ctx)
        with contextlib.redirect_stdout(_Comments(sys.stdout)):
            return super().invoke(ctx)

    def read_config(self, file: Path) -> dict[str, Any]:
        """What a file for ``--config`` holds: names, and words, numbers, lists or mappings."""
        content = _read_yaml_or_json(file)
        if content in (None, ""):
            return {}
        if not isinstance(content, dict):
            raise InputError(f"{file}: expected settings as name: value, got {_kind(content)}")
        return content

    def _read(self, file: Path) -> dict[str, "_Setting"]:
        settings: dict[str, _Setting] = {}
        for key, value in self.read_config(file).items():
            name = self._name(key, where=str(file))
            if name in settings:
                raise InputError(f"{file}: {name} stands there twice")
            if value not in (None, "null", "~", ""):  # what no value stands for is left out
                settings[name] = _Setting(_words(value, self._settable[name], where=f"{file}: {key}"), str(file))
        return settings

    def _parse_assignments(self, texts: list[str]) -> dict[str, "_Setting"]:
        settings: dict[str, _Setting] = {}
        for text in texts:
            key, equals, value = text.partition("=")
            if not equals or not key:
                raise InputError(f"--set: expected NAME=VALUE, got {text!r}; --set help lists the names")
            name = self._name(key, where="--set")
            parameter = self._settable[name]
            if not _is_rare(parameter):
                option = parameter.opts[0]
                written = f"{option} {value}" if option.startswith("-") else value
                raise InputError(f"--set: {name} is an option of its own: write {written}")
            words = _words(value, parameter, where=f"--set {key}")
            if getattr(parameter, "multiple", False) and name in settings:
                words = [*settings[name].words, *words]
            settings[name] = _Setting(words, "--set")
        return settings

    def _name(self, key: str, *, where: str) -> str:
        """The Python name that a key stands for."""
        plain = _plain(key)
        if plain in self._names:
            return str(self._names[plain])
        nearest = get_close_matches(plain, self._names, n=1)
        proposal = f"did you mean {nearest[0]}?" if nearest else f"genmix {self.name} --help lists the options"
        raise InputError(f"{where}: there is no setting {key!r}; {proposal}")

    def _help_of_rare_options(self, ctx: Any) -> str:
        rows = []
        for parameter in filter(_is_rare, self._settable.values()):
            parameter.hidden = False
            written, said = parameter.get_help_record(ctx)
            parameter.hidden = True
            rows.append((written.removeprefix("--"), said))
        formatter = ctx.make_formatter()
        if rows:
            with formatter.section("Rare settings, for --set NAME=VALUE and --config"):
                formatter.write_dl(rows)
        return str(formatter.getvalue().rstrip())


def print_config(context: typer.Context, *, resolved: Mapping[str, object] | None = None) -> None:
    """Print a command's settings as YAML that ``--config`` takes. What the function prints otherwise are comments.

    Args:
        context: the command's.
        resolved: what checks and presets have made of the options, by the options' names; the rest is as it was given.

    Example:
        >>> if dry_run:  # doctest: +SKIP
        ...     typer.echo("about 3 hours here, 2.1 GB of memory")
        ...     print_config(context, resolved=settings.to_json())
        ...     return
    """
    import yaml

    values: dict[str, Any] = {str(parameter.name): None for parameter in context.command.params}
    values |= {name: value for name, value in context.params.items() if value != ()} | {"dry_run": None}
    if unknown := [name for name in resolved or {} if name not in values]:
        raise ValueError(f"{context.command_path} has no option {unknown[0]!r}")
    # What came out as None was given as a word for it, or was left out.
    values |= {name: value for name, value in (resolved or {}).items() if value is not None}
    plain = {name: _as_plain(value) for name, value in values.items() if value is not None}
    # A line for each setting; lists and mappings stand within theirs.
    lines = [
        yaml.safe_dump({name: value}, allow_unicode=True, width=10_000, default_flow_style=None if nested else False)
        for name, value in plain.items()
        for nested in [isinstance(value, (list, dict))]
    ]
    out = sys.stdout.plain if isinstance(sys.stdout, _Comments) else sys.stdout
    typer.echo(f"# {context.command_path} --config FILE\n{''.join(lines)}", file=out, nl=False)


class _Setting(NamedTuple):
    """An option's value, in the command line's words, and who says it."""

    words: Any
    source: str


class _Comments(io.TextIOBase):
    """A stream that writes every line as a comment to ``plain``."""

    def __init__(self, plain: TextIO) -> None:
        self.plain = plain
        self._starts = True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream behind."""
        return self.plain.encoding

    def write(self, text: str) -> int:
        """Write ``text``, a ``#`` before each line."""
        if not isinstance(text, str):  # how typer finds out what a stream takes
            raise TypeError(f"a stream of text takes no {type(text).__name__}")
        for line in text.splitlines(keepends=True):
            self.plain.write((("# " if line.strip() else "#") if self._starts else "") + line)
            self._starts = line.endswith("\n")
        return len(text)

    def flush(self) -> None:
        """Flush the stream behind."""
        self.plain.flush()


def _own_options() -> list[Any]:
    """The options that the class itself takes, made by typer, whose own constructors differ from release to release."""

    def own(
        assignments: Annotated[
            list[str] | None,
            typer.Option(
                "--set",
                metavar="NAME=VALUE",
                expose_value=False,
                help="A rare setting; repeatable. --set help lists them.",
            ),
        ] = None,
        config: Annotated[
            str | None,
            typer.Option(
                metavar="FILE",
                expose_value=False,
                help="Settings from a YAML or JSON file, by option name. The command line takes precedence.",
            ),
        ] = None,
    ) -> None:
        raise AssertionError("only its parameters are used")

    app = typer.Typer(add_completion=False)
    app.command()(own)
    return list(typer.main.get_command(app).params)


def _is_rare(parameter: Any) -> bool:
    return bool(getattr(parameter, "hidden", False))


def _plain(word: str) -> str:
    """``--batch-size`` and ``batch-size`` as ``batch_size``."""
    return word.lstrip("-").replace("-", "_")


def _words(value: Any, parameter: Any, *, where: str) -> Any:
    """A value of a file in the words of the command line: a text, or a list where the option takes several."""
    several = getattr(parameter, "multiple", False) or parameter.nargs != 1
    if isinstance(value, dict):
        value = [f"{name}={_word(item, where=f'{where}: {name}')}" for name, item in value.items()]
    if isinstance(value, list):
        words = [_word(item, where=where) for item in value]
        if several:
            return words
        if parted := next((word for word in words if "," in word), None):
            raise InputError(f"{where}: {parted!r} has a comma, which parts the values of this option")
        return ",".join(words)
    word = _word(value, where=where)
    return [word] if several else word


def _word(value: Any, *, where: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    raise InputError(f"{where}: expected a word or a number, got {_kind(value)}")


def _kind(value: Any) -> str:
    return {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value), f"{value!r}")


def _as_plain(value: Any) -> Any:
    """A value as YAML has it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(name): _as_plain(item) for name, item in value.items()}
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Iterable):
        return [_as_plain(item) for item in value]
    return str(value)


def _read_yaml_or_json(file: Path) -> Any:
    """The content of a file, with every number as the word that stands there."""
    suffix = file.suffix.lower()
    if suffix not in (".yaml", ".yml", ".json", ""):
        raise InputError(f"--config: expected a .yaml, .yml or .json file, got {file}")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise MissingPathError(f"--config: {file}: no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--config: {file} is not a text file in UTF-8") from error
    except OSError as error:
        raise InputError(f"--config: {file} cannot be read: {error.strerror}") from error
    if suffix == ".json":
        try:
            return json.loads(
                text, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=lambda p: _once(p, file)
            )
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"--config: {file} is not valid JSON: {error}") from error
    import yaml

    class Words(yaml.BaseLoader):
        """Keeps every value the word it is: the ``no`` of ``mixed_precision: no`` is no false."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
            return _once(((key.value, self.construct_object(value, deep=True)) for key, value in node.value), file)

    try:
        # A loader of texts, lists and mappings alone: safer than the safe one.
        return yaml.load(text, Loader=Words)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"--config: {file}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error


def _once(pairs: Iterable[tuple[Any, Any]], file: Path) -> dict[str, Any]:
    """Pairs as a mapping; of two alike, one would be lost in silence."""
    mapping: dict[str, Any] = {}
    for name, value in pairs:
        if not isinstance(name, str):
            raise InputError(f"--config: {file}: a name must be a word, got {_kind(name)}")
        if name in mapping:
            raise InputError(f"--config: {file}: {name} stands there twice")
        mapping[name] = value
    return mapping
