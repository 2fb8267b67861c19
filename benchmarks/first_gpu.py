"""First contact with a GPU: whether everything runs there, how fast, and whether it is as fast as it should be.

    python benchmarks/first_gpu.py                       # on one GPU, within nine minutes
    python benchmarks/first_gpu.py --left                # what has no result yet, after a stop or a repair
    python benchmarks/first_gpu.py --only mixing,adm     # these parts
    python benchmarks/first_gpu.py --list                # the parts, their limits and aims
    python benchmarks/first_gpu.py --pages               # write the docs' tables again from the results
    python benchmarks/first_gpu.py --rehearse --out DIR  # everything at toy size on a CPU, in a minute or two

From a checkout, without internet; nothing needs to be installed but the package's dependencies. Each part is one of the
scripts here, in a process of its own that is killed at its limit; ``first_gpu_parts.py`` has them. After each part
``results.json`` in ``--out`` has its numbers, and the pages beside it (and, of a GPU's results, those in docs/) its
tables. A part whose packages are missing is left out, with the reason; one that fails says why, the others go on, and
the exit status is 1.
"""

import argparse
import contextlib
import datetime
import importlib
import importlib.util
import json
import multiprocessing
import os
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from first_gpu_pages import DOCS, pages, write_docs
from first_gpu_parts import PARTS, Part, arguments_of, longest

HERE = Path(__file__).resolve().parent
RESULTS, OUTPUT_KEPT = "results.json", 6_000
GPU, REHEARSAL = "gpu", "rehearsal"
DONE, FAILED, KILLED, NOT_RUN, RUNNING = "done", "failed", "killed", "not run", "running"
ROOMY = 32 * 2**30
"""Bytes free in /dev/shm from which on the parts' temporary files, an ADM's checkpoints among them, go there."""

PAPER_COUNTS = {"train": (433, 70, 178), "val": (115, 30, 157), "test": (128, 30, 149)}
TOY_COUNTS = {"train": (8, 8, 8), "val": (4, 4, 4), "test": (4, 4, 4)}
"""Images of each class; the paper's, and a few."""

LOOK = """import json, torch
found = torch.cuda.is_available()
device = torch.cuda.get_device_properties(0) if found else None
print(json.dumps({"name": device.name if found else None, "gib": device.total_memory / 2**30 if found else 0,
                  "torch": torch.__version__, "cuda": torch.version.cuda}))"""

PRELOADED = (
    "torch", "torch._dynamo", "torchvision", "diffusers", "transformers", "torchmetrics", "accelerate", "pytest",
    "hypothesis", "genmix_transforms.evaluation.training", "genmix_transforms.generators.adm",
    "genmix_transforms.generators.dcgan.generator", "genmix_transforms.generators.stylegan.generator",
    "genmix_transforms.generators.textual_inversion", "mixing", "stylegan", "adm_training", "textual_inversion",
    "evaluate_speed", "table1_cost", "first_steps",
)  # fmt: skip
"""What a rehearsal imports once, for all parts: they are forked from it. On a GPU each part is a fresh interpreter."""


class UsageError(Exception):
    """What was asked for cannot be done."""


