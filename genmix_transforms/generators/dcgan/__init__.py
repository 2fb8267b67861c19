"""DCGAN: Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional GANs" (2015)."""

from genmix_transforms.generators.dcgan.checkpoint import convert_dcgan
from genmix_transforms.generators.dcgan.generator import DCGAN

__all__ = ["DCGAN", "convert_dcgan"]
