"""GenMix, the transform: real batches in, real batches mixed with synthetic partners out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from torchvision import tv_tensors
from torchvision.transforms import v2

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.buffers import KeepsDtypes
from genmix_transforms.errors import InputError
from genmix_transforms.files.images import HIGHEST_PIXEL
from genmix_transforms.transforms import functional
from genmix_transforms.transforms.drawing import COLUMNS, Classes, Draw, Options, draw, replayed
from genmix_transforms.transforms.first_use import FirstUse
from genmix_transforms.transforms.kernels import Units, mix_with_bank
from genmix_transforms.transforms.kernels.compiled import loop as mixing_loop
from genmix_transforms.transforms.kernels.compiled import numba_is_there
from genmix_transforms.transforms.kernels.compiled_draw import draw_and_mix_labels
from genmix_transforms.transforms.kernels.compiled_draw import loop as drawing_loop
from genmix_transforms.transforms.kernels.native import has_address
from genmix_transforms.transforms.labels import (
    LabelsGetter,
    index_or_rows,
    no_class_last,
    one_hot,
    one_hot_table,
    parse_labels_getter,
)
from genmix_transforms.transforms.memory import RecycledMemory
from genmix_transforms.transforms.own_generator import OwnGenerator
from genmix_transforms.transforms.pairing import Pairing, pairing_matrix
from genmix_transforms.transforms.prefetching import Prefetched
from genmix_transforms.transforms.randomness import UniformSource
from genmix_transforms.transforms.samples import check_images, check_partners, find_images

Value = TypeVar("Value")


class _Option(Generic[Value]):
    """One of the draw's constants, as an attribute that can be set at any time, and is checked when it is."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Value:
        return cast(Value, self if instance is None else getattr(instance._options, self._name))

    def __set__(self, instance: Any, value: Value) -> None:
        instance._options = replace(instance._options, **{self._name: value})