@dataclass
class Run:
    """A part at work."""

    part: Part
    process: Any  # a Popen, or a Process of multiprocessing
    started: float
    numbers: Path
    said: Path

    def status(self) -> int | None:
        """Exit status; None: still at work."""
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll()
        return self.process.exitcode  # type: ignore[no-any-return]

    def kill(self) -> None:
        """End it, and what it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        (self.process.wait if isinstance(self.process, subprocess.Popen) else self.process.join)()


class Contact:
    """All parts that were asked for, on this machine, into one folder.

    Args:
        out: the folder.
        toy: a rehearsal.
        machine: the GPU and the versions.
        data: a file of patches.
        docs: where the pages are kept that a GPU's results go into.
    """

    def __init__(self, out: Path, *, toy: bool, machine: dict[str, Any], data: Path, docs: Path) -> None:
        self.out = out
        self.data = data
        self.toy = toy
        self.docs = docs
        out.mkdir(parents=True, exist_ok=True)
        self.results = read_results(out) or {"mode": REHEARSAL if toy else GPU, "machine": machine, "parts": {}}
        if self.results["mode"] != (REHEARSAL if toy else GPU):
            raise UsageError(f"{out}: holds the results of a {self.results['mode']} run; give another --out")
        self.results["machine"] = machine
        for result in self.results["parts"].values():
            if result["state"] == RUNNING:  # and was interrupted
                result |= {"state": FAILED, "reason": "interrupted, and all of it"}

    def left(self, parts: Sequence[Part]) -> list[Part]:
        """The parts that have no result."""
        there = self.results["parts"]
        return [part for part in parts if there.get(part.name, {}).get("state") != DONE]

    def run(self, parts: Sequence[Part]) -> None:
        """Run them, in their order; those of one group at the same time, in a rehearsal as many as there are cores."""
        waiting, running = list(parts), []
        try:
            while waiting or running:
                while waiting and self.may_start(waiting[0], [run.part for run in running]):
                    part = waiting.pop(0)
                    if missing := [name for name in part.needs if importlib.util.find_spec(name) is None]:
                        self.keep(part, NOT_RUN, reason=f"not installed: {', '.join(missing)}")
                    else:
                        running.append(self.start(part))
                time.sleep(0.05)
                for run in list(running):
                    overdue = time.monotonic() - run.started > self.limit(run.part)
                    if run.status() is not None or overdue:
                        running.remove(run)
                        self.finish(run)
        finally:
            for run in running:
                self.finish(run)

    def may_start(self, part: Part, running: Sequence[Part]) -> bool:
        """Whether a part may run beside others: what takes how long is asked of a machine that does nothing else."""
        if self.toy:
            return len(running) < (os.cpu_count() or 1)
        return not running or (part.group is not None and all(other.group == part.group for other in running))

    def limit(self, part: Part) -> int:
        """Seconds after which it is killed; a rehearsal may be on a machine that is busy with much else."""
        return part.limit * (5 if self.toy else 1)

    def start(self, part: Part) -> Run:
        """Start a part."""
        numbers, said = (self.out / f"running-{part.name}.{end}" for end in ("json", "txt"))
        for file in (numbers, said):
            file.unlink(missing_ok=True)
        arguments = arguments_of(part, toy=self.toy, data=str(self.data), earlier=self.results["parts"])
        arguments += ["--json", str(numbers.resolve())]
        print(f"{part.name}: {part.script} {shlex.join(arguments[:-2])}", flush=True)
        self.keep(part, RUNNING)
        process: Any
        if self.toy:
            for_gpu = [*arguments_of(part, toy=False, data=str(self.data), earlier={}), *arguments[-2:]]
            process = multiprocessing.get_context("fork").Process(
                target=forked, args=(part.script, arguments, said), kwargs={"for_gpu": for_gpu}
            )
            process.start()
        else:
            with open(said, "wb") as file:
                process = subprocess.Popen(
                    [sys.executable, "-u", str(HERE / part.script), *arguments],
                    stdout=file, stderr=file, cwd=HERE.parent, start_new_session=True,
                )  # fmt: skip
        return Run(part, process, time.monotonic(), numbers, said)

    def finish(self, run: Run) -> None:
        """Keep what a part has written, killing it first if it is still at work."""
        seconds, status = time.monotonic() - run.started, run.status()
        if status is None:
            run.kill()
        said = run.said.read_text(encoding="utf-8", errors="replace") if run.said.exists() else ""
        found: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(run.numbers.read_text(encoding="utf-8"))
        state, reason = DONE, ""
        if status is None and seconds > self.limit(run.part):
            state, reason = KILLED, f"killed at its limit of {self.limit(run.part)} s"
        elif status is None:
            state, reason = FAILED, "interrupted, and all of it"
        elif status:
            lines = [line for line in said.splitlines() if line.strip()]
            state, reason = FAILED, f"exit status {status}: {lines[-1] if lines else 'it said nothing'}"
        elif not self.toy and found.get("device") != "cuda":
            state, reason = FAILED, "it says that it did not run on a GPU"
        self.keep(run.part, state, reason=reason, seconds=seconds, found=found, said=said)
        for file in (run.numbers, run.said):
            file.unlink(missing_ok=True)

    def keep(
        self, part: Part, state: str, *, reason: str = "", seconds: float = 0.0, found: Any = None, said: str = ""
    ) -> None:
        """Write the results, with this part's, and the pages."""
        findings = (found or {}).get("findings", [])
        judged = [aim.judge(findings) for aim in part.aims]
        self.results["parts"][part.name] = {
            "title": part.title, "state": state, "reason": reason, "seconds": round(seconds, 1), "limit": part.limit,
            "date": datetime.date.today().isoformat(), "findings": findings, "aims": judged,
            "output": said[-OUTPUT_KEPT:],
        }  # fmt: skip
        order = {each.name: number for number, each in enumerate(PARTS)}
        self.results["parts"] = dict(sorted(self.results["parts"].items(), key=lambda item: order.get(item[0], 99)))
        write_results(self.out, self.results)
        if state == RUNNING:
            return
        for name, text in pages(self.results).items():
            (self.out / name).write_text(text, encoding="utf-8")
        if not self.toy:
            write_docs(self.results, self.docs)
        print(f"{part.name}: {state}, {seconds:.0f} s{': ' if reason else ''}{reason}", flush=True)
        for aim in judged:
            met = {True: "met", False: "missed", None: "not measured"}[aim["met"]]
            values = "; ".join(
                f"{value:.4g}" if isinstance(value, float) else str(value) for value in aim["found"].values()
            )
            print(f"    {aim['aim']}: {met}{f' ({values})' if values else ''}", flush=True)


