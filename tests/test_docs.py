"""The documentation says what the code does: its examples run, its command lines parse, its pages are there."""

import ast
import builtins
import contextlib
import functools
import importlib.util
import io
import pkgutil
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml

import genmix_transforms
from genmix_transforms import bank, data, evaluation, generators, transforms
from genmix_transforms.cli.main import app
from genmix_transforms.generators.dcgan.settings import DCGANSettings
from genmix_transforms.generators.stylegan.schedule import GrowingSchedule, doublings
from genmix_transforms.generators.stylegan.settings import StyleGANSettings

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

WITH_EXAMPLES = sorted([DOCS / "index.md", *DOCS.glob("how-to/*.md"), *DOCS.glob("concepts/*.md")])
CLI_PAGES = sorted(DOCS.glob("reference/cli*.md"))
WITH_COMMANDS = sorted([*WITH_EXAMPLES, DOCS / "get-started.md", *CLI_PAGES, ROOT / "CONTRIBUTING.md"])

FENCE = re.compile(
    r"^(?P<before>[^\n]*)\n(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    flags=re.MULTILINE | re.DOTALL,
)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
NEEDS_CUDA = "# needs CUDA\n"
OPTIONAL = {
    "accelerate",
    "datasets",
    "lightning",
    "timm",
    "transformers",
    "webdataset",
}  # what a recipe may import and this package does not require


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[tuple[str, str, bool]]:
    """Language and code of every fenced block of a page, and whether it is marked as not to be run."""
    text = "\n" + page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
        yield match["language"], code, bool(NOT_RUN.fullmatch(match["before"].strip()))


def lacking(code: str) -> str:
    """What a block needs and is not here; empty if it can run. Anything else that is missing is an error."""
    if code.startswith(NEEDS_CUDA) and not torch.cuda.is_available():
        return "CUDA"
    imported = set()
    for statement in ast.walk(ast.parse(code)):
        if isinstance(statement, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            imported.add(statement.module.partition(".")[0])
    return ", ".join(sorted(name for name in imported & OPTIONAL if importlib.util.find_spec(name) is None))


def navigation(entries: list[Any]) -> Iterator[str]:
    """The files that a ``nav`` names."""
    for entry in entries:
        target = next(iter(entry.values())) if isinstance(entry, dict) else entry
        if isinstance(target, list):
            yield from navigation(target)
        else:
            yield target


def commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group of the command line: its words, and itself."""
    command = getattr(command, "loaded", command)
    yield path, command
    for name in command.list_commands(None) if is_group(command) else ():
        yield from commands(command.get_command(None, name), *path, name)


def is_group(command: Any) -> bool:
    return hasattr(command, "list_commands")


def extension(name: str) -> Any:
    """A file of docs/extensions."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"extensions/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CLI = typer.main.get_command(app)
COMMANDS = dict(commands(CLI))


# The pages


@pytest.mark.parametrize("page", sorted(navigation(CONFIG["nav"])))
def test_a_page_in_the_navigation_exists(page):
    assert (DOCS / page).is_file()


def test_every_page_is_in_the_navigation():
    there = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert there - set(navigation(CONFIG["nav"])) == set()


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=page_id)
def test_a_page_loads_nothing_from_elsewhere(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"!\[[^\]]*\]\(\s*https?:|<(img|script|iframe|link)\b[^>]*https?:", text)


def test_the_site_loads_nothing_from_elsewhere():
    assert CONFIG["theme"]["font"] is False
    for name in ("extra_css", "extra_javascript"):
        for path in CONFIG.get(name, []):
            assert "http" not in (DOCS / path).read_text(encoding="utf-8")


# Results keep the commands that were run, and outputs what was printed.
OF_ONE_WIDTH = [page for page in sorted(DOCS.rglob("*.md")) if not page.is_relative_to(DOCS / "results")]


@pytest.mark.parametrize("page", OF_ONE_WIDTH, ids=page_id)
def test_code_fits_into_its_column(page):
    code = [code for language, code, _ in blocks(page) if language not in ("text", "output")]
    assert [line for block in code for line in block.splitlines() if len(line) > 80] == []


