"""What a large checkpoint costs a training: written as before (the training waits), and beside the training.

A state as that of a diffusion model: weights, their average, and Adam's two moments, 1 GB by default. "Before" is the
way of release 0.1: one safetensors file built in memory, hashed, written and flushed while the training waits. Both
write to the same folder, taking turns. "Blocked" is how long the training stands still; "until whole" is when the index
is written.

    python benchmarks/checkpoints.py --gigabytes 1 --folder /tmp
"""

import argparse
import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from timing import machine
from torch import nn

from genmix_transforms.files.atomic import write_bytes, write_json
from genmix_transforms.generators.checkpoints import Checkpoints
from genmix_transforms.generators.ema import MovingAverage
from genmix_transforms.generators.state import pack


def state(gigabytes: float, device: torch.device) -> Mapping[str, Any]:
    side = 1024
    layers = max(1, round(gigabytes * 1e9 / (4 * 4 * side * side)))
    network = nn.Sequential(*(nn.Linear(side, side, bias=False) for _ in range(layers))).to(device)
    optimiser = torch.optim.Adam(network.parameters(), fused=True)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return {"network": network, "optimiser": optimiser, "average": MovingAverage(network, half_life=1000)}


def as_before(folder: Path, objects: Mapping[str, Any]) -> None:
    """What release 0.1 did at a checkpoint."""
    outline, tensors = pack({name: item.state_dict() for name, item in objects.items()})
    content = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    write_bytes(folder / "state-before.safetensors", content)
    write_json(folder / "before.json", {"sha256": hashlib.sha256(content).hexdigest(), "outline": outline})


class Memory:
    """The most memory that this process holds within the block, above what it held before."""

    def __enter__(self) -> "Memory":
        self.before, self.peak, self._done = _resident(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def gigabytes(self) -> float:
        return (self.peak - self.before) / 1e9

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.peak = max(self.peak, _resident())


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def timed(work: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure; default: the system's own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    device = torch.device(given.device)
    objects = state(given.gigabytes, device)
    network, inputs = objects["network"], torch.randn(32, 1024, device=device)

    def step() -> None:
        with torch.no_grad():
            network(inputs)

    rows = []
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        checkpoints = Checkpoints(folder, {})
        for number in range(given.rounds):
            with Memory() as memory:
                blocked = timed(lambda: as_before(folder, objects), device)
            rows.append(["before", number + 1, blocked, blocked, 0, memory.gigabytes])
            with Memory() as memory:
                start = time.perf_counter()
                blocked = timed(lambda: checkpoints.save(objects, images_seen=number + 1), device)  # noqa: B023
                steps = 0
                while checkpoints.writing:
                    step()
                    steps += 1
                whole = time.perf_counter() - start
                checkpoints.finish()
            rows.append(["beside the training", number + 1, blocked, whole, steps, memory.gigabytes])
    print(f"{machine(device)}; {given.gigabytes:g} GB of state\n")
    print("| way | round | blocked (s) | until whole (s) | steps meanwhile | memory more (GB) |")
    print("|---|---:|---:|---:|---:|---:|")
    for way, number, blocked, whole, steps, more in rows:
        print(f"| {way} | {number} | {blocked:.2f} | {whole:.2f} | {steps} | {more:.2f} |")


if __name__ == "__main__":
    main()