def forked(script: str, arguments: Sequence[str], said: Path, *, for_gpu: Sequence[str]) -> None:
    """A script in this process, as if it had been started: what a rehearsal's part does.

    Args:
        script: its file.
        arguments: that it is run with.
        said: where its output goes.
        for_gpu: other arguments, which it must understand.
    """
    os.setsid()
    file = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = (open(stream, "w", buffering=1, closefd=False) for stream in (1, 2))  # noqa: SIM115
    check_understood(script, for_gpu)
    sys.argv = [script, *arguments]
    runpy.run_path(str(HERE / script), run_name="__main__")


def check_understood(script: str, arguments: Sequence[str]) -> None:
    """Let a script read its arguments, and no more; one that it does not know ends the process, as ever."""

    class ReadAll(BaseException):
        """They were read."""

    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser) -> None:
        parse(self)
        raise ReadAll

    sys.argv = [script, *arguments]
    argparse.ArgumentParser.parse_args = stop  # type: ignore[assignment, method-assign]
    try:
        with contextlib.suppress(ReadAll):
            runpy.run_path(str(HERE / script), run_name="__main__")
    finally:
        argparse.ArgumentParser.parse_args = parse  # type: ignore[method-assign]


def read_results(out: Path) -> dict[str, Any] | None:
    """What is there already."""
    file = out / RESULTS
    if not file.exists():
        return None
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise UsageError(f"{file}: not results of this script ({error}); give another --out") from error


def write_results(out: Path, results: dict[str, Any]) -> None:
    """All of it or nothing."""
    temporary = out / f".{RESULTS}.tmp"
    temporary.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, out / RESULTS)


def chosen(text: str | None) -> list[Part]:
    """The parts of ``--only``, in their own order."""
    if text is None:
        return list(PARTS)
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [part.name for part in PARTS]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UsageError(f"--only: no part {unknown[0] if unknown else text!r}; there are {', '.join(known)}")
    return [part for part in PARTS if part.name in names]


def look() -> dict[str, Any]:
    """The GPU, its driver and the versions, asked for by a process of its own: this one leaves the GPU alone."""
    said = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=False)
    if said.returncode:
        raise UsageError(f"torch cannot be used: {(said.stderr.strip().splitlines() or ['it says nothing'])[-1]}")
    found = dict(json.loads(said.stdout.splitlines()[-1]))
    if found["name"] is None:
        raise UsageError("no CUDA device here; --rehearse --out FOLDER runs every part at toy size on the CPU")
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError):
        found["driver"] = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.partition("\n")[0]
    return found


