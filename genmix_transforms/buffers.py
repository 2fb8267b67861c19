"""Modules whose tensors are data: they go where the model goes, and are not converted with it."""

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn


class KeepsDtypes(nn.Module):
    """A module whose buffers keep their dtypes under ``.half()``, ``.double()`` and ``.to(dtype)``.

    A network is converted to bfloat16 to save memory; pixels, label probabilities and the numbers that turn one into
    the other would only lose digits, and no longer fit each other. Devices are followed as ever.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], *arguments: Any, **options: Any) -> Self:
        before = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, *arguments, **options)  # the one door through which torch moves and converts modules
        for name, buffer in before.items():
            after = self._buffers[name]
            if after is not None and after.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(after.device)
        return self
