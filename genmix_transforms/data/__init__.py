"""Real patches in: folders, .npz, CSV manifests; lesions drawn by a model, with no files at all or into real livers."""

from genmix_transforms.data.few_labels import few_labels
from genmix_transforms.data.liver_simulator import LiverLesionSimulator
from genmix_transforms.data.liver_slices import LiverSlices
from genmix_transforms.data.multi_label import MultiLabelPatches
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.data.phantom import LesionPhantom
from genmix_transforms.data.readers import open_dataset

__all__ = [
    "LesionPhantom",
    "LiverLesionSimulator",
    "LiverSlices",
    "MultiLabelPatches",
    "PatchDataset",
    "few_labels",
    "open_dataset",
]
