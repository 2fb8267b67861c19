"""GenMix, the transform: real batches in, real batches mixed with synthetic partners out."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import PIL.Image
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torchvision import tv_tensors
from torchvision.transforms import v2

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.buffers import KeepsDtypes
from genmix_transforms.errors import InputError
from genmix_transforms.transforms import functional
from genmix_transforms.transforms.labels import LabelsGetter, parse_labels_getter
from genmix_transforms.transforms.pairing import Pairing, pairing_matrix

_REFUSED = (PIL.Image.Image, tv_tensors.BoundingBoxes, tv_tensors.Mask, tv_tensors.KeyPoints)


class GenMix(KeepsDtypes, v2.Transform):
    """Mix every image of a batch with a synthetic partner from a bank, and their labels likewise.

    ``x_T = lam * x_S + (1 - lam) * x_R``, ``y_T = lam * y_S + (1 - lam) * y_R``, ``lam ~ Beta(alpha, 1)``:
    Lee, Lee, Hong (arXiv 2405.20650), Eq. (1).

    .. note::
        Like ``v2.MixUp`` it takes *batches*: use it after the DataLoader, or in a ``collate_fn``.

    The labels go in as ``(N,)`` class indices or ``(N, K)`` probabilities and come out as float32 ``(N, K)``: always,
    also where nothing is mixed (``p=0``, ``eval()``). In ``eval()`` the images pass unchanged.

    Args:
        bank: the partners. It is moved to the batch's device by ``genmix.to(device)``.
        alpha: of Beta(alpha, 1). ``lam`` weights the *synthetic* image; its mean is ``alpha / (1 + alpha)``: 0.231 at
            0.3.
        num_classes: K; None: the bank's. Given, it must be the bank's.
        pairing: which classes partner which: "any" (as the bank is), "balanced" (all classes equally), "same", "other",
            "inverse" (the rarer in the real data, the oftener), or a row-stochastic matrix ``(K, K)``, row = class of
            the real image. A sample with soft labels takes the label-weighted row.
        real_partner: the share of samples whose partner is another real image of the batch. 0 is Eq. (1); 0.5 is the
            paper's section 2 ("between real image data and the mixed data of real and synthetic images") where the bank
            is as large as the training set. An image that is alone in its batch is then its own partner.
        p: the probability that a sample (a batch, if not ``per_sample``) is mixed at all.
        per_sample: a lambda for each sample, or one for the batch.
        mean: of the ``v2.Normalize`` that the batch went through, one value a channel; None: the batch is in [0, 1].
        std: likewise.
        class_counts: images of each class in the real data, ``{name: n}`` or in the order of the bank's classes, for
            ``pairing="inverse"``; None: what the bank records of its generator's training set.
        generator: of all draws, on the batch's device; None: torch's global one, as for every transform of torchvision.
        labels_getter: a function from the sample to its labels, which must be one of its tensors; "default" finds them
            as ``v2.MixUp`` does.
        inplace: mix into the batch's own memory.

    Raises:
        InputError: when built: values out of range, or a pairing that draws from a class the bank has no images of.
            When called: a batch that does not fit the bank.

    Shape:
        Images ``(N, C, *spatial)``, float16, bfloat16, float32 or float64, any N; the output has their shape and dtype.

    Example:
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> bank = SyntheticBank(images, torch.tensor([0, 0, 1, 1]), classes=["cyst", "metastasis"])
        >>> images, labels = GenMix(bank)(torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 1]))
        >>> images.shape, labels.shape, labels.dtype
        (torch.Size([3, 1, 8, 8]), torch.Size([3, 2]), torch.float32)
    """

    scale: Tensor
    shift: Tensor
    matrix: Tensor

    def __init__(
        self,
        bank: SyntheticBank,
        *,
        alpha: float = 0.3,
        num_classes: int | None = None,
        pairing: Pairing = "any",
        real_partner: float = 0.0,
        p: float = 1.0,
        per_sample: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_counts: Mapping[str, int] | Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        labels_getter: LabelsGetter = "default",
        inplace: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(bank, SyntheticBank):
            raise InputError(
                f"GenMix: bank must be a SyntheticBank, got {type(bank).__name__}; open one with SyntheticBank.load"
            )
        if not 0 < _number(alpha) < math.inf:
            raise InputError(f"GenMix: alpha must be a positive number, got {alpha!r}; the paper's is 0.3")
        for name, value in (("p", p), ("real_partner", real_partner)):
            if not 0 <= _number(value) <= 1:
                raise InputError(f"GenMix: {name} is a probability, from 0 to 1, got {value!r}")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise InputError(
                f"GenMix: generator must be a torch.Generator, got {type(generator).__name__}; "
                "from a seed: torch.Generator(device).manual_seed(seed)"
            )
        if num_classes is not None and num_classes != bank.num_classes:
            raise InputError(
                f"GenMix: num_classes is {num_classes}, the bank has {bank.num_classes} classes "
                f"({', '.join(bank.classes)}); leave num_classes out, or re-map the bank with bank.with_classes([...])"
            )
        self.alpha = float(alpha)
        self.num_classes = bank.num_classes
        self.pairing = pairing if isinstance(pairing, str) else "matrix"
        self.real_partner = float(real_partner)
        self.p = float(p)
        self.per_sample = per_sample
        self.inplace = inplace
        self.bank = bank
        self.generator = generator
        self._labels_getter = parse_labels_getter(labels_getter)
        if isinstance(class_counts, Mapping):
            missing = [name for name in bank.classes if name not in class_counts]
            if missing:
                raise InputError(f"GenMix: class_counts lacks {', '.join(missing)}")
            class_counts = [class_counts[name] for name in bank.classes]
        device = bank.images.device
        scale, shift = bank.unit(mean=mean, std=std)
        matrix = pairing_matrix(pairing, bank, class_counts=class_counts)
        for name, tensor in (("scale", scale), ("shift", shift), ("matrix", matrix)):
            self.register_buffer(name, tensor.to(device), persistent=False)

    def forward(self, *inputs: Any) -> Any:
        """Mix a sample: ``(images, labels)``, a dict, or anything nested that holds both."""
        sample = inputs[0] if len(inputs) == 1 else inputs
        flat, structure = tree_flatten(sample)
        refused = next((item for item in flat if isinstance(item, _REFUSED)), None)
        if refused is not None:
            raise InputError(
                f"GenMix: takes batches of images and class labels, got a {type(refused).__name__}: masks, boxes, "
                "keypoints and PIL images cannot be mixed"
            )
        labels = self._labels_getter(sample)
        if not isinstance(labels, Tensor):
            raise InputError(f"GenMix: the labels must be a tensor, got a {type(labels).__name__}")
        label_place = next((place for place, item in enumerate(flat) if item is labels), None)
        if label_place is None:
            raise InputError(
                "GenMix: labels_getter must return one of the sample's own tensors, not a new one made from it"
            )
        soft = functional.soft_labels(labels, num_classes=self.num_classes)
        image_places = self._image_places(flat, label_place)
        for place in image_places:
            self._check_images(flat[place], soft)
        if not self.training:
            flat[label_place] = soft
            return tree_unflatten(flat, structure)
        params = self.make_params([*(flat[place] for place in image_places), soft])
        for place in image_places:
            flat[place] = self.transform(flat[place], params)
        flat[label_place] = self.transform(soft, params)
        return tree_unflatten(flat, structure)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw everything random.

        Args:
            flat_inputs: the image batches, then the labels as float32 ``(N, K)``.

        Returns:
            On the labels' device: ``lam`` float32 ``(N,)``, 0 where nothing is mixed; ``index`` int64 ``(N,)``, the
            partner's row in the bank or, where ``from_batch`` (bool ``(N,)``) is set, in the batch; and ``labels``,
            those given.
        """
        labels: Tensor = flat_inputs[-1]
        count, device = len(labels), labels.device
        draws = count if self.per_sample else 1
        lam = functional.draw_lambda(draws, alpha=self.alpha, device=device, generator=self.generator)
        applied, kind = self._uniform(2, draws, device)
        class_draw, image_draw = self._uniform(2, count, device)
        lam = torch.where(applied < self.p, lam, 0.0).expand(count)
        from_batch = (
            (kind < self.real_partner).expand(count)
            if self.per_sample
            else self._uniform(1, count, device)[0] < self.real_partner
        )
        bank_index = functional.draw_partner(
            functional.row_of(labels, self.matrix),
            self.bank.class_start,
            self.bank.class_count,
            class_draw=class_draw,
            image_draw=image_draw,
        )
        # Any of the other images of the batch: 1 to N - 1 places on.
        steps = 1 + (image_draw * (count - 1)).long().clamp_(max=max(0, count - 2))
        batch_index = (torch.arange(count, device=device) + steps) % max(1, count)
        return {
            "lam": lam,
            "index": torch.where(from_batch, batch_index, bank_index),
            "from_batch": from_batch,
            "labels": labels,
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Apply a draw to images or, given the very tensor ``params["labels"]``, to labels. Pure, if not inplace."""
        lam, index, from_batch = params["lam"], params["index"], params["from_batch"]
        # Rows that are not meant for the bank (or the batch) look up row 0 there; what they find is not used.
        bank_index = torch.where(from_batch, 0, index)
        batch_index = torch.where(from_batch, index, 0)
        if inpt is params["labels"]:
            partners = functional.soft_labels(
                self.bank.labels.index_select(0, bank_index), num_classes=self.num_classes
            )
            if self.real_partner > 0:
                partners = torch.where(from_batch[:, None], inpt.index_select(0, batch_index), partners)
            return functional.mix_labels(inpt, partners, lam)
        images = inpt.as_subclass(Tensor) if isinstance(inpt, tv_tensors.TVTensor) else inpt
        partners = functional.dequantise(self.bank.images.index_select(0, bank_index), self.scale, self.shift)
        if self.real_partner > 0:
            choose = from_batch.view(-1, *[1] * (images.ndim - 1))
            partners = torch.where(choose, images.index_select(0, batch_index), partners)
        mixed = functional.mix_images(images, partners, lam)
        if images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous():
            mixed = mixed.contiguous(memory_format=torch.channels_last)
        if self.inplace:
            mixed = images.copy_(mixed)
        return tv_tensors.wrap(mixed, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else mixed

    def extra_repr(self) -> str:
        """What ``print(genmix)`` shows."""
        return (
            f"alpha={self.alpha}, num_classes={self.num_classes}, pairing={self.pairing!r}, "
            f"real_partner={self.real_partner}, p={self.p}, per_sample={self.per_sample}, inplace={self.inplace}"
        )

    def _uniform(self, rows: int, count: int, device: torch.device) -> Tensor:
        return torch.rand(rows, count, device=device, generator=self.generator)

    def _image_places(self, flat: list[Any], label_place: int) -> list[int]:
        """Where the images are: every ``tv_tensors.Image`` or ``Video``, else the first other plain tensor."""
        typed = [place for place, item in enumerate(flat) if isinstance(item, (tv_tensors.Image, tv_tensors.Video))]
        plain = [place for place, item in enumerate(flat) if isinstance(item, Tensor) and place != label_place]
        places = typed or plain[:1]
        if not places:
            raise InputError("GenMix: the sample holds labels but no images")
        return places

    def _check_images(self, images: Tensor, labels: Tensor) -> None:
        expected = self.bank.image_shape
        if tuple(images.shape[1:]) != expected:
            raise InputError(
                f"GenMix: the bank's images are {' x '.join(map(str, expected))} (C x spatial), the batch has shape "
                f"{tuple(images.shape)}; expected (N, {', '.join(map(str, expected))}): resize one to the other"
            )
        if len(images) != len(labels):
            raise InputError(f"GenMix: one label for each image, got {len(images)} images and {len(labels)} labels")
        if not images.is_floating_point():
            raise InputError(
                f"GenMix: images must be floating-point, got {images.dtype}; "
                "put v2.ToDtype(torch.float32, scale=True) before"
            )
        if images.device != self.bank.images.device or labels.device != images.device:
            raise InputError(
                f"GenMix: the batch's images are on {images.device}, its labels on {labels.device}, the bank on "
                f"{self.bank.images.device}; bring them together, with genmix.to({str(images.device)!r}) for the bank"
            )


def _number(value: object) -> float:
    """A Python or NumPy number as a float; anything else as NaN, which is in no range."""
    return float(value) if isinstance(value, Real) else math.nan