ROOMS = (bank, transforms, data, generators, evaluation)
PUBLIC = [
    *(f"genmix_transforms.{name}" for name in genmix_transforms.__all__ if not name.startswith("__")),
    *(
        f"{room.__name__}.{name}"
        for room in ROOMS
        for name in room.__all__
        if name not in ("ARMS", "GenMix", "SyntheticBank")
    ),
]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_on_one_page_of_the_reference(name):
    pages = [page.read_text(encoding="utf-8") for page in DOCS.glob("reference/*.md")]
    assert sum(re.findall(r"^::: (\S+)$", page, flags=re.MULTILINE).count(name) for page in pages) == 1


@pytest.mark.parametrize("name", PUBLIC)
def test_the_index_of_the_reference_leads_to_a_public_name(name):
    index = (DOCS / "reference/index.md").read_text(encoding="utf-8")
    assert re.search(rf"\[`{name.rpartition('.')[2]}`\]\([a-z-]+\.md(#[\w.-]+)?\)", index)


@pytest.mark.parametrize("page", sorted(DOCS.glob("reference/*.md")), ids=page_id)
def test_a_name_on_a_reference_page_exists(page):
    for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        pkgutil.resolve_name(name)  # raises where there is none


# The examples


@pytest.fixture
def torch_as_before() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def traced_only(monkeypatch) -> None:
    """``torch.compile`` traces but generates no code, which takes half a minute: test_recipes.py has that."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


@pytest.mark.filterwarnings("ignore:very few images")
@pytest.mark.parametrize(
    "page",
    [
        # Its example starts two interpreters. What it shows, test_mix.py sees to.
        pytest.param(page, marks=pytest.mark.slow) if page.name == "fast-path.md" else page
        for page in WITH_EXAMPLES
        if any(language == "python" for language, *_ in blocks(page))
    ],
    ids=page_id,
)
def test_examples_run_as_written(page, tmp_path, monkeypatch, torch_as_before, traced_only):
    monkeypatch.chdir(tmp_path)
    module = {"__name__": "__main__"}
    printed = ""
    for number, (language, code, skipped) in enumerate(blocks(page)):
        if language == "python" and not skipped:
            if missing := lacking(code):
                pytest.skip(f"{page_id(page)}: the blocks from number {number} on need {missing}, which is not here")
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(code, f"{page_id(page)}, block {number}", "exec"), module)
            printed = out.getvalue()
        elif language == "output":
            assert printed == code


def test_what_is_printed_is_compared_with_the_page(tmp_path):
    (tmp_path / "page.md").write_text(
        "```python\nprint(1)\n```\n\n```output\n1\n```\n\n<!-- not run: needs a GPU -->\n```python\n1 / 0\n```\n"
    )
    assert list(blocks(tmp_path / "page.md")) == [
        ("python", "print(1)\n", False),
        ("output", "1\n", False),
        ("python", "1 / 0\n", True),
    ]


def test_a_reason_is_given_for_a_block_that_is_not_run(tmp_path):
    (tmp_path / "page.md").write_text("<!-- not run: -->\n```python\n1 / 0\n```\n")
    assert list(blocks(tmp_path / "page.md")) == [("python", "1 / 0\n", False)]


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("import torch\n", ""),
        ("import timm\nfrom lightning.pytorch import Trainer\n", "lightning, timm"),
        ("def f():\n    from timm.data import create_loader\n", "timm"),
        ("import no_such_module\n", ""),  # which running it will say
        ("# needs CUDA\nimport timm\n", "CUDA"),
    ],
)
def test_what_a_block_lacks(code, missing, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert lacking(code) == missing


def test_every_library_that_a_page_may_lack_is_used_by_one():
    code = "\n".join(code for page in WITH_EXAMPLES for language, code, _ in blocks(page) if language == "python")
    assert [name for name in OPTIONAL if not re.search(rf"^(import|from) {name}\b", code, flags=re.MULTILINE)] == []


# The command line


def command_lines(page: Path) -> Iterator[str]:
    """The lines of a page's ``bash`` blocks that call ``genmix``, continuation lines joined."""
    for language, code, _ in blocks(page):
        if language == "bash":
            for line in re.sub(r"\\\n\s*", "", code).splitlines():
                line = re.sub(r" > \S+$", "", line.partition("  #")[0].strip())
                found = re.search(r"(?:^|\s)(?:genmix|-m genmix_transforms)(?= )", line)
                if found and "--help" not in line:
                    yield line[found.end() :]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=page_id)
