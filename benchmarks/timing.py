"""Rivals timed in turn, in one process: what makes ratios hold on a machine that is busy with other things too."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping

import torch

WARM_UP_ROUNDS = 2


def interleave(
    rivals: Mapping[str, Callable[[], object]], *, rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Call every rival once a round, and return its seconds in each round after the warm-up."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(rounds + WARM_UP_ROUNDS):
        for name, call in rivals.items():
            _wait(device)
            start = time.perf_counter()
            call()
            _wait(device)
            if number >= WARM_UP_ROUNDS:
                times[name].append(time.perf_counter() - start)
    return times


def table(times: Mapping[str, list[float]], *, against: str) -> str:
    """A Markdown table: medians, spread, and the median over the rounds of the ratio to one rival."""
    lines = [f"| what | median ms | 25-75 % | times {against} |", "| --- | --- | --- | --- |"]
    for name, values in times.items():
        low, _, high = statistics.quantiles(values, n=4)
        ratio = statistics.median(mine / other for mine, other in zip(values, times[against], strict=True))
        median = statistics.median(values)
        lines.append(f"| {name} | {median * 1e3:.3g} | {low * 1e3:.3g}-{high * 1e3:.3g} | {ratio:.2f} |")
    return "\n".join(lines)


def machine(device: torch.device) -> str:
    """What the numbers were measured on."""
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    return f"{where}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
