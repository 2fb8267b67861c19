"""Writers that are killed, interrupted, or refused by the system, for real and in the middle of it.

A child process writes to the bank. It is struck in the moment that the attack names: from an audit hook, which Python
calls before each operation on files, or by the kernel, at a byte of a file.
"""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from genmix_transforms.bank.manifest import INDEX, LOCK, is_shard_name
from genmix_transforms.bank.writing import BankWriter

from .attack import CLASSES, SHAPE, WRITTEN, Attacks, Expected, ImpossibleError, Opens, Refused

ATTACKS = Attacks("writing")

WHOLE_OR_LEFTOVERS: Expected = (
    Opens.SAME,
    Refused(r"\(not in the manifest: a killed writer's, or somebody else's\)"),
)
"""What a killed writer had written, and no manifest names: the next one removes it."""


def write(folder: Path, *, overwrite: bool = False) -> None:
    """Two whole shards, appended one by one, or a bank of two in the place of the old one."""
    with BankWriter(
        folder,
        classes=CLASSES,
        image_shape=SHAPE,
        window=(-100.0, 200.0),
        provenance=[{"by": "one"}, {"by": "two"}],
        append=not overwrite,
        overwrite=overwrite,
        shard_bytes=48,
    ) as writer:
        writer.add(torch.full((6, *SHAPE), WRITTEN, dtype=torch.uint8), torch.tensor([0, 0, 1, 0, 1, 1]))


def _child(body: Callable[[], None]) -> int:
    """What ``os.waitpid`` says of a process that did this; its exit status is 3 where it was stopped by an error."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            body()
            status = 0
        except (OSError, KeyboardInterrupt):
            status = 3
        finally:
            os._exit(status)
    return os.waitpid(process, 0)[1]


def _strike(folder: Path, when: Callable[[str, str], bool], nth: int, how: int, overwrite: bool) -> int:
    """Write in a child, and send it a signal in the n-th moment of a kind."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in ("open", "os.rename", "os.remove"):
            return
        path = arguments[1] if event == "os.rename" else arguments[0]
        if not isinstance(path, str | os.PathLike) or Path(path).parent != folder:
            return
        if when(event, Path(path).name):
            seen += 1
            if seen == nth:
                os.kill(os.getpid(), how)

    def body() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.addaudithook(hook)
        write(folder, overwrite=overwrite)

    return _child(body)


_MOMENTS: dict[str, Callable[[str, str], bool]] = {
    "before its lock": lambda event, name: event == "open" and name == LOCK,
    "before a shard": lambda event, name: event == "open" and name.startswith(".bank-"),
    "before a shard gets its name": lambda event, name: event == "os.rename" and is_shard_name(name),
    "before the manifest": lambda event, name: event == "open" and name.startswith(f".{INDEX}"),
    "before the manifest gets its name": lambda event, name: event == "os.rename" and name == INDEX,
    "before an old shard is deleted": lambda event, name: event == "os.remove" and is_shard_name(name),
}
_TIMES = {
    # mode: how often each moment comes
    "appends": {"before its lock": 1, "before a shard": 2, "before a shard gets its name": 2, "before the manifest": 2,
                "before the manifest gets its name": 2},
    "overwrites": {"before its lock": 1, "before a shard": 2, "before a shard gets its name": 2,
                   "before the manifest": 1, "before the manifest gets its name": 1,
                   "before an old shard is deleted": 3},
}  # fmt: skip


def _struck(mode: str, moment: str, nth: int, how: signal.Signals) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        status = _strike(folder, _MOMENTS[moment], nth, how, mode == "overwrites")
        if how == signal.SIGKILL:
            assert os.WIFSIGNALED(status), "the moment never came"
            assert os.WTERMSIG(status) == signal.SIGKILL
        else:
            assert os.waitstatus_to_exitcode(status) == 3, "the moment never came"

    return damage


