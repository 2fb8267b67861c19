"""The features of real, synthetic and mixed images: what a classifier has made of them before its last layer."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.figures.mixing import check_alike, choose, hard_labels, in_unit, mix, rows_of
from genmix_transforms.evaluation.figures.style import KINDS
from genmix_transforms.evaluation.normalisation import Normalisation
from genmix_transforms.files.checks import check_seed, whole_number
from genmix_transforms.transforms import GenMix

_WITH_WEIGHTS = (nn.Linear, nn.modules.conv._ConvNd)


@dataclass(frozen=True, init=False, eq=False)
class FeaturePoints:
    """Images as points: for the t-SNE of one arm.

    Args:
        features: ``(N, D)``, one row an image.
        labels: ``(N,)``, class numbers.
        kinds: ``(N,)``, each "real", "synthetic" or "genmix".

    Raises:
        InputError: other shapes or kinds, or features that are not finite.

    Example:
        >>> len(FeaturePoints(features=np.eye(2), labels=[0, 1], kinds=["real", "synthetic"]))
        2
    """

    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    kinds: NDArray[np.str_]

    def __init__(self, *, features: ArrayLike, labels: ArrayLike, kinds: ArrayLike) -> None:
        rows, numbers, names = np.asarray(features, np.float64), np.asarray(labels), np.asarray(kinds, np.str_)
        if rows.ndim != 2 or numbers.shape != rows.shape[:1] or names.shape != rows.shape[:1]:
            raise InputError(
                "FeaturePoints: features (N, D), labels (N,) and kinds (N,) go together, got "
                f"{rows.shape}, {numbers.shape} and {names.shape}"
            )
        if not np.isfinite(rows).all():
            raise InputError("FeaturePoints: some features are not finite numbers")
        if not np.issubdtype(numbers.dtype, np.integer) or (numbers < 0).any():
            raise InputError(f"FeaturePoints: labels must be class numbers from 0 on, got {numbers.dtype}")
        if unknown := sorted(set(names.tolist()) - set(KINDS)):
            raise InputError(f"FeaturePoints: no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
        for name, value in (("features", rows), ("labels", numbers.astype(np.int64)), ("kinds", names)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.features)


def feature_points(
    network: nn.Module,
    train: PatchDataset,
    *,
    normalisation: Normalisation,
    bank: SyntheticBank | None = None,
    genmix: GenMix | None = None,
    most: int = 300,
    seed: int = 0,
) -> FeaturePoints:
    """Features of real images, of a bank's, and of what GenMix makes of those real images.

    Args:
        network: a trained classifier.
        train: the real images; all classes go into one batch of the mix.
        normalisation: that the network was trained with.
        bank: of synthetic images, with the classes of ``train`` in any order; None: none are shown.
        genmix: in whatever normalization it was built for; None: no mixed images.
        most: of each kind, drawn from the classes as often as they are there.
        seed: of that choice and of the mix.

    Returns:
        The real, then the synthetic, then the mixed. A mixed image counts for the class that has the largest share of
        its label.

    Raises:
        InputError: classes or shapes that do not fit together, or numbers out of range.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> train = PatchDataset(images=torch.zeros(6, 1, 8, 8, dtype=torch.uint8), labels=torch.arange(6) % 2,
        ...                      classes=("cyst", "metastasis"))
        >>> points = feature_points(network, train, normalisation=Normalisation(mean=(0.5,), std=(0.5,)))
        >>> points.features.shape
        (6, 64)
    """
    most, seed = whole_number(most, name="most", least=1), check_seed(seed)
    if not len(train):
        raise InputError("feature_points: no real images")
    if genmix is not None:
        check_alike(train, genmix.bank, what="genmix")
    if bank is not None:
        bank = bank.with_classes(train.classes)
        check_alike(train, bank, what="the bank")
    random = np.random.default_rng(seed)
    chosen = _some(len(train), most, random)
    images, labels = train.images[chosen], train.labels[chosen]
    groups: list[tuple[str, Tensor, Tensor]] = [("real", in_unit(images), labels)]
    if bank is not None:
        drawn = _some(len(bank), most, random)
        groups.append(("synthetic", in_unit(rows_of(bank, drawn)), hard_labels(bank)[drawn]))
    if genmix is not None:
        mixed = mix(images, labels, genmix, seed=seed % 2**32)
        groups.append(("genmix", mixed.values, mixed.labels.argmax(dim=1)))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (normalisation.mean, normalisation.std))
    return FeaturePoints(
        features=torch.cat([features(network, (values - mean) / std) for _, values, _ in groups]).numpy(),
        labels=torch.cat([numbers for *_, numbers in groups]).numpy(),
        kinds=np.repeat([kind for kind, *_ in groups], [len(values) for _, values, _ in groups]),
    )


@torch.no_grad()
def features(network: nn.Module, images: Tensor, *, batch_size: int = 128) -> Tensor:
    """The input of the network's last layer: a row of features for each image.

    The last layer is the ``nn.Linear`` or convolution that runs last, whatever its name; where it sees a map of
    features (SqueezeNet), the mean over the map is taken.

    Args:
        network: any classifier: :class:`~genmix_transforms.evaluation.classifiers.SmallClassifier`, torchvision's,
            EfficientNet-Lite. It works in ``eval()`` and is back in its mode afterwards.
        images: normalized as for training, float ``(N, C, H, W)``; each batch is moved to the network's device.
        batch_size: images at a time.

    Returns:
        float32 ``(N, D)``, on the CPU.

    Raises:
        InputError: no images, or a network without such a layer.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> features(network, torch.zeros(5, 1, 2, 2)).shape
        torch.Size([5, 3])
    """
    batch_size = whole_number(batch_size, name="batch_size", least=1)
    if images.ndim != 4 or not len(images) or not images.is_floating_point():
        raise InputError(
            f"features: images must be float (N, C, H, W), N at least 1, got {images.dtype} {tuple(images.shape)}"
        )
    last: list[Tensor] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        last[:] = [inputs[0]]

    layers = [module for module in network.modules() if isinstance(module, _WITH_WEIGHTS)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    modes = {module: module.training for module in network.modules()}
    weight = next(network.parameters(), None)
    found = []
    try:
        network.eval()
        for batch in images.split(batch_size):
            last.clear()
            network(batch if weight is None else batch.to(weight.device, weight.dtype))
            if not last:
                raise InputError("features: the network has no linear layer and no convolution to take the input of")
            rows = last[0].flatten(2).mean(dim=2) if last[0].ndim > 2 else last[0]
            found.append(rows.float().cpu().clone())
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return torch.cat(found)


def _some(count: int, most: int, random: np.random.Generator) -> Tensor:
    return choose(torch.ones(count, dtype=torch.bool), most, random).sort().values
