"""Weights from elsewhere: the checkpoints of OpenAI's guided-diffusion."""

from genmix_transforms.generators.adm.convert.guided_diffusion import Checkpoint, read_checkpoint

__all__ = ["Checkpoint", "read_checkpoint"]
