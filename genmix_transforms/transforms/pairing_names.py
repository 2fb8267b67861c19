"""The words that a pairing takes: apart from the matrices, so that a settings class can name them without torch."""

from typing import Literal

PairingName = Literal["any", "balanced", "same", "other", "inverse"]
"""The pairings that have a name, see :func:`genmix_transforms.transforms.pairing.pairing_matrix`."""

Absent = Literal["error", "redraw", "skip"]
"""What to do about a class that a pairing draws from and the bank has no images of."""
