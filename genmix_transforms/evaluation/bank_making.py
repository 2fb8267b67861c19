"""Make a bank for each training set of a comparison, with a generator trained only on that set; resumable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.sharing import take_turns
from genmix_transforms.files.images import fit_images
from genmix_transforms.generators.arguments import shape_of
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.filling import fill_bank
from genmix_transforms.generators.per_class import PerClass
from genmix_transforms.generators.registry import generator_class
from genmix_transforms.generators.soft_labels import check_concentration

_INVERSION = "textual-inversion"

RESIZED_FROM = "resized_from"
"""Key of a bank's provenance: the side in pixels at which its generator was trained, where that is not the bank's."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a bank is made for a training set.

    Args:
        kind: of generator, as ``genmix train`` knows it: "dcgan", "stylegan", "adm", ...
        network: options of its constructor, without the classes, the size and the channels.
        training: options of its ``fit``.
        size: side in pixels at which it is trained; its images are then resized to the patches' size. None: the
            patches' size.
        per_class: train one network per class, as the paper does with its GANs.
        weights: a folder with a pre-trained generator of that kind, to fine-tune; None: from scratch.
        soft: draw the bank's images from soft labels with this concentration, see ``fill_bank``; None: labels of one
            class.

    Raises:
        InputError: ``network`` or ``per_class`` together with ``weights``, which determine the network; ``per_class``
            together with ``soft``, because each network has one class.
    """

    kind: str
    network: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    size: int | None = None
    per_class: bool = False
    weights: str | Path | None = None
    soft: float | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and (self.network or self.per_class):
            raise InputError("Recipe: give weights to fine-tune, or network and per_class, not both")
        if self.soft is not None:
            check_concentration(self.soft, name="Recipe: soft")
            if self.per_class:
                raise InputError(f"Recipe: give soft or per_class, not both: {PerClass.refuses_soft_labels}")

    def starting_from(self, weights: str | Path) -> "Recipe":
        """The same, from pre-trained weights: those to fine-tune, or those that a Textual Inversion stands on."""
        if self.kind == _INVERSION:
            return replace(self, network={**self.network, "base": str(weights)})
        return replace(self, weights=weights, network={}, per_class=False)

    def untrained(self, dataset: PatchDataset) -> Generator:
        """The generator before its training, for patches such as these."""
        maker = generator_class(self.kind)
        if self.weights is not None:
            return maker.adapted_to(self.weights, dataset)
        if self.per_class:
            shape = shape_of(dataset, painter=maker.__name__, volumes=maker.draws_volumes)
            return PerClass.of(maker, classes=dataset.classes, **shape, **self.network)
        return maker.for_patches(dataset, **self.network)


def make_banks(
    training_parts: Sequence[PatchDataset],
    recipes: Mapping[str, Recipe],
    *,
    out: str | Path,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> list[dict[str, SyntheticBank]]:
    """Train every generator on the training part of every fold, and fill a bank with each.

    Run it again with the same arguments to continue where it stopped. Several processes with the same folder share the
    work: each takes what no other is working on, and all return all banks.

    Args:
        training_parts: the training part of each fold.
        recipes: the generators by the names of their banks.
        out: a folder; generators are stored in ``fold-0/runs/NAME``, banks in ``fold-0/banks/NAME``.
        seed: of the trainings and of the images.
        device: None: CUDA if available.
        progress: show bars.

    Returns:
        For each fold, the banks by name, see :func:`make_bank`.

    Raises:
        InputError: data or options that do not match a generator, or folders that hold something else.
    """
    folders = [Path(out) / f"fold-{number}" for number in range(len(training_parts))]
    # Generator by generator: stopped half way, one of them has its banks for all folds.
    jobs = [(number, name) for name in recipes for number in range(len(folders))]
    made: list[dict[str, SyntheticBank]] = [{} for _ in folders]

    def lock(job: tuple[int, str]) -> Path:
        return folders[job[0]] / f"{job[1]}.lock"

    for number, name in take_turns(jobs, lock=lock):
        run, bank = (folders[number] / kind / name for kind in ("runs", "banks"))
        made[number][name] = make_bank(
            training_parts[number], recipes[name], run=run, bank=bank, seed=seed, device=device, progress=progress
        )
    return [{name: banks[name] for name in recipes} for banks in made]


def make_bank(
    train: PatchDataset,
    recipe: Recipe,
    *,
    run: str | Path,
    bank: str | Path,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> SyntheticBank:
    """Train a generator on a training set, and fill a bank with as many images of each class as the set has.

    Run it again with the same arguments to continue where it stopped.

    Args:
        train: the training part of a split, or of one fold.
        recipe: which generator, and how long.
        run: the generator's folder.
        bank: the bank's folder, at the size the generator was trained at.
        seed: of the generator's training and of the images.
        device: None: CUDA if available.
        progress: show bars.

    Returns:
        The bank, at the size of the patches; its provenance has the fingerprint of the generator's training set.

    Raises:
        InputError: data or options that do not match the generator, or folders that hold something else.

    Example:
        >>> from genmix_transforms.data import LesionPhantom
        >>> phantom = LesionPhantom(size=32, train=(4, 2, 3), val=(1, 1, 1), test=(1, 1, 1)).dataset()
        >>> train, _, _ = phantom.split()
        >>> recipe = Recipe(kind="dcgan", network={"base_width": 4}, training={"steps": 2, "batch_size": 4}, size=16)
        >>> made = make_bank(train, recipe, run="runs/tiny", bank="banks/tiny", progress=False)  # doctest: +SKIP
        >>> made.class_counts, made.image_shape  # doctest: +SKIP
        ({'cyst': 4, 'hemangioma': 2, 'metastasis': 3}, (1, 32, 32))
    """
    side, *others = train.images.shape[2:]
    if any(other != side for other in others):
        shape = "x".join(map(str, (side, *others)))
        raise InputError(f"{train.name}: the patches are {shape}, and generators draw squares or cubes: resize them")
    at_size = train if recipe.size is None else train.resized(recipe.size)
    generator = recipe.untrained(at_size)
    warm = {} if recipe.weights is None else {"warm_start": True}
    # A finished training is only checked and loaded.
    generator.fit(at_size, out=run, seed=seed, device=device, progress=progress, **warm, **recipe.training)
    filled = fill_bank(generator, counts=train.class_counts, out=bank, seed=seed, soft=recipe.soft, progress=progress)
    return resized_bank(filled, side)


def resized_bank(bank: SyntheticBank, size: int) -> SyntheticBank:
    """The bank with its images at ``size`` x ``size`` pixels, in memory; its provenance says from which side.

    Volumes become cubes of that side.

    Example:
        >>> import torch
        >>> images = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
        >>> small = SyntheticBank(images, torch.tensor([0, 1]), classes=["cyst", "metastasis"])
        >>> resized_bank(small, 32).image_shape
        (1, 32, 32)
    """
    sides = bank.image_shape[1:]
    if all(side == size for side in sides):
        return bank
    return bank.replace(
        images=fit_images(bank.images, size),
        provenance=[{RESIZED_FROM: max(sides), **source} for source in bank.sources],
    )
