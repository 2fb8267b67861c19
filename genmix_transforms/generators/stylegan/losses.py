"""StyleGAN's losses: non-saturating logistic, and R1."""

import torch
from torch import Tensor
from torch.nn import functional as F


def discriminator_loss(real: Tensor, synthetic: Tensor) -> Tensor:
    """``softplus(-D(x)) + softplus(D(G(z)))``, means over the batch, from logits ``(N,)``."""
    return F.softplus(-real.float()).mean() + F.softplus(synthetic.float()).mean()


def generator_loss(synthetic: Tensor) -> Tensor:
    """The non-saturating ``softplus(-D(G(z)))``, mean over the batch, from logits ``(N,)``."""
    return F.softplus(-synthetic.float()).mean()


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """The squared norm of the discriminator's gradient at real images, mean over the batch; differentiable.

    Args:
        logits: ``(N,)``, of ``images``, each of its own image alone but for the minibatch deviation.
        images: ``(N, C, H, W)``, what the discriminator was given; its gradient is on.

    Source: Mescheder, Geiger, Nowozin (arXiv 1801.04406), eq. (9), without the factor gamma / 2.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()
