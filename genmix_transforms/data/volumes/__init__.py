"""From scans to patches: DICOM series and NIfTI volumes with masks, cut into patches that name nobody.

Needs the extra ``volumes``: ``pip install "genmix-transforms[volumes]"``.
"""

from genmix_transforms.data.volumes.extracting import Extraction, extract_patches
from genmix_transforms.data.volumes.settings import PatchSettings

__all__ = ["Extraction", "PatchSettings", "extract_patches"]