def test_command_lines_parse(page):
    for line in command_lines(page):
        words, path, command = shlex.split(line), [], CLI
        while words and words[0] in ("-v", "-q", "--verbose", "--quiet"):
            words.pop(0)
        while is_group(command):
            path.append(words.pop(0) if words else "(nothing)")
            command = command.get_command(None, path[-1])
            assert command is not None, f"genmix {line}"
            command = getattr(command, "loaded", command)
        if "--config" in words:  # a file that is not here
            command.make_parser(typer.Context(command)).parse_args(args=words)
        else:
            command.make_context(" ".join(path), words)  # raises what a user would be told


def test_a_wrong_command_line_does_not_parse(tmp_path):
    (tmp_path / "page.md").write_text("```bash\ngenmix fill runs/mine \\\n  --nonsense 3\n```\n")
    with pytest.raises(Exception, match="nonsense"):
        test_command_lines_parse(tmp_path / "page.md")


def sections(page: Path) -> dict[str, str]:
    """The text below each second-level heading."""
    parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {heading.strip("`"): text for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


def written(parameter: Any) -> str:
    """How a table names a parameter."""
    if parameter.param_type_name != "option":
        return f"`{parameter.name.upper()}`"
    if parameter.hidden:
        return f"`--set {parameter.name}=VALUE`"
    return ", ".join(f"`{word}`" for word in [*parameter.opts, *parameter.secondary_opts])


@pytest.fixture(scope="module")
def options() -> Any:
    return extension("options")


@pytest.mark.parametrize("path", [path for path in COMMANDS if not is_group(COMMANDS[path])], ids=" ".join)
def test_the_reference_has_the_options_of_every_command(path, options):
    name = " ".join(("genmix", *path))
    (text,) = [sections(page)[name] for page in CLI_PAGES if name in sections(page)]
    assert f"<!-- options: {name} -->" in text
    table = options.on_page_markdown(text)
    assert "<!--" not in table
    for parameter in COMMANDS[path].params:
        if parameter.name in ("help", "config", "assignments", "dry_run", "device"):
            continue
        rows = re.findall(rf"^\| {re.escape(written(parameter))} \| (.+) \| (.*) \|$", table, flags=re.MULTILINE)
        if not rows:
            (shared,) = [
                options.shared_table(shared)
                for shared in options.SHARED.values()
                if re.search(rf"\]\({shared.page}\): .*{re.escape(written(parameter))}", table)
            ]
            rows = re.findall(rf"^\| {re.escape(written(parameter))} \| (.+) \| (.*) \|$", shared, flags=re.MULTILINE)
        ((help, default),) = rows
        assert help.strip(), f"{name} {written(parameter)}: no help"
        assert (default == "required") == parameter.required


def test_options_that_a_command_has_otherwise_stay_in_its_table(options):
    table = options.options_table(COMMANDS["train", "textual-inversion"])
    assert "| `--checkpoint-every` |" in table
    assert "| `--seed` |" not in table


@pytest.mark.parametrize("name", ["data", "training"])
def test_the_table_of_shared_options_stands_where_commands_say(name, options):
    shared = options.SHARED[name]
    page, _, anchor = shared.page.partition("#")
    heading = anchor.replace("-", " ").capitalize()
    assert f"<!-- shared options: {name} -->" in sections(DOCS / "reference" / page)[heading]
    assert len(options.shared_table(shared).splitlines()) == 2 + len(shared.names)


def test_a_table_of_settings_stands_where_the_page_asks_for_it():
    page = "<!-- settings: genmix_transforms.generators.dcgan.settings.DCGANSettings -->"
    assert extension("options").on_page_markdown(page) == DCGANSettings.table()
    with pytest.raises(ValueError, match="there is no command genmix train nothing"):
        extension("options").on_page_markdown("<!-- options: genmix train nothing -->")


def test_the_reference_lists_the_options_before_every_command():
    text = sections(DOCS / "reference/cli.md")["Options of every command"]
    own = {parameter.name: parameter for parameter in COMMANDS["train", "dcgan"].params}
    for parameter in [*CLI.params, *(own[name] for name in ("config", "assignments", "dry_run", "device"))]:
        for option in parameter.opts:
            assert f"`{option}" in text


def test_the_table_of_presets():
    text = (DOCS / "how-to/train-a-generator.md").read_text(encoding="utf-8")
    for name in DCGANSettings.PRESETS:
        preset = DCGANSettings.of({"preset": name}, name="test")
        assert f"| `{name}` | {preset.steps:,} | {preset.batch_size} | {preset.learning_rate:g} |" in text


def test_the_table_of_stylegans_presets():
    text = (DOCS / "how-to/train-a-generator.md").read_text(encoding="utf-8")
    for name in StyleGANSettings.PRESETS:
        preset = StyleGANSettings.of({"preset": name}, name="docs")
        row = f"| `{name}` | {preset.steps:,} | {preset.batch_size} | {preset.learning_rate:g} | weight "
        assert row + ("from" if preset.gamma is None else f"{preset.gamma:g}") in text


def test_the_table_of_stylegans_growth():
    text = (DOCS / "reference/stylegan.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \|$", text, flags=re.MULTILINE)
    assert [int(side) for side, *_ in rows] == [16, 32, 64, 128, 256, 512, 1024]
    for side, *rest in rows:
        growing = GrowingSchedule(start=1, full=doublings(int(side)), images=560_000)
        table = growing.table()
        assert rest == [str(len(table)), f"{growing.phase_images:,.0f}", f"{table[-1][0]:,}"]


# The docstrings


def docstrings() -> Any:
    """The extension that brings docstrings into the form the reference needs."""
    pytest.importorskip("griffe", reason="the reference is made by mkdocstrings, of the docs extra")
    return extension("docstrings")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (":class:`DCGAN`", "`DCGAN`"),
        (":meth:`~Generator.fit`", "`fit`"),
        (
            ":func:`genmix_transforms.data.open_dataset`",
            '<autoref identifier="genmix_transforms.data.open_dataset" optional><code>open_dataset</code></autoref>',
        ),
        ("Mixes.\n\nExample:\n    >>> 1\n    1", "Mixes.\n\nExamples:\n    >>> 1\n    1"),
        ("Source: Lee, Lee, Hong.", "**Source:** Lee, Lee, Hong."),
        ("An example: this one.", "An example: this one."),
    ],
)
def test_docstrings_become_markdown(written, read):
    assert docstrings().to_markdown(written) == read


