"""What a GPU may do to float32 to be fast: TF32 products, and convolutions by whichever algorithm was timed fastest."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch


@contextmanager
def fast_math(device: torch.device, on: bool) -> Iterator[None]:
    """Set how CUDA computes in float32, for the whole process, and set it back afterward.

    On other devices nothing is set: the switches of the same name could change what a CPU computes.

    Args:
        device: where is computed.
        on: TF32, and cuDNN's fastest algorithm by timing; else IEEE float32, and deterministic algorithms.

    Example:
        >>> with fast_math(torch.device("cuda"), on=True):
        ...     torch.backends.cudnn.benchmark
        True
        >>> torch.backends.cudnn.benchmark
        False
    """
    if device.type != "cuda":
        yield
        return
    before = _Switches()
    before.set(on)
    try:
        yield
    finally:
        before.restore()


class _Switches:
    """PyTorch's switches as they are now.

    There are old ones and new ones of the same. Reading an old one is an error where a new one contradicts it, and
    torch.compile reads old ones: so both are set, and both are set back.
    """

    def __init__(self) -> None:
        cudnn: Any = torch.backends.cudnn
        self._old_products = self._old_cudnn = None
        with suppress(RuntimeError):  # the caller's own contradict each other: there is no old one to set back
            self._old_products = torch.get_float32_matmul_precision()
        with suppress(RuntimeError):
            self._old_cudnn = cudnn.allow_tf32
        self._new = [(switch, switch.fp32_precision) for switch in _new_switches()]
        self._choice = cudnn.benchmark, cudnn.deterministic

    def set(self, on: bool) -> None:
        """Fast, or exact."""
        cuda: Any = torch.backends.cuda.matmul
        cudnn: Any = torch.backends.cudnn
        if not on and self._old_products != "highest":
            # This one says it of the CPU's products too: to them it gives what they have by default.
            torch.set_float32_matmul_precision("highest")
        if self._old_products in (None, "highest"):  # else the caller has asked for TF32 already, in whichever way
            cuda.allow_tf32 = on
        cudnn.allow_tf32 = on
        # An old "no" leaves it open to what is said of all of PyTorch; a new one does not.
        cuda.fp32_precision = cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "tf32" if on else "ieee"
        cudnn.benchmark, cudnn.deterministic = on, not on

    def restore(self) -> None:
        """Set them so again, the new ones last: those decide."""
        cudnn: Any = torch.backends.cudnn
        if self._old_products is not None:
            torch.set_float32_matmul_precision(self._old_products)
        if self._old_cudnn is not None:
            cudnn.allow_tf32 = self._old_cudnn
        for switch, value in self._new:
            switch.fp32_precision = value
        cudnn.benchmark, cudnn.deterministic = self._choice


def _new_switches() -> tuple[Any, ...]:
    """All that the old ones move."""
    backends: Any = torch.backends  # whose stubs lack some
    return backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul
