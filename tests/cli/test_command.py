"""The class of every command: --config, --set and --dry-run on a toy command."""

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
import yaml

from genmix_transforms.cli.command import Command, DryRun, print_config
from genmix_transforms.errors import InputError, MissingPathError

Run = Callable[..., dict[str, Any]]


class Precision(StrEnum):
    NO = "no"
    BF16 = "bf16"


@pytest.fixture
def seen() -> list[dict[str, Any]]:
    """What the command's function was called with."""
    return []


@pytest.fixture
def command(seen: list[dict[str, Any]]) -> Any:
    app = typer.Typer(add_completion=False)

    @app.command(cls=Command)
    def toy(
        context: typer.Context,
        files: list[Path],
        out: Annotated[Path, typer.Option(help="Where.")],
        size: Annotated[int | None, typer.Option("--resolution", "--size", min=1)] = None,
        classes: str | None = None,
        sampler: Annotated[list[str] | None, typer.Option()] = None,
        official: Annotated[bool, typer.Option("--official/--no-official")] = True,
        precision: Precision = Precision.NO,
        half_life: Annotated[float, typer.Option(hidden=True, min=0, help="Of the average.")] = 3.0,
        tags: Annotated[list[str] | None, typer.Option(hidden=True)] = None,
        dry_run: DryRun = False,
    ) -> None:
        """Play."""
        seen.append({name: value for name, value in context.params.items() if name != "dry_run"})
        typer.echo("two files\n\nread")
        if dry_run:
            print_config(context, resolved={"half_life": 4.5, "classes": None})

    return typer.main.get_command(app)


@pytest.fixture
def run(command: Any, seen: list[dict[str, Any]]) -> Run:
    """``run("a", "--out", "o")``: what the function was given."""

    def call(*arguments: object) -> dict[str, Any]:
        seen.clear()
        command.main([*map(str, arguments)], prog_name="toy", standalone_mode=False)
        return seen[0]

    return call


def written(folder: Path, text: str, name: str = "run.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


WHOLE = """
files: [a.pth, b.pth]
out: runs/x
size: 16
classes: [no, yes]
sampler: {steps: 3, eta: 1.0}
official: no
precision: no
half-life: 1e-3
"""


def test_a_file_sets_options_arguments_and_rare_settings_as_the_command_line_would(run: Run, tmp_path: Path) -> None:
    as_words = run(
        *("a.pth", "b.pth", "--out", "runs/x", "--size", 16, "--classes", "no,yes", "--no-official"),
        *("--sampler", "steps=3", "--sampler", "eta=1.0", "--set", "half_life=1e-3"),
    )
    assert run("--config", written(tmp_path, WHOLE)) == as_words
    assert as_words["half_life"] == 0.001
    assert as_words["precision"] == "no"


def test_json_is_the_same(run: Run, tmp_path: Path) -> None:
    content = {
        "files": ["a.pth", "b.pth"],
        "out": "runs/x",
        "resolution": 16,
        "classes": ["no", "yes"],
        "sampler": {"steps": 3, "eta": 1.0},
        "official": False,
        "half_life": 1e-3,
        "tags": None,
    }
    file = written(tmp_path, json.dumps(content), "run.json")
    assert run("--config", file) == run("--config", written(tmp_path, WHOLE))


def test_the_command_line_wins_over_set_and_set_over_the_file(run: Run, tmp_path: Path) -> None:
    file = written(tmp_path, "files: [a]\nout: o\nsize: 8\nhalf_life: 1\nsampler: [a=1]\n")
    got = run("c", "--config", file, "--size", 9, "--set", "half-life=2", "--sampler", "b=2")
    assert list(got["files"]) == [Path("c")]
    assert list(got["sampler"]) == ["b=2"]
    assert (got["size"], got["half_life"]) == (9, 2.0)


def test_values_left_empty_are_the_defaults(run: Run, tmp_path: Path) -> None:
    got = run("--config", written(tmp_path, "files: a\nout: o\nsize:\nclasses: null\nhalf_life: ~\n"))
    assert (got["size"], got["classes"], got["half_life"]) == (None, None, 3.0)
    assert run("a", "--out", "o", "--config", written(tmp_path, "# nothing\n"))["size"] is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sise: 3", r"run.yaml: there is no setting 'sise'; did you mean size\?"),
        ("zzzzzz: 3", r"run.yaml: there is no setting 'zzzzzz'; genmix toy --help lists the options"),
        ("dry_run: true", "there is no setting 'dry_run'"),
        ("config: other.yaml", "there is no setting 'config'"),
        ("size: many", "run.yaml: size: .*valid integer"),
        ("size: 0", "run.yaml: size: .*greater than or equal to 1"),
        ("size: true", "run.yaml: size: .*valid integer"),
        ("size: [1, 2]", "run.yaml: size: .*valid integer"),
        ("size: {a: 1}", "run.yaml: size: .*valid integer"),
        ("precision: fp8", "run.yaml: precision: .*fp8"),
        ("official: perhaps", "run.yaml: official: .*boolean"),
        ("classes: ['a,b', c]", "run.yaml: classes: 'a,b' has a comma, which parts the values of this option"),
        ("classes: [[a], b]", "run.yaml: classes: expected a word or a number, got a list"),
        ("sampler: {a: {b: 1}}", "run.yaml: sampler: a: expected a word or a number, got a mapping"),
        ("size: 3\nsize: 4", "run.yaml: size stands there twice"),
        ("half_life: 3\nhalf-life: 4", "run.yaml: half_life stands there twice"),
        ("size: 3\nresolution: 4", "run.yaml: size stands there twice"),
        ("size: 3\nout: [", "run.yaml, line 2: not valid YAML"),
        ("- a\n- b", "expected settings as name: value, got a list"),
        ("only words", "expected settings as name: value, got 'only words'"),
        ("a: &x [*x]", "not valid YAML"),
        ("{[a]: 1}", "a name must be a word, got a list"),
    ],
)
def test_what_a_file_cannot_say(text: str, said: str, run: Run, seen: list[Any], tmp_path: Path) -> None:
    file = written(tmp_path, text)
    with pytest.raises(InputError, match=said):
        run("a", "--out", "o", "--config", file)
    assert seen == []


