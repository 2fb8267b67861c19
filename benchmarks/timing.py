"""Rivals timed in turn, in one process: what makes ratios hold on a machine that is busy with other things too."""

import ctypes
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

WARM_UP_ROUNDS = 2
FEWEST_ROUNDS = 8
MOST_ROUNDS = 400

Times = dict[str, list[float] | str]
"""For each rival its seconds in each round; or why it has none."""

Clock = Callable[[Callable[[], object]], float]
"""Calls what it is given, and says how many seconds that took."""


def interleave(
    rivals: Mapping[str, Callable[[], object]],
    *,
    device: torch.device,
    rounds: int | None = None,
    seconds: float = 10.0,
    before: Callable[[], object] | None = None,
    clock: Clock | None = None,
    warm_up: int = WARM_UP_ROUNDS,
) -> Times:
    """Call every rival once a round, in an order that changes from round to round, after some rounds to warm up.

    What a rival returns is dropped within its time, as a training loop drops it at every step.

    Args:
        rivals: what to call, by name. One that raises in the first round is left out of the others.
        device: to wait for, before and after each call.
        rounds: how many; None: as many as fit into ``seconds``, from ``FEWEST_ROUNDS`` to ``MOST_ROUNDS``.
        seconds: from the end of the warm-up.
        before: called before each call, outside its time.
        clock: None: wall-clock time.
        warm_up: rounds that are not counted, at least one.
    """
    clock = clock or wall_clock(device)
    times: dict[str, list[float]] = {name: [] for name in rivals}
    failed: dict[str, str] = {}
    order = list(rivals)
    shuffle = random.Random(0).shuffle
    number, end = 0, 0.0
    while _goes_on(number - warm_up, rounds, end):
        if number == warm_up:
            give_back_free_memory()  # a compiler that ran in the warm-up leaves much
            end = time.perf_counter() + seconds
        for name in order:
            if before is not None:
                before()
            try:
                taken = clock(rivals[name])
            except Exception as error:
                if number:
                    raise
                failed[name] = f"fails: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                continue
            if number >= warm_up:
                times[name].append(taken)
        order = [name for name in rivals if name not in failed]
        shuffle(order)
        number += 1
    return {name: failed.get(name, times[name]) for name in rivals}


def _goes_on(measured: int, rounds: int | None, end: float) -> bool:
    if rounds is not None:
        return measured < rounds
    return measured < FEWEST_ROUNDS or (measured < MOST_ROUNDS and time.perf_counter() < end)


def wall_clock(device: torch.device) -> Clock:
    """Seconds from the call until the device has nothing left to do."""

    def measure(call: Callable[[], object]) -> float:
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        return time.perf_counter() - start

    return measure


def processor_clock() -> Clock:
    """Seconds of processor time of this thread: what a call of one thread takes when nobody else is on the machine."""

    def measure(call: Callable[[], object]) -> float:
        start = time.thread_time()
        call()
        return time.thread_time() - start

    return measure


def device_clock(device: torch.device, *, host_lead: float = 0.02) -> Clock:
    """Seconds between two CUDA events around the call, which finds the device busy, as it is within a training step.

    The host then runs ahead, and what it costs does not show, unless the call waits for the device.

    Args:
        device: a CUDA device.
        host_lead: seconds of other work that the device is given first. Far more than a call takes on the host.
    """
    side = torch.randn(4096, 4096, device=device)
    torch.mm(side, side)
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(20):
        torch.mm(side, side)
    stop.record()
    stop.synchronize()
    several = max(1, round(20 * host_lead / (start.elapsed_time(stop) / 1e3)))

    def measure(call: Callable[[], object]) -> float:
        _wait(device)
        for _ in range(several):
            torch.mm(side, side)
        start.record()
        call()
        stop.record()
        stop.synchronize()
        return float(start.elapsed_time(stop)) / 1e3

    return measure


def table(times: Times, *, against: str | Sequence[str]) -> str:
    """A Markdown table: medians and quartiles of the times, and of their ratios to one rival or several.

    A ratio is of two times of the same round; the median is of these ratios, and not the ratio of two medians.
    """
    others = [against] if isinstance(against, str) else list(against)
    head = ["what", "median ms", "25-75 %", *(f"times {other}" for other in others)]
    lines = [_row(head), _row(["---"] * len(head))]
    for name, values in times.items():
        if isinstance(values, str):
            lines.append(_row([name, values.replace("|", "/"), *[""] * (len(head) - 2)]))
            continue
        low, median, high = _quartiles([1e3 * value for value in values])
        cells = [name, f"{median:.3g}", f"{low:.3g}-{high:.3g}"]
        for other in others:
            if isinstance(times[other], str):
                cells.append("")
                continue
            low, median, high = _quartiles(ratios(times, name, other))
            cells.append(f"{median:.2f} ({low:.2f}-{high:.2f})")
        lines.append(_row(cells))
    return "\n".join(lines)


def ratios(times: Times, name: str, other: str) -> list[float]:
    """One rival's times over another's, round by round."""
    mine, theirs = times[name], times[other]
    if isinstance(mine, str) or isinstance(theirs, str):
        raise ValueError(f"{name} or {other} was not measured")
    return [a / b for a, b in zip(mine, theirs, strict=True)]


def median(times: Times, name: str) -> float:
    """Of one rival's seconds."""
    values = times[name]
    if isinstance(values, str):
        raise ValueError(f"{name} was not measured: it {values}")
    return statistics.median(values)


def matrix_rate(device: torch.device, *, side: int = 8192) -> float:
    """Operations a second that products of bfloat16 matrices reach here: what a network's share is taken of."""
    if device.type == "cpu":
        side = 64  # nobody asks a CPU for this number, but what asks for it runs there too
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    several = 20

    def products() -> None:
        for _ in range(several):
            matrix @ matrix

    clock = wall_clock(device)
    clock(products)
    return several * 2 * side**3 / clock(products)


class Neighbours:
    """How many processor cores other processes have kept busy since this was made. Linux only."""

    def __init__(self) -> None:
        self._start = self._now()

    def cores(self) -> float | None:
        """None: not known."""
        if self._start is None or (now := self._now()) is None:
            return None
        elapsed, all_busy, own_busy = (after - before for before, after in zip(self._start, now, strict=True))
        return max(0.0, (all_busy - own_busy) / elapsed) if elapsed else 0.0

    def crowd(self, threads: int) -> str:
        """A sentence on what they did meanwhile, and on what that means for rivals of so many threads."""
        busy, cores = self.cores(), os.cpu_count() or 1
        if busy is None:
            return ""
        says = f" Meanwhile other processes kept {busy:.1f} of {cores} cores busy."
        if threads > 1 and threads + busy > cores + 0.2:
            says += f" Threads that wait for each other wait for those then: with {threads} threads this says little."
        return says

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        counters = Path("/proc/stat")
        if not counters.exists():
            return None
        # user, nice, system, idle, iowait, irq, softirq, steal: the last is what a virtual machine was not given.
        ticks = [int(number) for number in counters.read_text().splitlines()[0].split()[1:9]]
        busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy, time.process_time()


def give_back_free_memory() -> None:
    """To the system, where the C library is glibc: what a heap has left over from before would serve some rivals."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def machine(device: torch.device) -> str:
    """What the numbers were measured on."""
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        where = f"{_processor()}, {os.cpu_count()} cores"
    return f"{where}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    names = [line for line in described.read_text().splitlines() if "model name" in line] if described.exists() else []
    name = names[0].partition(":")[2].strip() if names else "CPU"
    return f"{platform.machine()} {name}"


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