def test_no_docstring_keeps_a_sphinx_directive():
    extension = docstrings()
    for source in sorted((ROOT / "genmix_transforms").rglob("*.py")):
        text = extension.to_markdown(source.read_text(encoding="utf-8"))
        assert not re.search(r":\w+:`", text), source
        assert not re.search(r"^\s*\.\. \w+::", text, flags=re.MULTILINE), source


def hidden(name: str) -> bool:
    """Whether the reference leaves out a member of this name."""
    (handlers,) = [plugin["mkdocstrings"] for plugin in CONFIG["plugins"] if "mkdocstrings" in plugin]
    filters = handlers["handlers"]["python"]["options"]["filters"]
    return name != "__init__" and any(re.search(pattern.removeprefix("!"), name) for pattern in filters)


def test_signatures_of_the_reference_name_nothing_private():
    griffe = pytest.importorskip("griffe", reason="the reference is made by mkdocstrings, of the docs extra")
    public = extension("public")
    package = griffe.load(
        "genmix_transforms", search_paths=[ROOT], extensions=griffe.load_extensions(public.PublicNames())
    )
    things = [package[name.partition(".")[2]] for name in public.documented()]
    things = [thing.final_target if thing.is_alias else thing for thing in things]
    of_modules = [member for thing in things if thing.is_module for member in thing.members.values()]
    known, private = {thing.path for thing in [*things, *of_modules]}, {}
    members = [member for thing in things if thing.is_class for member in thing.members.values()]
    shown = [member for member in members if not hidden(member.name) and (member.has_docstring or member.is_function)]
    for thing in [*things, *shown]:
        said = list(thing.bases) if thing.is_class else [getattr(thing, "annotation", None)]
        if thing.is_function:
            said += [part for one in thing.parameters for part in (one.annotation, one.default)]
        for part in said:
            for name in (
                [part] if isinstance(part, griffe.ExprName) else part or () if not isinstance(part, str) else ()
            ):
                # Of a member called "type", "type" is still Python's.
                builtin = isinstance(name, griffe.ExprName) and hasattr(builtins, name.name)
                ours = isinstance(name, griffe.ExprName) and name.canonical_path.startswith("genmix_transforms.")
                if ours and not builtin:
                    found = public.target(name, package)
                    if found is None or found.path not in known:
                        private[thing.path] = name.canonical_path
    assert private == {}
