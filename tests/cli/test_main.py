"""The command as a whole: help, exit codes, quiet and verbose, and the path from data to table on real images."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from genmix_transforms import SyntheticBank, __version__
from genmix_transforms.cli.command import Command
from genmix_transforms.cli.late import LateCommand
from genmix_transforms.cli.main import COMMANDS as LATE

Genmix = Callable[..., Any]
COMMANDS = (
    [],
    ["train"],
    ["train", "dcgan"],
    ["train", "stylegan"],
    ["fill"],
    ["bank"],
    ["bank", "info"],
    ["bank", "sheet"],
    ["bank", "verify"],
    ["evaluate"],
    ["convert"],
    ["convert", "dcgan"],
    ["styles"],
    ["styles", "mix"],
    ["styles", "interpolate"],
    ["demo"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_helps(command: list[str], genmix: Genmix) -> None:
    outcome = genmix(*command, "--help")
    assert outcome.code == 0
    assert "Usage: genmix" in outcome.out
    assert len(outcome.out.splitlines()) > 6


def test_the_version(genmix: Genmix) -> None:
    assert genmix("--version").out == f"genmix {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["train", "stylegone"],
        ["train", "dcgan", "--data", "x.npz"],
        ["fill", "runs/a"],
        ["evaluate", "--data", "phantom", "--out", "o", "--seeds", "many"],
        ["train", "dcgan", "--data", "phantom", "--out", "o", "--sizze", "64"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_2(arguments: list[str], genmix: Genmix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = genmix(*arguments)
    assert outcome.code == 2
    assert outcome.err
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_2_and_one_sentence(genmix: Genmix, tmp_path: Path) -> None:
    outcome = genmix("bank", "info", tmp_path / "nowhere")
    assert outcome.code == 2
    assert outcome.err == f"genmix: {tmp_path / 'nowhere'}: no such bank\n"


def test_a_failure_is_1(genmix: Genmix, tmp_path: Path) -> None:
    (tmp_path / "bank.index.json").write_text("{}")
    outcome = genmix("bank", "info", tmp_path)
    assert outcome.code == 1
    assert "not a bank's manifest" in outcome.err
    assert "Traceback" not in outcome.err
    assert "Traceback" in genmix("-v", "bank", "info", tmp_path).err


def test_a_bug_of_ours_says_what_it_is(genmix: Genmix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Path) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("genmix_transforms.bank.manifest.read_manifest", broken)
    outcome = genmix("bank", "info", tmp_path)
    assert outcome.code == 1
    assert outcome.err == "genmix: KeyError: 'oops' (-v shows where)\n"


def test_quiet_is_quiet(genmix: Genmix, discs: Path, tiny_options: list[str], tmp_path: Path) -> None:
    quiet = genmix("-q", "train", "dcgan", "--data", discs, "--size", 16, "--out", tmp_path / "b", *tiny_options)
    assert quiet.code == 0
    assert "4/4" not in quiet.err
    assert quiet.err.startswith("warning: very few images")  # what one must know is said all the same
    loud = genmix("train", "dcgan", "--data", discs, "--size", 16, "--out", tmp_path / "a", *tiny_options)
    assert loud.code == 0
    assert "4/4" in loud.err  # the bar


def test_switches_work_after_the_command_too(
    genmix: Genmix, discs: Path, tiny_options: list[str], tmp_path: Path
) -> None:
    outcome = genmix("train", "dcgan", "--data", discs, "--size", 16, "--out", tmp_path / "a", *tiny_options, "-q")
    assert outcome.code == 0
    assert "4/4" not in outcome.err
    assert "Traceback" in genmix("bank", "info", tmp_path / "nowhere", "-v").err


def test_ctrl_c_says_what_to_do(genmix: Genmix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("genmix_transforms.bank.manifest.read_manifest", stopped)
    outcome = genmix("bank", "info", tmp_path)
    assert outcome.code == 130
    assert outcome.err == "genmix: stopped; run the same command again to go on\n"


# Each command by itself


@pytest.mark.parametrize("name", LATE)
def test_a_command_is_listed_by_its_own_words(name: str) -> None:
    late = LateCommand(name, *LATE[name])
    assert late.loaded.help.replace("\n", " ").startswith(LATE[name][1].rstrip(".").partition(":")[0])
    assert late.loaded.name == name


def test_every_command_takes_a_file_of_settings() -> None:
    for name, (place, said) in LATE.items():
        found = LateCommand(name, place, said).loaded
        below = (
            [found.get_command(None, word) for word in found.list_commands(None)] if hasattr(found, "commands") else []
        )
        for command in below or [found]:
            assert isinstance(getattr(command, "loaded", command), Command), (name, command.name)


def test_a_nearly_right_command_is_proposed(genmix: Genmix) -> None:
    assert "Did you mean 'bank'" in genmix("bnak", "info").err


def complete(line: str) -> str:
    """What a bash completes a line to, in a fresh process."""
    asked = {"_GENMIX_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    return in_python(asked=asked).stdout


def in_python(program: str = "from genmix_transforms.cli.main import main; main()", asked: Any = None) -> Any:
    environment = {**os.environ, **(asked or {})}
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False, timeout=120
    )


def test_a_shell_completes_commands_and_options_without_torch() -> None:
    assert complete("genmix e").split() == ["evaluate"]
    assert {"info", "verify", "merge"} <= set(complete("genmix bank ").split())
    assert complete("genmix bank sheet --col").split() == ["--columns"]


# Stopping


STOPPED = "genmix: stopped; run the same command again to go on\n"

WAITING = """
import os, signal, sys, time, types
{before}
def wait(_):
    print("waiting", flush=True)
    time.sleep(60)