def ready_to_rehearse() -> dict[str, Any]:
    """Import what the parts need, once."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    sys.modules["numba"] = None  # type: ignore[assignment]  # as if not installed: compiling takes longer than all else
    for name in PRELOADED:
        with contextlib.suppress(ImportError):  # the part that needs it will say so
            importlib.import_module(name)
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    return {"name": None, "torch": torch.__version__, "cpus": os.cpu_count()}


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """The checkout first on the path of the parts, and their large files in memory where there is much of it.

    SIGTERM is as Ctrl-C meanwhile: what runs is ended, and what it had written is kept.
    """
    before, on_term = dict(os.environ), signal.signal(signal.SIGTERM, signal.default_int_handler)
    path = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
    memory = Path("/dev/shm")
    if "TMPDIR" not in os.environ and memory.is_dir() and shutil.disk_usage(memory).free > ROOMY:
        os.environ["TMPDIR"] = str(memory)
    sys.path.insert(0, str(HERE.parent))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, on_term)
        sys.path.remove(str(HERE.parent))
        os.environ.clear()
        os.environ.update(before)


def write_patches(file: Path, counts: dict[str, tuple[int, ...]], *, side: int) -> None:
    """Patches of noise around a grey value of their class, in MedMNIST's layout: what takes how long asks no more."""
    random, arrays = np.random.default_rng(0), {}
    for part, numbers in counts.items():
        labels = np.repeat(np.arange(len(numbers)), numbers)
        grey = 60 * (1 + labels)[:, None, None] + random.normal(0, 20, (len(labels), side, side))
        arrays[f"{part}_images"] = grey.clip(0, 255).astype(np.uint8)
        arrays[f"{part}_labels"] = labels[:, None]
    np.savez(file, **arrays)


def describe() -> str:
    """The parts, for ``--list``."""
    lines = []
    for part in PARTS:
        beside = f", beside the others of '{part.group}'" if part.group else ""
        lines.append(f"{part.name}: {part.title}; {part.limit} s{beside}")
        lines += [f"    aim: {aim.text}" for aim in part.aims]
    return "\n".join([*lines, f"{longest()} s at most, all together"])


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("results/first_gpu"), help="default: %(default)s")
    options.add_argument("--only", metavar="PARTS", help="by name, with commas")
    options.add_argument("--left", action="store_true", help="only parts that have no result yet")
    instead = options.add_mutually_exclusive_group()
    instead.add_argument("--rehearse", action="store_true", help="every part at toy size on the CPU")
    instead.add_argument("--list", action="store_true", help="say what the parts are, and stop")
    instead.add_argument("--pages", action="store_true", help="write the tables in docs/ from the results, and stop")
    options.add_argument("--docs", type=Path, default=DOCS, help=argparse.SUPPRESS)
    return options


def main() -> int:
    options = parser()
    given = options.parse_args()
    if given.list:
        print(describe())
        return 0
    parts = chosen(given.only)
    if given.pages:
        results = read_results(given.out)
        if results is None:
            raise UsageError(f"{given.out}: no {RESULTS} there")
        if results["mode"] != GPU:
            raise UsageError(f"{given.out}: results of a rehearsal; the docs' tables are a GPU's")
        write_docs(results, given.docs)
        return 0
    if given.rehearse and given.out == options.get_default("out"):
        raise UsageError("--rehearse: give a folder of its own, --out FOLDER")
    with environment(), tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "patches.npz"
        write_patches(data, TOY_COUNTS if given.rehearse else PAPER_COUNTS, side=16 if given.rehearse else 64)
        contact = Contact(
            given.out,
            toy=given.rehearse,
            machine=ready_to_rehearse() if given.rehearse else look(),
            data=data,
            docs=given.docs,
        )
        todo = contact.left(parts) if given.left else parts
        try:
            contact.run(todo)
        except KeyboardInterrupt:
            print("stopped; --left goes on", flush=True)
            return 130
    states = {part.name: contact.results["parts"][part.name]["state"] for part in todo}
    for name, state in states.items():
        if state != DONE:
            print(f"{name}: {state}: {contact.results['parts'][name]['reason']}")
    return int(any(state in (FAILED, KILLED) for state in states.values()))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UsageError as wrong:
        sys.exit(f"first_gpu: {wrong}")
