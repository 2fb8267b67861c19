"""The mix on CUDA: one Triton kernel that reads batch and bank once, and writes the output once.

Imported where it is launched: Triton is not on every machine.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from genmix_transforms.transforms.drawing import Draw

BLOCK = 2048
"""Values a program mixes: eight or sixteen a thread, in vector loads."""


def mix_fused(images: Tensor, pixels: Tensor, draw: Draw, scale: Tensor, shift: Tensor, *, out: Tensor) -> Tensor:
    """Mix on CUDA, in one launch; ``out`` may be ``images``. See :func:`genmix_transforms.transforms.mix.mix`.

    Nine bytes of memory traffic a value for float32: four read, one of the bank, four written. Nothing waits for the
    device. A batch that is neither contiguous nor channels-last is made contiguous first.
    """
    if images.numel() == 0:
        return out
    lam, index, from_batch = draw
    channels, spatial = images.shape[1], images[0, 0].numel()
    if not (_is_dense(images) and images.stride() == out.stride()):
        dense = images.contiguous()
        mixed = mix_fused(dense, pixels, draw, scale, shift, out=torch.empty_like(dense))
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
            scale.contiguous(),
            shift.contiguous(),
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
    """Return whether a batch is contiguous, or has its channels last."""
    if images.is_contiguous():
        return True
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(images.ndim)
    return last is not None and images.is_contiguous(memory_format=last)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def mix_kernel(  # type: ignore[no-untyped-def]
    images,  # the batch, values of an image in memory order
    pixels,  # the bank, uint8 or uint16
    own_images,  # where partners of the batch are read: the batch, or a copy if it is overwritten
    index,  # int64: a partner's row
    lam,  # float32
    from_batch,  # bool: whether that row is one of own_images; not looked at unless any_own
    scale,  # float32, one a channel
    shift,
    out,
    channels: tl.constexpr,
    spatial: tl.constexpr,
    images_last: tl.constexpr,  # memory order: channels last, or first
    pixels_last: tl.constexpr,
    by_channel: tl.constexpr,  # whether the channels of both lie one after the other
    any_own: tl.constexpr,
    rounded: tl.constexpr,
    double: tl.constexpr,
    blocks: tl.constexpr,  # programs an image, or a channel of it
    block: tl.constexpr,  # values a program
):
    """Mix ``block`` values of one image with its partner's."""
    program = tl.program_id(0)
    values: tl.constexpr = channels * spatial
    if by_channel:
        # A program stays within a channel: its scale and shift are one number each, and nothing is divided.
        line = program // blocks
        number = (line // channels).to(tl.int64)
        channel = line % channels
        position = (program % blocks) * block + tl.arange(0, block)
        inside = position < spatial
        place = channel * spatial + position
        bank_place = place
        factor = tl.load(scale + channel)
        offset = tl.load(shift + channel)
    else:
        number = (program // blocks).to(tl.int64)
        place = (program % blocks) * block + tl.arange(0, block)
        inside = place < values
        if images_last:
            channel = place % channels
            position = place // channels
        else:
            channel = place // spatial
            position = place % spatial
        if images_last == pixels_last:
            bank_place = place
        elif pixels_last:
            bank_place = position * channels + channel
        else:
            bank_place = channel * spatial + position
        factor = tl.load(scale + channel, mask=inside, other=0)
        offset = tl.load(shift + channel, mask=inside, other=0)

    # ``number`` and ``row`` have 64 bits: a bank of ten gigabytes has more values than 32 bits count.
    row = tl.load(index + number)
    weight = tl.load(lam + number)
    real = tl.load(images + number * values + place, mask=inside, other=0)
    dtype: tl.constexpr = tl.float64 if double else tl.float32
    real = real.to(dtype)
    weight = weight.to(dtype)
    own = False
    if any_own:
        own = tl.load(from_batch + number) != 0
    if own:
        partner = tl.load(own_images + row * values + place, mask=inside, other=0).to(dtype)
    else:
        pixel = tl.load(pixels + row * values + bank_place, mask=inside, other=0).to(dtype)
        partner = pixel * factor.to(dtype) + offset.to(dtype)
    # As torch.lerp: exact at both ends.
    difference = partner - real
    mixed = tl.where(weight < 0.5, real + weight * difference, partner - difference * (1 - weight))
    if rounded:
        # To the nearest whole number, halves to even as torch.round: above 2 ** 23 a float32 has no fraction.
        mixed = (mixed + 12582912.0) - 12582912.0
    tl.store(out + number * values + place, mixed.to(out.dtype.element_ty), mask=inside)
