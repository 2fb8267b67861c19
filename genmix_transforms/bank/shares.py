"""The former place of :mod:`genmix_transforms.bank.blending`; gone with the next release."""

import warnings

from genmix_transforms.bank.blending import ExactShares, shares

__all__ = ["ExactShares", "shares"]

warnings.warn("genmix_transforms.bank.shares is now genmix_transforms.bank.blending", DeprecationWarning, stacklevel=2)
