"""The script for a first contact with a GPU: every part runs at toy size, and what goes wrong costs no other part."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("timing", "findings", "first_gpu_parts", "first_gpu_pages", "first_gpu")
PAGE = "# A page\n\n{}\n\nold\n\n{}\n\nThe end.\n"

SCRIPT = """import json, sys, time
from pathlib import Path
numbers = Path(sys.argv[sys.argv.index("--json") + 1])
def found(**values):
    numbers.write_text(json.dumps({"device": sys.argv[1], "machine": "here", "findings": [
        {"name": name, "value": value, "unit": ""} for name, value in values.items()]}))
"""
"""The beginning of a script that stands for a part; its first argument is the device that it says it ran on."""


@pytest.fixture
def scripts(monkeypatch):
    """The script's files as modules."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in SCRIPTS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in SCRIPTS})
    for name in SCRIPTS:
        sys.modules.pop(name, None)


@pytest.fixture
def contact(scripts, monkeypatch, tmp_path):
    """``contact(bodies)``: the command with parts that are these scripts, on a GPU that is not there."""
    monkeypatch.setattr(scripts.first_gpu, "HERE", tmp_path / "scripts")
    monkeypatch.setattr(
        scripts.first_gpu, "look", lambda: {"name": "GPU X", "gib": 8, "torch": "9", "cuda": "1", "driver": "5"}
    )
    for page in scripts.first_gpu_pages.PAGES.values():
        file = tmp_path / "docs" / page
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(PAGE.format(scripts.first_gpu_pages.BEGIN, scripts.first_gpu_pages.END))
    (tmp_path / "scripts").mkdir()
    aim = scripts.first_gpu_parts.Aim(what="speed", text="at least 3", least=3)

    def run(bodies, *arguments, device="cuda", **options):
        parts = []
        for name, body in bodies.items():
            (tmp_path / "scripts" / f"{name}.py").write_text(SCRIPT + body)
            parts.append(
                scripts.first_gpu_parts.Part(
                    name=name, title=f"The part {name}", script=f"{name}.py", limit=30, options=device, toy=device,
                    aims=(aim,),
                )
            )  # fmt: skip
            parts[-1] = replace(parts[-1], **options.get(name, {}))
        monkeypatch.setattr(scripts.first_gpu, "PARTS", tuple(parts))
        given = ["--out", str(tmp_path / "out"), "--docs", str(tmp_path / "docs"), *arguments]
        monkeypatch.setattr(sys, "argv", ["first_gpu.py", *given])
        status = scripts.first_gpu.main()
        return status, read(tmp_path / "out")

    return run


def read(out):
    return json.loads((out / "results.json").read_text())["parts"]


