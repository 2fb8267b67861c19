"""Real patches in: folders, .npz, CSV manifests; and the lesion phantom, which needs no files at all."""

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.data.phantom import LesionPhantom
from genmix_transforms.data.readers import open_dataset

__all__ = ["LesionPhantom", "PatchDataset", "open_dataset"]
