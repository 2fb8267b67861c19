"""Which way a batch is mixed: fused on CUDA, in one pass or in pieces on the CPU, by plain tensor operations else."""

import torch
from torch import Tensor

from genmix_transforms.transforms.drawing import Draw
from genmix_transforms.transforms.kernels.compiled import can_mix, mix_compiled
from genmix_transforms.transforms.kernels.cpu import mix_in_pieces
from genmix_transforms.transforms.kernels.cuda import mix_fused, triton_is_there
from genmix_transforms.transforms.kernels.eager import mix_plainly
from genmix_transforms.transforms.kernels.native import has_address
from genmix_transforms.transforms.kernels.units import Units


def mix_with_bank(
    images: Tensor,
    pixels: Tensor,
    drawn: Draw,
    units: Units,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """``(1 - lam) * images + lam * (pixels[index] * scale + shift)``, a lambda an image.

    All ways compute in float32 (float64 for float64 images) and round once, to the images' dtype; they differ by how
    the last bit of an intermediate is rounded.

    Args:
        images: ``(N, C, *spatial)``, floating-point, uint8 or uint16; any memory format.
        pixels: ``(B, C, *spatial)``, uint8 or uint16: the bank.
        drawn: lambdas and partners; ``from_batch`` says which of these are rows of ``images``.
        units: of the bank's pixels in the images' values.
        out: where to write; may be ``images`` itself. None: new memory.

    Returns:
        ``out``, or a tensor like ``images``. With gradients if the images require them; then ``out`` must be None.
    """
    # The fast ways write into memory of their own choice, which neither a compiler, nor autograd, nor a subclass that
    # watches every operation (a FakeTensor, MONAI's MetaTensor) can follow; some tensors (functionalize's) have none.
    if (
        type(images) is Tensor
        and not torch.compiler.is_compiling()
        and has_address(images)
        and not (images.requires_grad and torch.is_grad_enabled())
    ):
        if images.is_cpu:
            if out is None:
                out = torch.empty_like(images)
            way = mix_compiled if can_mix(images, pixels, out) else mix_in_pieces
            return way(images, pixels, drawn, units, out=out)
        if images.is_cuda and triton_is_there():
            return mix_fused(images, pixels, drawn, units, out=torch.empty_like(images) if out is None else out)
    mixed = mix_plainly(images, pixels, drawn, units)
    if out is None:
        return mixed
    out.copy_(mixed)
    return out