class GenMix(KeepsDtypes, OwnGenerator, v2.Transform):
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
        absent: what becomes of draws from a class that the bank has no images of: "error" (when built; names them),
            "redraw" (the row's other classes take its share) or "skip" (these samples stay unmixed).
        real_partner: the share of samples whose partner is another real image of the batch. 0 is Eq. (1); 0.5 is the
            paper's section 2 ("between real image data and the mixed data of real and synthetic images") where the bank
            is as large as the training set. An image that is alone in its batch is then its own partner.
        p: the probability that a sample (a batch, if not ``per_sample``) is mixed at all.
        per_sample: a lambda for each sample, or one for the batch.
        mean: of the ``v2.Normalize`` that the batch went through, one value a channel; None: the batch is in [0, 1].
            Integer batches (uint8: 0 to 255) are not normalised, and are mixed as the bank's pixels are.
        std: likewise.
        class_counts: images of each class in the real data, ``{name: n}`` or in the order of the bank's classes, for
            ``pairing="inverse"``; None: what the bank records of its generator's training set.
        check_range: compare the first floating-point batch's values with the bank's, once.
        generator: of all draws, on the batch's device; None: torch's global one, as for every transform of torchvision.
            Its state is in ``state_dict()``. In a DataLoader's workers another takes its place, seeded by the worker's
            seed and this one's.
        labels_getter: a function from the sample to its labels, which must be one of its tensors; "default" finds them
            as ``v2.MixUp`` does.
        inplace: mix into the batch's own memory.

    Raises:
        InputError: when built: values out of range, or a pairing that draws from a class the bank has no images of.
            When called: a batch that does not fit the bank.

    Shape:
        Images ``(N, C, *spatial)``, float16, bfloat16, float32, float64, uint8 or uint16 (rounded), any N; the output
        has their shape, dtype and memory format. Several image tensors in a sample are mixed by one draw.

    Attributes:
        params: what the last call drew, see :meth:`make_params`; given back as ``genmix(..., params=params)`` it is
            applied again, to the same bits. None before the first call; not kept under ``torch.compile``.

    Example:
        >>> images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> bank = SyntheticBank(images, torch.tensor([0, 0, 1, 1]), classes=["cyst", "metastasis"])
        >>> images, labels = GenMix(bank)(torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 1]))
        >>> images.shape, labels.shape, labels.dtype
        (torch.Size([3, 1, 8, 8]), torch.Size([3, 2]), torch.float32)
    """

    alpha = _Option[float]()
    p = _Option[float]()
    per_sample = _Option[bool]()
    real_partner = _Option[float]()

    scale: Tensor
    shift: Tensor
    cumulative: Tensor
    one_hot: Tensor
    one_hot_table: Tensor

    def __init__(
        self,
        bank: SyntheticBank,
        *,
        alpha: float = 0.3,
        num_classes: int | None = None,
        pairing: Pairing = "any",
        absent: str = "error",
        real_partner: float = 0.0,
        p: float = 1.0,
        per_sample: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_counts: Mapping[str, int] | Sequence[int] | None = None,
        check_range: bool = True,
        generator: torch.Generator | None = None,
        labels_getter: LabelsGetter = "default",
        inplace: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(bank, SyntheticBank):
            raise InputError(
                f"GenMix: bank must be a SyntheticBank, got {type(bank).__name__}; open one with SyntheticBank.load"
            )
        options = Options(alpha=alpha, p=p, per_sample=per_sample, real_partner=real_partner)
        if num_classes is not None and num_classes != bank.num_classes:
            raise InputError(
                f"GenMix: num_classes is {num_classes}, the bank has {bank.num_classes} classes "
                f"({', '.join(bank.classes)}); leave num_classes out, or re-map the bank with bank.with_classes([...])"
            )
        if isinstance(class_counts, Mapping):
            missing = [name for name in bank.classes if name not in class_counts]
            if missing:
                raise InputError(f"GenMix: class_counts lacks {', '.join(missing)}")
            class_counts = [class_counts[name] for name in bank.classes]
        self.num_classes = bank.num_classes
        self.pairing = pairing if isinstance(pairing, str) else "matrix"
        self.absent = absent
        self.inplace = inplace
        self.bank = bank
        self._last: Draw | None = None
        self._finds_labels = labels_getter == "default"
        self._labels_getter = parse_labels_getter(labels_getter)
        self._image_shape = bank.image_shape
        self._uniform = UniformSource(generator)
        self._first_use = FirstUse(enabled=check_range)
        self._memory = RecycledMemory()
        matrix = pairing_matrix(pairing, bank, class_counts=class_counts, absent=absent)
        self._options = replace(options, some_have_no_partner=bool((matrix.sum(dim=1) < 1 - 1e-5).any()))
        scale, shift = bank.unit(mean=mean, std=std)
        table = one_hot_table(bank.num_classes)
        for name, tensor in (
            ("scale", scale),
            ("shift", shift),
            ("cumulative", matrix.double().cumsum(dim=1).float()),
            ("one_hot_table", table),
            ("one_hot", table[:-1].clone()),
        ):
            self.register_buffer(name, tensor.to(bank.device), persistent=False)
        if bank.device.type == "cpu" and numba_is_there():
            # Before any worker is forked: they then share them.
            drawing_loop(soft_bank=bank.labels.ndim == 2)
            mixing_loop(torch.float32, bank.pixel_dtype, in_place=inplace)

    def forward(self, *inputs: Any, params: Mapping[str, Tensor] | None = None) -> Any:
        """Mix a sample: ``(images, labels)``, a dict, or anything nested that holds both.

        Args:
            inputs: the sample, as one object or as several.
            params: a draw to apply instead of a new one: the ``params`` of an earlier call with as many images, or what
                :meth:`draw` drew for this sample. With ``partners``, the images ``bank.rows(params["index"])``, the
                bank's are not read again.

        Returns:
            The sample, with images and labels mixed, in the structure it came in.
        """
        if len(inputs) == 2 and type(inputs[0]) is Tensor and type(inputs[1]) is Tensor and self._finds_labels:
            # The commonest sample needs no search: on a small batch that would take longer than the mix.
            (images,), labels = self._mix([inputs[0]], inputs[1], params)
            return images, labels
        sample = inputs[0] if len(inputs) == 1 else inputs
        flat, structure = tree_flatten(sample)
        labels = self._labels_of(sample)
        label_place = next((place for place, item in enumerate(flat) if item is labels), None)
        if label_place is None:
            raise InputError(
                "GenMix: labels_getter must return one of the sample's own tensors, not a new one made from it"
            )
        places = find_images(flat, labels, self._image_shape)
        mixed, flat[label_place] = self._mix([flat[place] for place in places], labels, params)
        for place, images in zip(places, mixed, strict=True):
            flat[place] = images
        return tree_unflatten(flat, structure)

    def draw(self, *inputs: Any) -> dict[str, Tensor]:
        """Draw what a call with this sample would draw, without mixing it: ``params`` for :meth:`forward`, later."""
        labels = self._labels_of(inputs[0] if len(inputs) == 1 else inputs)
        given = index_or_rows(labels, num_classes=self.num_classes)
        if given.ndim == 1:
            one_hot(given, self.one_hot_table, self.one_hot)  # which says if one is out of range
        return self._draw(given).as_dict()

    def prefetch(self, loader: Iterable[Any]) -> Prefetched:
        """The batches of a loader, mixed, and on the bank's device.

        While one is trained on, the partners of the next are read from disk and brought to the device on a stream of
        their own: for banks that are larger than the device's memory. See
        :class:`~genmix_transforms.transforms.prefetching.Prefetched`.
        """
        return Prefetched(self, loader)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw everything random.

        Args:
            flat_inputs: the labels last: class indices ``(N,)``, or float rows ``(N, K)``.

        Returns:
            On the labels' device: ``lam``, float32 ``(N,)``, 0 where nothing is mixed; ``index``, int64 ``(N,)``, the
            partner's row in the bank or, where ``from_batch`` (bool ``(N,)``) is set, in the batch; and ``labels``,
            those given.
        """
        labels: Tensor = flat_inputs[-1]
        return {**self._draw(labels).as_dict(), "labels": labels}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Apply a draw to images or, given the very tensor ``params["labels"]``, to labels. Pure, if not inplace."""
        # The compiled loops look at no bounds: what they are given has been looked at.
        drawn = self._replayed(params, inpt)
        if inpt is params["labels"]:
            return self._mix_labels(functional.soft_labels(inpt, num_classes=self.num_classes), drawn)
        check_images(inpt, drawn.lam, self._image_shape)
        return self._mix_images(inpt, drawn)

    def extra_repr(self) -> str:
        """What ``print(genmix)`` shows."""
        return (
            f"alpha={self.alpha}, num_classes={self.num_classes}, pairing={self.pairing!r}, absent={self.absent!r}, "
            f"real_partner={self.real_partner}, p={self.p}, per_sample={self.per_sample}, inplace={self.inplace}"
        )

    @property
    def params(self) -> dict[str, Tensor] | None:
        """What the last call drew: ``lam``, ``index`` and ``from_batch``, see :meth:`make_params`."""
        return None if self._last is None else self._last.as_dict()

    def _labels_of(self, sample: Any) -> Tensor:
        labels = self._labels_getter(sample)
        if not isinstance(labels, Tensor):
            raise InputError(f"GenMix: the labels must be a tensor, got a {type(labels).__name__}")
        return labels

    def _mix(self, several: list[Any], labels: Tensor, params: Mapping[str, Tensor] | None) -> tuple[list[Any], Tensor]:
        """The images mixed, all by one draw, and the labels as rows."""
        bank = self.bank
        device = _buffer(bank.content, "labels").device
        for images in several:
            check_images(images, labels, self._image_shape)
            if images.device != device or labels.device != device:
                self._refuse_devices(images, labels)
        given = index_or_rows(labels, num_classes=self.num_classes)
        compiling = torch.compiler.is_compiling()
        if self._first_use.pending and self.training and not compiling:
            self._first_use(several[0], bank, self.scale, self.shift)
        if self.training and params is None and not compiling and _on_host(given) and numba_is_there():
            drawn, soft = draw_and_mix_labels(
                self._uniform(given.shape[0], COLUMNS, given.device),
                given,
                _buffer(bank.content, "labels"),
                self._classes(),
                bank_size=len(bank),
                num_classes=self.num_classes,
                options=self._options,
            )
        else:
            soft = given if given.ndim == 2 else one_hot(given, self.one_hot_table, self.one_hot)
            if not self.training:
                return several, soft
            drawn = self._draw(given) if params is None else self._replayed(params, soft)
            soft = self._mix_labels(soft, drawn)
        partners = None if params is None else params.get("partners")
        mixed = [self._mix_images(images, drawn, partners) for images in several]
        if not compiling:
            self.__dict__["_last"] = drawn  # without nn.Module's look at what it might be
        return mixed, soft

    def _draw(self, labels: Tensor) -> Draw:
        """A draw for samples with these labels: class indices (in range, on the CPU), or rows."""
        size = len(self.bank)
        uniform = self._uniform(labels.shape[0], COLUMNS, labels.device)
        if not torch.compiler.is_compiling() and _on_host(labels):
            tables = self._classes()
            arrays = None if tables is None else Classes(*(table.numpy() for table in tables))
            return draw(uniform.numpy(), labels.numpy(), arrays, size, self._options)
        if labels.ndim == 1:
            labels = no_class_last(labels, self.num_classes).clamp(max=self.num_classes - 1)
        return draw(uniform, labels.detach(), self._classes(), size, self._options)

    def _classes(self) -> Classes | None:
        if self.pairing == "any":
            return None
        bank = self.bank
        return Classes(
            _buffer(self, "cumulative"), _buffer(bank.content, "class_start"), _buffer(bank.content, "class_count")
        )

    def _mix_images(self, inpt: Any, drawn: Draw, partners: Tensor | None = None) -> Any:
        wrapped = isinstance(inpt, tv_tensors.TVTensor)
        images: Tensor = inpt.as_subclass(Tensor) if wrapped else inpt
        out = None
        if self.inplace:
            _check_writable(images)
            out = images
        elif images.is_cpu and not images.requires_grad and type(images) is Tensor:
            out = self._memory.empty_like(images)
        pixels: Tensor | None = self.bank.content._buffers["pixels"]
        if pixels is None or partners is not None:
            pixels, drawn = self._partners(drawn, partners)
        mixed = mix_with_bank(images, pixels, drawn, self._units_for(images.dtype), out=out)
        return tv_tensors.wrap(mixed, like=inpt) if wrapped else mixed

    def _units_for(self, dtype: torch.dtype) -> Units:
        scale = _buffer(self, "scale")
        if dtype.is_floating_point:
            return Units(scale, _buffer(self, "shift"))
        levels = HIGHEST_PIXEL[dtype] / HIGHEST_PIXEL[self.bank.pixel_dtype]
        return Units.between_integers(scale, levels)

    def _mix_labels(self, soft: Tensor, drawn: Draw) -> Tensor:
        labels = _buffer(self.bank.content, "labels")
        lam, index, from_batch = drawn.tensors()
        # Rows that are not meant for the bank (or the batch) look up row 0 there; what they find is not used.
        partners = labels.index_select(0, index if from_batch is None else torch.where(from_batch, 0, index))
        if partners.ndim == 1:
            partners = self.one_hot.index_select(0, partners)
        if from_batch is not None:
            own = soft.index_select(0, torch.where(from_batch, index, 0))
            partners = torch.where(from_batch[:, None], own, partners)
        return functional.mix_labels(soft, partners, lam)

    def _partners(self, drawn: Draw, partners: Tensor | None) -> tuple[Tensor, Draw]:
        """The partners' images, one a sample, and the draw with its numbers for these."""
        lam, index, from_batch = drawn.tensors()
        if partners is None:
            partners = self.bank.rows(index if from_batch is None else torch.where(from_batch, 0, index))
        else:
            check_partners(partners, self.bank, len(index))
        numbers = torch.arange(len(index), device=index.device)
        numbers = numbers if from_batch is None else torch.where(from_batch, index, numbers)
        return partners, Draw(lam, numbers, from_batch)

    def _replayed(self, params: Mapping[str, Tensor], batch: Tensor) -> Draw:
        return replayed(params, batch.shape[0], bank_size=len(self.bank), device=batch.device)

    def _refuse_devices(self, images: Tensor, labels: Tensor) -> None:
        raise InputError(
            f"GenMix: the batch's images are on {images.device}, its labels on {labels.device}, the bank on "
            f"{self.bank.device}; bring them together, with genmix.to({str(images.device)!r}) for the bank"
        )


def _on_host(labels: Tensor) -> bool:
    """Whether these labels can be read in this process's memory, and nobody follows what is done with them."""
    plain = labels.is_cpu and type(labels) is Tensor and not labels.requires_grad and not labels.is_neg()
    return plain and has_address(labels)


def _check_writable(images: Tensor) -> None:
    if images.requires_grad and torch.is_grad_enabled():
        raise InputError("GenMix: inplace=True cannot write into images that require gradients; leave it out")
    if not images.is_contiguous() and any(
        stride == 0 and size > 1 for stride, size in zip(images.stride(), images.shape, strict=True)
    ):
        raise InputError(
            "GenMix: inplace=True cannot write into an expanded batch, whose images share memory; give images.clone()"
        )


def _buffer(module: nn.Module, name: str) -> Tensor:
    """A buffer, without nn.Module's attribute access, which shows on a small batch."""
    return module._buffers[name]  # type: ignore[return-value]