# In the place of the module that the command needs: that one imports torch, which takes seconds.
manifest = sys.modules["genmix_transforms.bank.manifest"] = types.ModuleType("manifest")
manifest.read_manifest = wait
from genmix_transforms.cli.main import main
sys.argv = ["genmix", "bank", "info", "somewhere"]
main()
"""


@pytest.mark.parametrize(
    ("number", "before", "code"),
    [
        (signal.SIGTERM, "", 143),
        (signal.SIGINT, "", 130),
        # As a script's & has it.
        (signal.SIGINT, "signal.signal(signal.SIGINT, signal.SIG_IGN)", 130),
    ],
    ids=["SIGTERM", "SIGINT", "SIGINT, ignored before"],
)
def test_a_signal_stops_any_command(number: int, before: str, code: int) -> None:
    program = WAITING.format(before=before)
    with subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "waiting\n"
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
    assert (running.returncode, said) == (code, STOPPED)


def test_signals_are_heard_for_one_command_only(genmix: Genmix) -> None:
    before = signal.getsignal(signal.SIGTERM)
    genmix("--version")
    assert signal.getsignal(signal.SIGTERM) is before


# Files


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/bank/x"), "genmix: /bank/x: Permission denied\n"),
        (OSError(errno.ENOSPC, "No space left on device"), "genmix: [Errno 28] No space left on device\n"),
        (OSError("the disk of /bank is full"), "genmix: the disk of /bank is full\n"),
    ],
)
def test_an_error_of_the_system_names_the_file(
    error: OSError, said: str, genmix: Genmix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Path) -> None:
        raise error

    monkeypatch.setattr("genmix_transforms.bank.manifest.read_manifest", broken)
    outcome = genmix("bank", "info", tmp_path)
    assert (outcome.code, outcome.err) == (1, said)


def test_python_m_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "genmix_transforms", "--version"], capture_output=True, text=True)
    assert done.stdout == f"genmix {__version__}\n"


@pytest.mark.parametrize(
    ("file", "size", "classes", "said"),
    [
        ("busi_128.npz", 64, ("normal", "benign", "malignant"), "dup_group"),
        ("pneumoniamnist.npz", 32, ("0", "1"), "28x28"),
    ],
)
def test_from_real_images_to_the_table(
    file: str, size: int, classes: tuple[str, ...], said: str, real_data: Path, genmix: Genmix, tmp_path: Path
) -> None:
    data = ["--data", real_data / file, "--size", size]
    run, bank, results = (tmp_path / name for name in ("run", "bank", "results"))
    small = "--steps 3 --batch-size 8 --base-width 4 --device cpu".split()
    trained = genmix("-q", "train", "dcgan", *data, "--out", run, *small)
    assert trained.code == 0, trained.err
    assert said in trained.out  # the groups found, or the resize done
    filled = genmix("-q", "fill", run, "--match", real_data / file, "--size", size, "--out", bank, "--device", "cpu")
    assert filled.code == 0, filled.err
    loaded = SyntheticBank.load(bank)
    assert loaded.classes == classes
    assert loaded.class_counts == loaded.provenance["training_set"]["class_counts"]
    assert genmix("bank", "sheet", bank, "--out", tmp_path / "sheet.png", "--columns", 3).code == 0
    assert Image.open(tmp_path / "sheet.png").size[0] > 3 * size
    arms = ["--arms", "baseline,genmix", "--seeds", 1, "--steps", 2, "--device", "cpu"]
    evaluated = genmix("-q", "evaluate", *data, "--bank", bank, "--out", results, *arms)
    assert evaluated.code == 0, evaluated.err
    assert "warning" not in evaluated.err  # the generator saw the very training part that the classifiers see
    for arm in ("baseline", "genmix"):
        assert f"\n{arm} " in evaluated.out
    assert {"results.csv", "results.json", "results.md"} <= {path.name for path in results.iterdir()}
