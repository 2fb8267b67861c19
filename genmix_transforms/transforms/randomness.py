"""Uniform numbers, from torch's global generator or one of GenMix's own: other ones on every rank and worker."""

import os
import weakref
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from genmix_transforms.errors import InputError

_BITS = 53  # of the mantissa of a float64
_GOLDEN = 0x1E3779B97F4A7C15  # odd; spreads successive ranks over all bits

_sources: "weakref.WeakValueDictionary[int, UniformSource]" = weakref.WeakValueDictionary()


class UniformSource:
    """Uniform numbers in [0, 1) for the draws of one GenMix.

    Processes that train together are often seeded alike, and would draw alike: every rank but the first passes its
    numbers through a bijection that its rank chooses, so that the state stays the same on all of them and the first
    rank's checkpoint serves all. A DataLoader's workers inherit a copy of an own generator: there it gives way to one
    seeded by the worker's own seed, which differs between workers and between epochs, and is the same after a restart.

    Args:
        generator: to draw from; None: torch's global one.
    """

    def __init__(self, generator: torch.Generator | None) -> None:
        if generator is not None and not isinstance(generator, torch.Generator):
            raise InputError(
                f"GenMix: generator must be a torch.Generator, got {type(generator).__name__}; "
                "from a seed: torch.Generator(device).manual_seed(seed)"
            )
        self.generator = generator
        self._worker_seed: int | None = None
        self._register()

    def __call__(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """Draw ``(rows, columns)`` numbers; float64 (float32 where the device has no float64). A row is one sample's.

        Raises:
            InputError: the own generator is on another device.
        """
        if self.generator is None:
            return _other_on_every_rank(torch.rand(rows, columns, dtype=_dtype(device), device=device))
        if torch.compiler.is_compiling():
            # A compiler cannot carry a generator through its graph; an operator of our own can.
            drawn: Tensor = _uniform_operator(self._handle, rows, columns, device)
            return drawn
        return self._draw(self.generator, rows, columns, device)

    def _draw(self, generator: torch.Generator, rows: int, columns: int, device: torch.device) -> Tensor:
        worker = get_worker_info()
        if worker is not None:
            generator = self._of_worker(generator, worker.seed)
        if not _same_device(generator.device, device) and device.type != "meta":
            raise InputError(
                f"GenMix: the batch is on {device}, the generator on {generator.device}: "
                f"make it there, with torch.Generator({str(device)!r}).manual_seed(seed)"
            )
        drawn = torch.rand(rows, columns, dtype=_dtype(device), device=device, generator=generator)
        return _other_on_every_rank(drawn)

    def _of_worker(self, generator: torch.Generator, worker_seed: int) -> torch.Generator:
        if self._worker_seed != worker_seed:
            self._worker_seed = worker_seed
            seed = np.random.SeedSequence([worker_seed, generator.initial_seed()]).generate_state(1)[0]
            self.generator = generator = torch.Generator(generator.device).manual_seed(int(seed))
        return generator

    def _register(self) -> None:
        self._handle = id(self)
        _sources[self._handle] = self

    def __getstate__(self) -> dict[str, Any]:
        # As bytes: torch's own pickle of a generator sends its state through shared memory, and lets go of it before a
        # spawned process has opened it.
        state = None
        if self.generator is not None:
            state = (str(self.generator.device), self.generator.get_state().numpy().tobytes())
        return {"generator": state, "_worker_seed": self._worker_seed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.generator = None
        if state["generator"] is not None:
            device, content = state["generator"]
            self.generator = torch.Generator(device)
            self.generator.set_state(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self._worker_seed = state["_worker_seed"]
        self._register()


class OwnGenerator(nn.Module):
    """A module that draws from a generator of its own, or from torch's global one.

    A checkpoint of the module, alone or within a model, then goes on with the same numbers.
    """

    _uniform: UniformSource

    @property
    def generator(self) -> torch.Generator | None:
        """Of all draws; None: torch's global one."""
        return self._uniform.generator

    @generator.setter
    def generator(self, generator: torch.Generator | None) -> None:
        self._uniform = UniformSource(generator)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.generator is not None:
            destination[f"{prefix}generator_state"] = self.generator.get_state()

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        key = f"{prefix}generator_state"
        if self.generator is None:
            return
        if key not in state_dict:
            if strict:
                missing_keys.append(key)
            return
        if key in unexpected_keys:
            unexpected_keys.remove(key)
        try:
            self.generator.set_state(state_dict[key].cpu())
        except (RuntimeError, TypeError) as error:
            error_msgs.append(
                f"{type(self).__name__}: {key} is no state of a generator on {self.generator.device}: {error}"
            )


def rank() -> int:
    """Return this process's number among those that train together: the process group's, the launcher's RANK, or 0."""
    if dist.is_available() and dist.is_initialized():
        return int(dist.get_rank())
    return _launched_as


_rank_of_launcher = os.environ.get("RANK", "")
_launched_as = int(_rank_of_launcher) if _rank_of_launcher.isdecimal() else 0


def _same_device(one: torch.device, other: torch.device) -> bool:
    """Compare two devices; one without a number is taken for the first of its type."""
    return one.type == other.type and (one.index or 0) == (other.index or 0)


def _dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _other_on_every_rank(uniform: Tensor) -> Tensor:
    """Return the first rank's numbers as they are; on the others, what SplitMix64 makes of them and the rank."""
    number = rank()
    if number == 0:
        return uniform
    # 53 bits; as a float32 (on a device that has no float64) a number has 24 of them.
    bits = uniform * 2**24 if uniform.device.type == "mps" else uniform.double() * 2**_BITS
    state: Tensor = bits.long() + number * _GOLDEN % 2**63
    # Multiplication wraps, as it should; a shift of a signed number brings in copies of its sign, which the mask drops.
    state = (state ^ (state >> 30 & (1 << 34) - 1)) * (0xBF58476D1CE4E5B9 - 2**64)
    state = (state ^ (state >> 27 & (1 << 37) - 1)) * (0x94D049BB133111EB - 2**64)
    state = state ^ (state >> 31 & (1 << 33) - 1)
    kept = 24 if uniform.dtype == torch.float32 else _BITS
    return (state >> (64 - kept) & (1 << kept) - 1).to(uniform.dtype).mul_(2.0**-kept)


# A CUDA graph would replay the numbers of its capture.
_TAGS = tuple(
    getattr(torch.Tag, name) for name in ("nondeterministic_seeded", "cudagraph_unsafe") if hasattr(torch.Tag, name)
)


@torch.library.custom_op("genmix_transforms::uniform", mutates_args=(), tags=_TAGS)
def _uniform_operator(source: int, rows: int, columns: int, device: torch.device) -> Tensor:
    generator = _sources[source].generator
    assert generator is not None
    return _sources[source]._draw(generator, rows, columns, device)


@_uniform_operator.register_fake
def _(source: int, rows: int, columns: int, device: torch.device) -> Tensor:
    return torch.empty(rows, columns, dtype=_dtype(device), device=device)
