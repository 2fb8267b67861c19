"""The mix on CUDA: one Triton kernel that reads batch and bank once, and writes the output once."""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from genmix_transforms.transforms.drawing import Draw
from genmix_transforms.transforms.kernels.units import Units

BLOCK = 2048
"""Values a program mixes: eight or sixteen a thread, in vector loads."""


@cache
def triton_is_there() -> bool:
    """Whether Triton is installed; torch for Linux brings it."""
    return find_spec("triton") is not None


def mix_fused(
    images: Tensor,
    pixels: Tensor,
    drawn: Draw,
    units: Units,
    *,
    out: Tensor,
) -> Tensor:
    """See :func:`genmix_transforms.transforms.kernels.mix_with_bank`; ``out`` may be ``images``.

    Nine bytes of memory traffic a value for float32: four read, one of the bank, four written. Nothing waits for the
    device. A batch that is neither contiguous nor channels-last is made contiguous first.
    """
    from genmix_transforms.transforms.kernels.triton_kernel import mix_kernel

    if images.numel() == 0:
        return out
    lam, index, from_batch = drawn.tensors()
    channels, spatial = images.shape[1], images[0, 0].numel()
    if not (_is_dense(images) and images.stride() == out.stride()):
        dense = images.contiguous()
        mixed = mix_fused(dense, pixels, drawn, units, out=torch.empty_like(dense))
        return out.copy_(mixed)
    if not _is_dense(pixels):
        pixels = pixels.contiguous()
    # In place, a partner may be an image that another program has mixed already.
    own = images.clone() if from_batch is not None and out.data_ptr() == images.data_ptr() else images
    images_last, pixels_last = not images.is_contiguous(), not pixels.is_contiguous()
    by_channel = not images_last and not pixels_last
    lines, values = (len(images) * channels, spatial) if by_channel else (len(images), channels * spatial)
    # A power of two, as Triton wants it.
    block = min(BLOCK, 1 << (values - 1).bit_length())
    blocks = -(-values // block)
    with torch.cuda.device_of(images):
        mix_kernel[(lines * blocks,)](
            images,
            pixels,
            own,
            index.contiguous(),
            lam.contiguous(),
            from_batch.contiguous() if from_batch is not None else index,
            units.scale.contiguous(),
            units.shift.contiguous(),
            out,
            channels=channels,
            spatial=spatial,
            images_last=images_last,
            pixels_last=pixels_last,
            by_channel=by_channel,
            any_own=from_batch is not None,
            rounded=not images.is_floating_point(),
            double=images.dtype == torch.float64,
            blocks=blocks,
            block=block,
            enable_fp_fusion=True,  # a multiplication and an addition may be one, as in torch.lerp
        )
    return out


def _is_dense(images: Tensor) -> bool:
    """Contiguous, or with the channels last."""
    if images.is_contiguous():
        return True
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(images.ndim)
    return last is not None and images.is_contiguous(memory_format=last)