def test_a_tag_makes_nothing_but_words(run: Run, tmp_path: Path) -> None:
    text = f"out: !!python/object/apply:os.mkdir [{tmp_path}/made]"
    assert run("a", "--config", written(tmp_path, text))["out"] == tmp_path / "made"
    assert not (tmp_path / "made").exists()


def test_files_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"--config: .*nowhere.yaml: no such file"):
        run("--config", tmp_path / "nowhere.yaml")
    with pytest.raises(InputError, match=r"expected a .yaml, .yml or .json file, got .*run.toml"):
        run("--config", written(tmp_path, "size = 3", "run.toml"))
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        run("--config", tmp_path)
    (tmp_path / "bytes.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="bytes.yml is not a text file in UTF-8"):
        run("--config", tmp_path / "bytes.yml")
    with pytest.raises(InputError, match="run.json is not valid JSON: .*line 1"):
        run("--config", written(tmp_path, "{'a': 1}", "run.json"))
    with pytest.raises(InputError, match="run.json: size stands there twice"):
        run("--config", written(tmp_path, '{"size": 1, "size": 2}', "run.json"))


def test_what_is_required_is_missed_where_neither_says_it(run: Run, tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter) as error:
        run("a", "--config", written(tmp_path, "size: 3"))
    assert error.value.param.name == "out"


def test_a_wrong_option_is_still_the_command_lines(run: Run, tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="valid integer"):
        run("a", "--out", "o", "--size", "x", "--config", written(tmp_path, "size: 3"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("half_lif=3", r"--set: there is no setting 'half_lif'; did you mean half_life\?"),
        ("siz=3", r"--set: there is no setting 'siz'; did you mean size\?"),
        ("size=3", "--set: size is an option of its own: write --resolution 3"),
        ("half_life", "--set: expected NAME=VALUE, got 'half_life'; --set help lists the names"),
        ("=3", "--set: expected NAME=VALUE, got '=3'"),
        ("half_life=long", "--set: half_life: .*valid number"),
        ("half_life=-1", "--set: half_life: .*greater than or equal to 0"),
    ],
)
def test_what_set_does_not_take(text: str, said: str, run: Run, seen: list[Any]) -> None:
    with pytest.raises(InputError, match=said):
        run("a", "--out", "o", "--set", text)
    assert seen == []


def test_a_rare_list_is_set_again_for_more(run: Run) -> None:
    got = run("a", "--out", "o", "--set", "tags=x", "--set", "tags=y")
    assert list(got["tags"]) == ["x", "y"]


def test_rare_settings_are_listed_when_asked_for(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["--help"], prog_name="toy", standalone_mode=False)
    out = capsys.readouterr().out
    assert "half-life" not in out
    assert "--config" in out
    assert "--dry-run" in out
    assert "--set help lists them" in out.strip().splitlines()[-1]
    command.main(["--set", "help"], prog_name="toy", standalone_mode=False)
    out = capsys.readouterr().out
    assert "half-life" in out
    assert "float" in out
    assert "Of the average." in out
    assert "3.0" in out
    assert "official" not in out


def test_a_command_without_rare_settings_has_no_set(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(add_completion=False)

    @app.command(cls=Command)
    def plain(size: int = 3) -> None:
        """Play."""

    typer.main.get_command(app).main(["--help"], standalone_mode=False)
    out = capsys.readouterr().out
    assert "--set" not in out
    assert "Rare" not in out
    assert "--config" in out


def test_a_dry_run_prints_a_file_that_does_the_same(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = run("a", "b", "--out", "runs/ä", "--classes", "no,yes", "--sampler", "eta=1", "--dry-run")
    out = capsys.readouterr().out
    assert out.startswith("# two files\n#\n# read\n")
    content = yaml.safe_load(out)
    assert content["half_life"] == 4.5  # as it was resolved
    assert content["files"] == ["a", "b"]
    assert content["classes"] == "no,yes"
    assert "size" not in content
    assert "dry_run" not in content
    assert run("--config", written(tmp_path, out)) == given | {"half_life": 4.5}
    assert "tags" not in content
    capsys.readouterr()
    run("--config", written(tmp_path, out), "--dry-run")
    assert capsys.readouterr().out == out


def test_without_a_dry_run_nothing_is_a_comment(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("a", "--out", "o")
    assert capsys.readouterr().out == "two files\n\nread\n"


def test_only_options_can_be_resolved() -> None:
    app = typer.Typer(add_completion=False)

    @app.command(cls=Command)
    def toy(context: typer.Context, dry_run: DryRun = False) -> None:
        print_config(context, resolved={"sise": 3})

    with pytest.raises(ValueError, match="toy has no option 'sise'"):
        typer.main.get_command(app).main(["--dry-run"], prog_name="toy", standalone_mode=False)


def test_an_argument_that_the_shell_completes_reads_no_file(command: Any) -> None:
    with command.make_context("toy", ["--config", "nowhere.yaml"], resilient_parsing=True) as context:
        assert context.params["out"] is None
