"""What a sample holds: where its images and its labels are, which forms labels have, and what suits the bank."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import PIL.Image
import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten
from torchvision import tv_tensors

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.transforms.masks import find_masks

LabelsGetter = Literal["default"] | Callable[[Any], Any]

_REFUSED = (PIL.Image.Image, tv_tensors.BoundingBoxes, tv_tensors.Mask, tv_tensors.KeyPoints)
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.uint8, torch.uint16)


class Sample(NamedTuple):
    """A sample in parts, and where among them are the images and the labels."""

    flat: list[Any]
    """Its leaves, in order."""
    structure: TreeSpec | None
    """How they were nested; None: a tuple of them."""
    images: list[int]
    """The places of the images in ``flat``."""
    labels: int
    """The place of the labels in ``flat``."""
    masks: list[int]
    """The places of the masks in ``flat``; empty, if masks are not to be mixed."""

    def put_together(self) -> Any:
        """Return the leaves as they were nested."""
        return tuple(self.flat) if self.structure is None else tree_unflatten(self.flat, self.structure)


def take_apart(sample: Any, labels: Tensor, image_shape: tuple[int, ...], *, masks: bool = False) -> Sample:
    """Find images, labels and masks in a sample.

    Args:
        sample: anything nested of tuples, lists and dicts.
        labels: the very tensor in it that holds the labels.
        image_shape: ``(C, *spatial)`` of the bank's images.
        masks: whether there must be masks, ``tv_tensors.Mask``; else they are refused.

    Raises:
        InputError: the labels are not one of the sample's own tensors; and see :func:`find_images` and
            :func:`~genmix_transforms.transforms.masks.find_masks`.
    """
    pair = type(sample) is tuple and len(sample) == 2 and labels is sample[1] and not masks
    if pair and type(sample[0]) is type(labels) is Tensor:
        # The commonest sample needs no search: on a small batch that would take longer than the mix.
        return Sample(list(sample), None, [0], 1, [])
    if masks and isinstance(labels, tv_tensors.Mask):
        raise InputError(
            "GenMix: the labels are looked for in the sample's second place, and a Mask is there; give "
            "(images, labels, masks), or a dict with the key 'labels', or a function as labels_getter"
        )
    flat, structure = tree_flatten(sample)
    place = next((place for place, item in enumerate(flat) if item is labels), None)
    if place is None:
        raise InputError(
            "GenMix: labels_getter must return one of the sample's own tensors, not a new one made from it"
        )
    images = find_images(flat, labels, image_shape, masks=masks)
    return Sample(flat, structure, images, place, find_masks(flat, images=len(images)) if masks else [])


# Labels


def parse_labels_getter(labels_getter: LabelsGetter) -> Callable[[Any], Any]:
    """Return the function that finds the labels of a sample.

    Raises:
        InputError: neither "default" nor a function.
    """
    if labels_getter == "default":
        return find_labels
    if callable(labels_getter):
        return labels_getter
    raise InputError(f"GenMix: labels_getter must be 'default' or a callable, got {labels_getter!r}")


def find_labels(sample: Any) -> Any:
    """Find the labels by the rule of ``v2.MixUp``: the second item, or what a dict (either of the two) calls labels.

    In a dict they are under "labels" in any case, else under the first key with "label" in it.

    Raises:
        InputError: there are none, or what is in their place is no tensor.
    """
    if isinstance(sample, Tensor):
        raise InputError("GenMix: expected a sample of images and labels, got one tensor: genmix(images, labels)")
    if isinstance(sample, (tuple, list)):
        if len(sample) < 2:
            raise InputError(f"GenMix: expected a sample of images and labels, got {len(sample)} item(s)")
        sample = sample[1]
    if isinstance(sample, Tensor):
        return sample
    if isinstance(sample, Mapping):
        names = [key for key in sample if isinstance(key, str)]
        for key in [*(n for n in names if n.lower() == "labels"), *(n for n in names if "label" in n.lower())]:
            return sample[key]
    if isinstance(sample, (tuple, list)):
        raise InputError(f"GenMix: the labels must be a tensor, got a {type(sample).__name__}")
    raise InputError(
        "GenMix: could not tell where the labels are in the sample: expected (images, labels) or a dict with a "
        f"label-like key, got {type(sample).__name__}; pass a callable as labels_getter"
    )


def index_or_rows(labels: Tensor, *, num_classes: int) -> Tensor:
    """Bring labels into one of two forms: class indices, int64 ``(N,)``, or float32 rows ``(N, K)``.

    Values are not read.

    Raises:
        InputError: another shape, or floats ``(N,)``.
    """
    if labels.ndim == 2 and labels.shape[1] == 1 and num_classes != 1 and not labels.is_floating_point():
        labels = labels.squeeze(1)
    if labels.ndim == 2:
        if labels.shape[1] != num_classes:
            raise InputError(
                f"GenMix: labels of shape (N, K) must have a column a class, got {tuple(labels.shape)} "
                f"for {num_classes} classes"
            )
        return labels.float()
    if labels.ndim != 1:
        raise InputError(f"GenMix: labels must be of shape (N,) or (N, {num_classes}), got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise InputError(
            f"GenMix: labels of shape (N,) must be class indices, whole numbers, got {labels.dtype}; "
            f"give probabilities as (N, {num_classes})"
        )
    if labels.dtype == torch.bool and num_classes != 2:
        raise InputError(
            f"GenMix: booleans of shape (N,) can only be the labels of 2 classes, here are {num_classes}; "
            f"give class indices, or booleans of shape (N, {num_classes})"
        )
    return labels if labels.dtype == torch.int64 else labels.long()


def one_hot_table(num_classes: int, *, device: str | torch.device = "cpu") -> Tensor:
    """Make a row for each class, and a last one of NaN for what is no class: float32 ``(K + 1, K)``."""
    nothing = torch.full((1, num_classes), torch.nan, dtype=torch.float32, device=device)
    return torch.cat([torch.eye(num_classes, dtype=torch.float32, device=device), nothing])


def one_hot(labels: Tensor, table: Tensor, classes: Tensor) -> Tensor:
    """Look up the rows of class indices, float32 ``(N, K)``.

    Args:
        labels: int64 ``(N,)``.
        table: see :func:`one_hot_table`.
        classes: the same without the last row.

    Raises:
        InputError: on the CPU, an index out of range. Elsewhere it takes the table's last row, of NaN.
    """
    if not labels.is_cpu or torch.compiler.is_compiling():
        return table.index_select(0, no_class_last(labels, classes.shape[0]))
    try:
        return classes.index_select(0, labels)  # which reads the indices anyway
    except IndexError:
        low, high = (int(value) for value in labels.aminmax())
        raise InputError(
            f"GenMix: labels run from {low} to {high}, but there are {len(classes)} classes (0 to {len(classes) - 1})"
        ) from None


def no_class_last(labels: Tensor, num_classes: int) -> Tensor:
    """Make indices that can be looked up in a table of K + 1 rows: -1 and K, and what lies beyond them, become K."""
    return labels.clamp(-1, num_classes).remainder(num_classes + 1)


# Images


def find_images(flat: list[Any], labels: Tensor, image_shape: tuple[int, ...], *, masks: bool = False) -> list[int]:
    """Find the places of the images in a flattened sample, by the rule of ``v2.MixUp``.

    The images are every ``tv_tensors.Image`` and ``Video``. In a sample without those, the image is the first plain
    tensor with as many dimensions as a batch of the bank's images. Every other tensor passes through untouched.
    With ``masks``, ``tv_tensors.Mask`` is passed over instead of refused.

    Raises:
        InputError: no images; something that cannot be mixed (a mask, boxes, a PIL image); a first plain tensor that is
            probably a mask; or images that are not of the bank's shape, as many as the labels, or of a dtype that can
            be mixed.
    """
    for item in flat:
        if isinstance(item, _REFUSED) and not (masks and isinstance(item, tv_tensors.Mask)):
            raise InputError(
                f"GenMix: takes batches of images and class labels, got a {type(item).__name__}: masks, boxes, "
                "keypoints and PIL images cannot be mixed; leave them out of the sample. Masks can be, with "
                "GenMix(bank, masks='soft'), where the bank has masks too: SyntheticBank(images, labels, masks=...)"
            )
    wrapped = [place for place, item in enumerate(flat) if isinstance(item, (tv_tensors.Image, tv_tensors.Video))]
    if wrapped:
        return wrapped
    tensors = {
        place: item
        for place, item in enumerate(flat)
        if isinstance(item, Tensor) and item is not labels and not isinstance(item, tv_tensors.Mask)
    }
    if not tensors:
        raise InputError("GenMix: the sample holds labels but no images")
    plain = [place for place, item in tensors.items() if item.ndim == len(image_shape) + 1]
    if not plain:
        check_images(next(iter(tensors.values())), labels, image_shape)  # which says what is wrong with it
    first, *others = (flat[place] for place in plain)
    if not first.is_floating_point() and any(other.is_floating_point() for other in others):
        raise InputError(
            f"GenMix: cannot tell the image from a mask: the sample's first tensor of {first.ndim} dimensions is "
            f"{first.dtype}, and a later one is floating-point; wrap the image with tv_tensors.Image, or leave the "
            "mask out of the sample"
        )
    return plain[:1]


def check_images(images: Tensor, labels: Tensor, image_shape: tuple[int, ...]) -> None:
    """Check that these images can be mixed with the bank's. Values are not read.

    Args:
        images: the batch.
        labels: or anything else with a row an image.
        image_shape: ``(C, *spatial)`` of the bank's images.

    Raises:
        InputError: another shape, another number of images than labels, or a dtype that cannot be mixed.
    """
    if images.shape[1:] != image_shape:
        shape = ", ".join(map(str, image_shape))
        raise InputError(
            f"GenMix: the bank's images are {' x '.join(map(str, image_shape))} (C x spatial), the batch has shape "
            f"{tuple(images.shape)}; expected (N, {shape}): resize one to the other"
        )
    if images.shape[0] != labels.shape[0]:
        raise InputError(f"GenMix: one label for each image, got {images.shape[0]} images and {labels.shape[0]} labels")
    if images.dtype not in _DTYPES:
        raise InputError(
            f"GenMix: images must be float16, bfloat16, float32, float64, uint8 or uint16, got {images.dtype}: "
            "put v2.ToDtype(torch.float32, scale=True) before, or leave a mask out of the sample"
        )


def check_partners(partners: Tensor, bank: SyntheticBank, count: int) -> None:
    """Check that these are images of the bank, one a sample.

    Raises:
        InputError: another shape, type or device.
    """
    expected = ((count, *bank.image_shape), bank.pixel_dtype, bank.device)
    got = (tuple(partners.shape), partners.dtype, partners.device) if isinstance(partners, Tensor) else partners
    if got != expected:
        raise InputError(
            f"GenMix: params' partners must be the bank's images, {expected[0]} {expected[1]} on {expected[2]}, "
            f"got {got}; take them from bank.rows(params['index'])"
        )


def check_writable(images: Tensor) -> None:
    """Check that images can be mixed in place.

    Raises:
        InputError: they require gradients, or share memory with each other.
    """
    if images.requires_grad and torch.is_grad_enabled():
        raise InputError("GenMix: inplace=True cannot write into images that require gradients; leave it out")
    if not images.is_contiguous() and any(
        stride == 0 and size > 1 for stride, size in zip(images.stride(), images.shape, strict=True)
    ):
        raise InputError(
            "GenMix: inplace=True cannot write into an expanded batch, whose images share memory; give images.clone()"
        )
