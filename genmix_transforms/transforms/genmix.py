"""GenMix, the transform: real batches in, real batches mixed with synthetic partners out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar, overload

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.rows import check_same_window, check_window
from genmix_transforms.buffers import KeepsDtypes
from genmix_transforms.errors import InputError
from genmix_transforms.files.images import HIGHEST_PIXEL
from genmix_transforms.transforms import functional
from genmix_transforms.transforms.drawing import COLUMNS, Classes, Draw, Option, Options, Params, draw, draw_of
from genmix_transforms.transforms.masks import (
    Masks,
    check_masks,
    check_masks_option,
    check_partner_masks,
    soft_masks_like,
)
from genmix_transforms.transforms.mix import Units, can_be_array, fast_ways, mix
from genmix_transforms.transforms.output_memory import RecycledMemory
from genmix_transforms.transforms.pairing import Pairing, PairingRule
from genmix_transforms.transforms.pairing_names import Absent
from genmix_transforms.transforms.prefetching import Prefetched
from genmix_transforms.transforms.randomness import OwnGenerator, UniformSource
from genmix_transforms.transforms.sample import (
    LabelsGetter,
    check_images,
    check_partners,
    check_writable,
    index_or_rows,
    no_class_last,
    one_hot,
    one_hot_table,
    parse_labels_getter,
    take_apart,
)
from genmix_transforms.transforms.value_range import RangeCheck

Sample = TypeVar("Sample")


class MixesSamples(Protocol):
    """What a type checker knows of a call of :class:`GenMix`."""

    @overload
    def __call__(
        self, images: Tensor, labels: Tensor, /, *, params: Mapping[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]: ...
    @overload
    def __call__(self, sample: Sample, /, *, params: Mapping[str, Any] | None = None) -> Sample: ...
    @overload
    def __call__(
        self, first: Any, second: Any, third: Any, /, *inputs: Any, params: Mapping[str, Any] | None = None
    ) -> Any: ...


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
            Integer batches (uint8: 0 to 255) are not normalized, and are mixed as the bank's pixels are.
        std: likewise.
        class_counts: images of each class in the real data, ``{name: n}`` or in the order of the bank's classes, for
            ``pairing="inverse"``; None: what the bank records of its generator's training set.
        check_range: compare the first floating-point batch's values with the bank's, once.
        window: for CT, the Hounsfield units of the lowest and the highest value of the real images, such as
            ``patches.window``: a bank of another window is refused. None: nothing is compared.
        generator: of all draws, on the batch's device; None: torch's global one, as for every transform of torchvision.
            Its state is in ``state_dict()``. In a DataLoader's workers another takes its place, seeded by the worker's
            seed and this one's.
        labels_getter: a function from the sample to its labels, which must be one of its tensors; "default" finds them
            as ``v2.MixUp`` does.
        inplace: mix into the batch's own memory.
        masks: "soft": a sample has a segmentation mask for each image, a ``tv_tensors.Mask``; out come weights of the
            mask classes, mixed with the mask of the image's partner by the image's lambda. The bank must have masks.
            None: masks are refused.

    Raises:
        InputError: when built: values out of range, a pairing that draws from a class the bank has no images of, a bank
            of another window, or masks of a bank that has none.
            When called: a batch that does not fit the bank.

    Shape:
        Images ``(N, C, *spatial)``, float16, bfloat16, float32, float64, uint8 or uint16 (rounded), any N; the output
        has their shape, dtype and memory format. A sample's image is its first plain tensor of so many dimensions, as
        for ``v2.MixUp``; several images are ``tv_tensors.Image`` or ``Video``, and are mixed by one draw. All other
        tensors pass through.

        Masks, of M mask classes: whole numbers ``(N, *spatial)`` or ``(N, 1, *spatial)``, or weights
        ``(N, M, *spatial)``. They come out as a ``tv_tensors.Mask``, float32 ``(N, M, *spatial)``: always, also where
        nothing is mixed. ``torch.nn.functional.cross_entropy`` takes them as its target.

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

    alpha: Option[float] = Option[float]()
    p: Option[float] = Option[float]()
    per_sample: Option[bool] = Option[bool]()
    real_partner: Option[float] = Option[float]()

    __call__: MixesSamples  # nn.Module's own, which calls forward
    scale: Tensor
    shift: Tensor
    pairing_weights: Tensor
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
        absent: Absent = "error",
        real_partner: float = 0.0,
        p: float = 1.0,
        per_sample: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_counts: Mapping[str, int] | Sequence[int] | None = None,
        check_range: bool = True,
        window: tuple[float, float] | None = None,
        generator: torch.Generator | None = None,
        labels_getter: LabelsGetter = "default",
        inplace: bool = False,
        masks: Masks | None = None,
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
        check_same_window(bank.window, check_window(window), who="GenMix")
        if isinstance(class_counts, Mapping):
            missing = [name for name in bank.classes if name not in class_counts]
            if missing:
                raise InputError(f"GenMix: class_counts lacks {', '.join(missing)}")
            class_counts = [class_counts[name] for name in bank.classes]
        self.num_classes: int = bank.num_classes
        self.absent = absent
        self.inplace = inplace
        self.masks = check_masks_option(masks, bank)
        self._modules["bank"] = bank
        self._last: Mapping[str, Any] | None = None
        self._labels_getter = parse_labels_getter(labels_getter)
        self._image_shape = bank.image_shape
        self._uniform = UniformSource(generator)
        self._range_check = RangeCheck(enabled=check_range)
        self._memory = RecycledMemory() if fast_ways() else None
        self._pairing = PairingRule(pairing, bank, class_counts=class_counts, absent=absent)
        self.pairing: str = self._pairing.name
        self._options = replace(options, some_have_no_partner=absent == "skip")
        scale, shift = bank.unit(mean=mean, std=std)
        table = one_hot_table(bank.num_classes)
        for name, tensor in (
            ("scale", scale),
            ("shift", shift),
            ("pairing_weights", self._pairing.weights.float()),
            ("cumulative", self._pairing.weights.float()),  # computed below
            ("one_hot_table", table),
            ("one_hot", table[:-1].clone()),
        ):
            self.register_buffer(name, tensor.to(bank.device), persistent=False)
        self._follow_bank()

    def forward(self, *inputs: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Mix a sample: ``(images, labels)``, a dict, or anything nested that holds both.

        Args:
            inputs: the sample, as one object or as several.
            params: a draw to apply instead of a new one: the ``params`` of an earlier call with as many images, or what
                :meth:`draw` drew for this sample. With ``partners``, the images ``bank.rows(params["index"])``, and
                ``partner_masks``, ``bank.mask_rows(params["index"])``, the bank's are not read again.

        Returns:
            The sample, with images, labels and masks mixed, in the structure it came in.
        """
        # Find
        whole = inputs[0] if len(inputs) == 1 else inputs
        labels = self._labels_of(whole)
        sample = take_apart(whole, labels, self._image_shape, masks=self.masks is not None)
        images = [sample.flat[place] for place in sample.images]
        # Check
        given = self._checked(images, labels)
        for place in sample.masks:
            check_masks(sample.flat[place], given, self.bank)
        if not self.training:
            sample.flat[sample.labels] = self._soft(given)
            for place in sample.masks:
                sample.flat[place] = tv_tensors.Mask(soft_masks_like(sample.flat[place], given, self.bank))
            return sample.put_together()
        # Draw
        drawn = self.make_params([*images, given]) if params is None else dict(params)
        drawn["labels"] = given
        # Mix. Labels and masks first: one that is out of range is found before anything is written.
        sample.flat[sample.labels] = self.transform(given, drawn)
        for place in (*sample.masks, *sample.images):
            sample.flat[place] = self.transform(sample.flat[place], drawn)
        if not torch.compiler.is_compiling():
            self.__dict__["_last"] = drawn  # without nn.Module's look at what it might be
        return sample.put_together()

    def draw(self, *inputs: Any) -> dict[str, Tensor]:
        """Draw what a call with this sample would draw, without mixing it: ``params`` for :meth:`forward`, later."""
        labels = self._labels_of(inputs[0] if len(inputs) == 1 else inputs)
        given = self._checked([], labels)
        if given.is_cpu:
            self._soft(given)  # which says if one is out of range
        drawn = self.make_params([given])
        return {name: drawn[name] for name in Draw._fields}

    def prefetch(self, loader: Iterable[Any]) -> Prefetched:
        """Return the batches of a loader, mixed, and on the bank's device.

        While one is trained on, the partners of the next are read from disk and brought to the device on a stream of
        their own: for banks that are larger than the device's memory. See
        :class:`~genmix_transforms.transforms.prefetching.Prefetched`.
        """
        return Prefetched(self, loader)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw everything random. A subclass that overrides this decides who is mixed with whom, and how much.

        Args:
            flat_inputs: the sample's images, and the labels last: class indices ``(N,)``, or float rows ``(N, K)``.

        Returns:
            On the labels' device: ``lam``, float32 ``(N,)``, 0 where nothing is mixed; ``index``, int64 ``(N,)``, the
            partner's row in the bank or, where ``from_batch`` (bool ``(N,)``) is set, in the batch; and ``labels``,
            those given.
        """
        labels: Tensor = flat_inputs[-1]
        return Params(self._draw(labels), labels, bank_size=len(self.bank))

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Apply a draw to images, to masks or, given the very tensor ``params["labels"]``, to labels.

        Pure, if not inplace.

        Args:
            inpt: images ``(N, C, *spatial)``; masks, a ``tv_tensors.Mask``; or labels as :meth:`make_params` takes
                them.
            params: what :meth:`make_params` returned.

        Returns:
            The images mixed, of the same type, dtype and memory format; the masks mixed, a ``tv_tensors.Mask``, float32
            ``(N, M, *spatial)``; the labels mixed, float32 ``(N, K)``.

        Raises:
            InputError: a draw for another number of images, or with rows that the bank or the batch does not have.
        """
        drawn = draw_of(params, inpt.shape[0], bank_size=len(self.bank), device=inpt.device)
        if inpt is params["labels"]:
            return self._mix_labels(self._soft(index_or_rows(inpt, num_classes=self.num_classes)), drawn)
        if isinstance(inpt, tv_tensors.Mask):
            return self._mix_masks(inpt, drawn, params.get("partner_masks"))
        return self._mix_images(inpt, drawn, params.get("partners"))

    def extra_repr(self) -> str:
        """Say what ``print(genmix)`` shows."""
        return (
            f"alpha={self.alpha}, num_classes={self.num_classes}, pairing={self.pairing!r}, absent={self.absent!r}, "
            f"real_partner={self.real_partner}, p={self.p}, per_sample={self.per_sample}, inplace={self.inplace}"
            + ("" if self.masks is None else f", masks={self.masks!r}")
        )

    @property
    def bank(self) -> SyntheticBank:
        """The partners. Shapes, units and pairing follow from it: for another bank make a new GenMix."""
        return self._modules["bank"]  # type: ignore[return-value]

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "bank":  # which a property cannot refuse: nn.Module takes every module first
            raise InputError(
                "GenMix: the bank cannot be replaced: shapes, units and pairing follow from it; "
                "make a new one, GenMix(bank, ...)"
            )
        super().__setattr__(name, value)

    @property
    def params(self) -> dict[str, Tensor] | None:
        """What the last call drew: ``lam``, ``index`` and ``from_batch``, see :meth:`make_params`."""
        return None if self._last is None else {name: self._last[name] for name in Draw._fields}

    # Find and check

    def _labels_of(self, sample: Any) -> Tensor:
        labels = self._labels_getter(sample)
        if not isinstance(labels, Tensor):
            raise InputError(f"GenMix: the labels must be a tensor, got a {type(labels).__name__}")
        return labels

    def _checked(self, images: list[Any], labels: Tensor) -> Tensor:
        """Check that the sample fits the bank, and return the labels as indices or rows."""
        device = self.bank.device
        for batch in images:
            check_images(batch, labels, self._image_shape)
            if batch.device != device or labels.device != device:
                raise InputError(
                    f"GenMix: the batch's images are on {batch.device}, its labels on {labels.device}, the bank on "
                    f"{device}; bring them together, with genmix.to({str(batch.device)!r}) for the bank"
                )
        given = index_or_rows(labels, num_classes=self.num_classes)
        if images and self.training and self._range_check.pending and not torch.compiler.is_compiling():
            self._range_check(images[0], self.bank, self.scale, self.shift)
        return given

    def _soft(self, given: Tensor) -> Tensor:
        return given if given.ndim == 2 else one_hot(given, _buffer(self, "one_hot_table"), _buffer(self, "one_hot"))

    # Draw

    def _draw(self, labels: Tensor) -> Draw:
        """Draw for samples with these labels: class indices (in range, on the CPU), or rows."""
        uniform = self._uniform(labels.shape[0], COLUMNS, labels.device)
        size, classes = len(self.bank), self._classes()
        if not torch.compiler.is_compiling() and can_be_array(labels):
            arrays = None
            if classes is not None:
                self._soft(labels)  # which says if one is out of range
                arrays = Classes(*(table.numpy() for table in classes))
            lam, index, own = draw(uniform.numpy(), labels.numpy(), arrays, size, self._options)
            return Draw(torch.from_numpy(lam), torch.from_numpy(index), None if own is None else torch.from_numpy(own))
        if classes is not None and labels.ndim == 1:
            labels = no_class_last(labels, self.num_classes).clamp(max=self.num_classes - 1)
        return draw(uniform, labels.detach(), classes, size, self._options)

    def _classes(self) -> Classes | None:
        """Return the pairing's tables for what the bank holds now; None: every image equally often."""
        if self.pairing == "any":
            return None
        bank = self.bank
        if torch.compiler.is_compiling():  # a graph computes them: it cannot keep anything for later
            cumulative = self._pairing.cumulative(self.pairing_weights, bank.class_count)
        else:
            if self._bank_version != bank.version:
                self._follow_bank()
            cumulative = self.cumulative
        return Classes(cumulative, bank.class_start, bank.class_count)

    def _follow_bank(self) -> None:
        """Compute the pairing's table for what the bank holds now.

        Raises:
            InputError: the pairing draws from a class of which it has no images.
        """
        bank, rule = self.bank, self._pairing
        rule.check(bank)
        self.cumulative = rule.cumulative(rule.weights, bank.class_count.cpu()).to(bank.device)
        self._bank_version = bank.version

    # Mix

    def _mix_images(self, inpt: Any, drawn: Draw, partners: Tensor | None) -> Any:
        wrapped = isinstance(inpt, tv_tensors.TVTensor)
        images: Tensor = inpt.as_subclass(Tensor) if wrapped else inpt
        check_images(images, drawn.lam, self._image_shape)
        out = None
        if self.inplace:
            check_writable(images)
            out = images
        elif self._memory is not None and images.is_cpu and not images.requires_grad and type(images) is Tensor:
            out = self._memory.empty_like(images)
        if partners is None and self.bank.resident:
            pixels = self.bank.images
        else:
            pixels, drawn = self._partners(drawn, partners)
        mixed = mix(images, pixels, drawn, self._units_for(images.dtype), out)
        return tv_tensors.wrap(mixed, like=inpt) if wrapped else mixed

    def _units_for(self, dtype: torch.dtype) -> Units:
        scale, shift = _buffer(self, "scale"), _buffer(self, "shift")
        if dtype.is_floating_point:
            return Units(scale, shift)
        return Units.between_integers(scale, HIGHEST_PIXEL[dtype] / HIGHEST_PIXEL[self.bank.pixel_dtype])

    def _mix_labels(self, soft: Tensor, drawn: Draw) -> Tensor:
        lam, index, from_batch = drawn
        # Rows that are not meant for the bank (or the batch) look up row 0 there; what they find is not used.
        partners = self.bank.labels.index_select(0, index if from_batch is None else torch.where(from_batch, 0, index))
        if partners.ndim == 1:
            partners = _buffer(self, "one_hot").index_select(0, partners)
        if from_batch is not None:
            own = soft.index_select(0, torch.where(from_batch, index, 0))
            partners = torch.where(from_batch[:, None], own, partners)
        return functional.mix_labels(soft, partners, lam)

    def _mix_masks(self, inpt: tv_tensors.Mask, drawn: Draw, partners: Tensor | None) -> tv_tensors.Mask:
        if self.masks is None:
            raise InputError("GenMix: masks are mixed by GenMix(bank, masks='soft'), where the bank has masks")
        lam, index, from_batch = drawn
        soft = soft_masks_like(inpt.as_subclass(Tensor), lam, self.bank)
        rows = index if from_batch is None else torch.where(from_batch, 0, index)
        if partners is not None:
            check_partner_masks(partners, self.bank, len(index))
        else:
            held = self.bank.masks if self.bank.resident else None  # of a bank on disk that would read all
            partners = self.bank.mask_rows(rows) if held is None else held.index_select(0, rows)
        theirs = soft_masks_like(partners, lam, self.bank)
        if from_batch is not None:
            own = soft.index_select(0, torch.where(from_batch, index, 0))
            theirs = torch.where(from_batch.view(-1, *[1] * (soft.ndim - 1)), own, theirs)
        return tv_tensors.Mask(functional.mix_masks(soft, theirs, lam))

    def _partners(self, drawn: Draw, partners: Tensor | None) -> tuple[Tensor, Draw]:
        """Return the partners' images, one a sample, and the draw with its numbers for these."""
        lam, index, from_batch = drawn
        if partners is None:
            partners = self.bank.rows(index if from_batch is None else torch.where(from_batch, 0, index))
        else:
            check_partners(partners, self.bank, len(index))
        numbers = torch.arange(len(index), device=index.device)
        numbers = numbers if from_batch is None else torch.where(from_batch, index, numbers)
        return partners, Draw(lam, numbers, from_batch)


def _buffer(module: nn.Module, name: str) -> Tensor:
    """Return a buffer without nn.Module's attribute access, which shows on a small batch."""
    return module._buffers[name]  # type: ignore[return-value]