def test_a_rehearsal_runs_every_part(scripts, tmp_path):
    docs = {page: (ROOT / "docs" / page).read_text() for page in scripts.first_gpu_pages.PAGES.values()}
    found = subprocess.run(
        [sys.executable, ROOT / "benchmarks/first_gpu.py", "--rehearse", "--out", tmp_path / "out"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    parts = read(tmp_path / "out")
    assert list(parts) == [part.name for part in scripts.first_gpu_parts.PARTS]
    broken = {name: (part["reason"], part["output"]) for name, part in parts.items() if part["state"] != "done"}
    missing = {name for name, part in parts.items() if part["state"] == "not run"}
    assert {name: why for name, why in broken.items() if name not in missing} == {}, found.stdout
    assert found.returncode == 0, found.stderr
    # Every aim is about a number that its script writes, except what only a GPU can tell.
    unmeasured = {
        aim["aim"] for name, part in parts.items() if name not in missing for aim in part["aims"] if not aim["found"]
    }
    assert unmeasured == {"no call waits for the device"}
    for name in {"dcgan", "stylegan", "adm", "textual-inversion", "compiled"} - missing:
        assert all(aim["met"] for aim in parts[name]["aims"]), parts[name]["aims"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["gpu.md", "results.json", "tested-on.md"]
    for name in ("gpu.md", "tested-on.md"):
        assert (tmp_path / "out" / name).read_text().startswith("**A rehearsal on a CPU")
    assert docs == {page: (ROOT / "docs" / page).read_text() for page in docs}


def test_all_of_it_takes_nine_minutes_at_most(scripts, monkeypatch, capsys):
    parts = scripts.first_gpu_parts
    assert parts.longest() <= 540
    assert len({part.name for part in parts.PARTS}) == len(parts.PARTS)
    # Those of one group stand next to each other: otherwise they would not run at the same time.
    groups = [part.group or part.name for part in parts.PARTS]
    assert len(dict.fromkeys(groups)) == sum(a != b for a, b in zip(groups, [None, *groups], strict=False))
    monkeypatch.setattr(sys, "argv", ["first_gpu.py", "--list"])
    assert scripts.first_gpu.main() == 0
    assert capsys.readouterr().out.endswith(f"{parts.longest()} s at most, all together\n")


def test_the_table_takes_a_step_that_was_timed_before(scripts):
    arguments_of = partial(scripts.first_gpu_parts.arguments_of, toy=False, data="data.npz")
    (cost,) = (part for part in scripts.first_gpu_parts.PARTS if part.name == "cost")
    assert "--step-seconds" not in arguments_of(cost, earlier={})
    findings = [{"name": "step, batch 8, ours, latents cached: ms", "value": 1.0}]
    findings += [{"name": "step, batch 8, ours: ms", "value": 250.0}]
    earlier = {"textual-inversion-full": {"findings": findings}}
    assert arguments_of(cost, earlier=earlier)[-2:] == ["--step-seconds", "textual-inversion=0.250000"]


def test_a_rehearsal_finds_arguments_that_only_a_gpu_would(contact, monkeypatch, scripts):
    monkeypatch.setattr(scripts.first_gpu, "ready_to_rehearse", lambda: {"name": None})
    body = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("device")
parser.add_argument("--json")
parser.parse_args()
found(speed=4)
"""
    status, parts = contact({"a": body, "b": body}, "--rehearse", device="cpu", b={"options": "cuda --fast"})
    assert status == 1
    assert [part["state"] for part in parts.values()] == ["done", "failed"]
    assert "unrecognized arguments: --fast" in parts["b"]["reason"]


def test_a_part_that_outlasts_its_limit_is_killed_and_the_rest_is_done(contact, tmp_path):
    bodies = {"slow": "found(speed=4, first=1)\nprint('at it', flush=True)\ntime.sleep(600)", "next": "found(speed=2)"}
    status, parts = contact(bodies, slow={"limit": 1})
    assert status == 1
    assert (parts["slow"]["state"], parts["slow"]["reason"]) == ("killed", "killed at its limit of 1 s")
    # What it had written is kept.
    assert [finding["value"] for finding in parts["slow"]["findings"]] == [4, 1]
    assert parts["slow"]["output"] == "at it\n"
    assert parts["next"]["state"] == "done"
    assert [part["aims"][0]["met"] for part in parts.values()] == [True, False]
    page = (tmp_path / "docs/benchmarks/gpu.md").read_text()
    assert "| The part slow | at least 3 | 4 | yes |\n| The part next | at least 3 | 2 | no |" in page
    assert "GPU X (8 GiB), torch 9, CUDA 1, driver 5." in page
    assert page.startswith("# A page\n")
    assert page.endswith("\n\nThe end.\n")
    assert "old" not in page


def test_what_goes_wrong_says_why(contact, capsys):
    bodies = {
        "raises": "found(speed=1)\nraise ValueError('no such kernel')",
        "lacks": "found(speed=4)",
        "elsewhere": "found(speed=4)",
        "well": "found(speed=4)",
    }
    status, parts = contact(bodies, lacks={"needs": ("no_such_package", "torch")}, elsewhere={"options": "cpu"})
    assert status == 1
    assert {name: part["state"] for name, part in parts.items()} == {
        "raises": "failed", "lacks": "not run", "elsewhere": "failed", "well": "done"
    }  # fmt: skip
    assert parts["raises"]["reason"] == "exit status 1: ValueError: no such kernel"
    assert parts["lacks"]["reason"] == "not installed: no_such_package"
    assert parts["elsewhere"]["reason"] == "it says that it did not run on a GPU"
    said = capsys.readouterr().out
    assert "raises: failed: exit status 1: ValueError: no such kernel" in said
    # A package that is missing is no failure.
    assert contact({"lacks": ""}, lacks={"needs": ("no_such_package",)})[0] == 0


def test_left_does_what_has_no_result(contact, tmp_path):
    log = tmp_path / "log"
    note = f"open({str(log)!r}, 'a').write(sys.argv[0].rsplit('/')[-1][0])\n"
    stops = "if not Path('{0}').exists():\n    Path('{0}').touch()\n    import os, signal\n"
    stops = stops.format(tmp_path / "once") + "    os.kill(os.getppid(), signal.SIGTERM)\n    time.sleep(600)\n"
    bodies = {"a": note + "found(speed=4)", "b": note + "found(speed=5)\n" + stops, "c": note + "found(speed=6)"}
    status, parts = contact(bodies)
    assert status == 130
    assert {name: part["state"] for name, part in parts.items()} == {"a": "done", "b": "failed"}
    assert parts["b"]["reason"] == "interrupted, and all of it"
    assert parts["b"]["findings"][0]["value"] == 5
    status, parts = contact(bodies, "--left")
    assert status == 0
    assert [part["state"] for part in parts.values()] == ["done"] * 3
    assert log.read_text() == "abbc"
    contact(bodies, "--only", "c,a")
    assert log.read_text() == "abbcac"


def test_those_of_a_group_run_at_the_same_time(contact, tmp_path):
    meet = """
(Path(sys.argv[2]) / sys.argv[0].rsplit("/")[-1]).touch()
while len(list(Path(sys.argv[2]).iterdir())) < 2:
    time.sleep(0.01)
found(speed=4)
"""
    (tmp_path / "meet").mkdir()
    options = {"group": "together", "options": f"cuda {tmp_path / 'meet'}"}
    status, parts = contact({"one": meet, "other": meet}, one=options, other=options)
    assert status == 0
    assert [part["state"] for part in parts.values()] == ["done", "done"]


def test_a_rehearsal_stays_out_of_the_docs(scripts, contact, monkeypatch, tmp_path):
    monkeypatch.setattr(scripts.first_gpu, "ready_to_rehearse", lambda: {"name": None})
    before = (tmp_path / "docs/benchmarks/gpu.md").read_text()
    assert contact({"a": "found(speed=4)"}, "--rehearse", device="cpu")[0] == 0
    assert "rehearsal" in (tmp_path / "out/gpu.md").read_text()
    for arguments, says in (
        (("--pages",), "results of a rehearsal; the docs' tables are a GPU's"),
        ((), "holds the results of a rehearsal run; give another --out"),
    ):
        with pytest.raises(scripts.first_gpu.UsageError, match=says):
            contact({"a": "found(speed=4)"}, *arguments)
    results = json.loads((tmp_path / "out/results.json").read_text())
    for unlike in (results, {**results, "mode": "gpu"}):
        with pytest.raises(ValueError, match="rehearsal's numbers do not go into the documentation"):
            scripts.first_gpu_pages.write_docs(unlike, tmp_path / "docs")
    assert (tmp_path / "docs/benchmarks/gpu.md").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--only", "a,nothing"), r"--only: no part 'nothing'; there are a, b"),
        (("--only", ","), "--only: no part ','; there are a, b"),
        (("--pages",), "out: no results.json there"),
    ],
)
def test_what_cannot_be_done(scripts, contact, arguments, says, tmp_path):
    with pytest.raises(scripts.first_gpu.UsageError, match=says):
        contact({"a": "", "b": ""}, *arguments)
    assert not (tmp_path / "out").exists()


def test_without_a_gpu_or_a_folder(scripts, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["first_gpu.py", "--rehearse"])
    with pytest.raises(scripts.first_gpu.UsageError, match="give a folder of its own, --out FOLDER"):
        scripts.first_gpu.main()
    monkeypatch.setattr(scripts.first_gpu, "LOOK", "print('{\"name\": null}')")
    with pytest.raises(scripts.first_gpu.UsageError, match="no CUDA device here; --rehearse --out FOLDER runs"):
        scripts.first_gpu.look()


def test_numbers_are_in_the_file_as_soon_as_they_are_found(scripts, tmp_path):
    findings = scripts.findings.Findings(tmp_path / "found.json", device=torch.device("cpu"))
    for count, (name, value) in enumerate((("speed", 3.5), ("trained", "ok")), 1):
        findings.add(name, value)
        there = json.loads((tmp_path / "found.json").read_text())
        assert there["device"] == "cpu"
        assert there["findings"][count - 1 :] == [{"name": name, "value": value, "unit": ""}]
    with pytest.raises(ValueError, match="found twice: speed"):
        findings.add("speed", 4)


def test_the_docs_have_the_markers(scripts):
    for page in scripts.first_gpu_pages.PAGES.values():
        text = (ROOT / "docs" / page).read_text()
        assert text.count(scripts.first_gpu_pages.BEGIN) == text.count(scripts.first_gpu_pages.END) == 1