for _mode, _times in _TIMES.items():
    for _moment, _often in _times.items():
        for _nth in range(1, _often + 1):
            _published = _moment == "before an old shard is deleted" or (_mode == "appends" and _nth > 1)
            _stands = Opens.KEPT if _published else Opens.SAME
            ATTACKS.add(
                f"kill -9 of a process that {_mode}, {_moment} ({_nth})",
                name=f"killed[{_mode}, {_moment}, {_nth}]",
                load=_stands,
                verify=WHOLE_OR_LEFTOVERS,
                opened=_stands,
            )(_struck(_mode, _moment, _nth, signal.SIGKILL))
            if _nth < _often:
                continue
            ATTACKS.add(
                f"Ctrl-C of a process that {_mode}, {_moment} ({_nth})",
                name=f"interrupted[{_mode}, {_moment}, {_nth}]",
                load=_stands,
                verify=Opens.SAME,
                opened=_stands,
            )(_struck(_mode, _moment, _nth, signal.SIGINT))


# At a byte


def _limited(byte: int, kill: bool, overwrite: bool) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        def body() -> None:
            # By default the signal kills; Python has it ignored, and the write fails.
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kill else signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (byte, byte))
            write(folder, overwrite=overwrite)

        status = _child(body)
        if kill:
            assert os.WIFSIGNALED(status), "the writer was never stopped"
            assert os.WTERMSIG(status) == signal.SIGXFSZ
        else:
            assert os.waitstatus_to_exitcode(status) == 3, "the writer was never refused"

    return damage


for _byte, _modes in (
    (0, ("appends", "overwrites")), (1, ("appends",)), (8, ("overwrites",)), (100, ("appends",)), (600, ("overwrites",))
):  # fmt: skip
    for _mode in _modes:
        ATTACKS.add(
            f"a process that {_mode} killed by the kernel as a file grows past {_byte} bytes",
            name=f"killed_at_a_byte[{_mode}, {_byte}]",
            load=Opens.SAME,
            verify=WHOLE_OR_LEFTOVERS,
            opened=Opens.SAME,
        )(_limited(_byte, True, _mode == "overwrites"))
        ATTACKS.add(
            f"a process that {_mode} not let to grow a file past {_byte} bytes",
            name=f"refused_at_a_byte[{_mode}, {_byte}]",
            load=Opens.SAME,
            verify=Opens.SAME,
            opened=Opens.SAME,
        )(_limited(_byte, False, _mode == "overwrites"))


# A disk that runs full

_FULL_DISK = """
set -e
mount -t tmpfs -o size=400k none "$1"
cp -r "$2" "$1/bank"
"$3" -c '
import sys, torch
from genmix_transforms.bank import BankWriter
try:
    with BankWriter(sys.argv[1], classes=sys.argv[2:4], image_shape=(1, 4, 4), window=(-100.0, 200.0), append=True,
                    provenance=[{"by": "one"}, {"by": "two"}], shard_bytes=2**15) as writer:
        for _ in range(20):
            writer.add(torch.zeros(2048, 1, 4, 4, dtype=torch.uint8), torch.arange(2048) % 2)
except OSError as error:
    print("errno", error.errno)
' "$1/bank" cyst hémangiome
cp -r "$1/bank" "$2.full"
"""


@ATTACKS.add("a disk that runs full", load=Opens.KEPT, verify=Opens.SAME, opened=Opens.KEPT)
def full_disk(folder: Path) -> None:
    """A file system of 400 kB, made for it."""
    with tempfile.TemporaryDirectory() as disk:
        try:
            probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", disk], capture_output=True)
        except FileNotFoundError as error:
            raise ImpossibleError("no unshare on this system") from error
        if probe.returncode:
            raise ImpossibleError("this machine does not let a user mount a small file system")
        command = ["unshare", "-rm", "bash", "-c", _FULL_DISK, "bash", disk, str(folder), sys.executable]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"errno {errno.ENOSPC}"], done.stderr
    shutil.rmtree(folder)
    Path(f"{folder}.full").rename(folder)
