"""How long a classifier of the evaluation trains: ours, beside a loop as in torchvision's reference, interleaved.

    python benchmarks/evaluate_speed.py --data busi_128.npz --size 64 --threads 1

The reference loop (references/classification of torchvision, rebuilt here from its description): a DataLoader over the
images, v2 transforms one image at a time, a batch to the device at every step, loss and accuracy read with ``.item()``
at every step, images in their plain memory layout. Both train the same network from the same weights, with the same
optimiser and schedule, for the same steps and batch, and look at the validation part once. Ours holds the images on the
device as integers, makes values and augments there, lays images out channels last, and waits for the device only at
validations.

``side by side`` trains several seeds of the small network at once with ``torch.func.vmap``, one batch each: what the
package would do if that paid. Its time is for one seed.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace

import torch
from findings import Findings, add_json_option
from timing import WARM_UP_ROUNDS, Neighbours, interleave, machine, median, processor_clock, ratios, table
from torch import Tensor, nn
from torch.func import functional_call, grad, replace_all_batch_norm_modules_, stack_module_state, vmap
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.transforms import v2

from genmix_transforms.data import PatchDataset, open_dataset
from genmix_transforms.evaluation import Protocol, preset
from genmix_transforms.evaluation.arms import Setting
from genmix_transforms.evaluation.checks import prepare
from genmix_transforms.evaluation.classifiers import build_classifier
from genmix_transforms.evaluation.leakage import Splits
from genmix_transforms.evaluation.training import learning_rate_share, train_network

ARMS = ("baseline", "mixup", "classical")
SEEDS_SIDE_BY_SIDE = 5
BUILDING = "building the network"


class Images(Dataset[tuple[Tensor, int]]):
    """Patches one at a time, through transforms."""

    def __init__(self, patches: PatchDataset, transform: Callable[[Tensor], Tensor]) -> None:
        self.patches = patches
        self.transform = transform

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self.transform(self.patches.images[number]), int(self.patches.labels[number])


def new_network(splits: Splits, protocol: Protocol) -> nn.Module:
    channels, height, width = splits[0].images.shape[1:]
    return build_classifier(
        protocol.classifier,
        channels=channels,
        classes=len(splits[0].classes),
        size=(height, width),
        seed=0,
        weights=protocol.weights,
        input_size=protocol.input_size,
    )


def reference(arm: str, splits: Splits, setting: Setting, device: torch.device) -> None:
    """One training as torchvision's reference does it."""
    protocol, normalisation = setting.protocol, setting.normalisation
    values = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(normalisation.mean, normalisation.std)]
    side = splits[0].images.shape[-1]
    first = (
        [v2.RandomRotation(18), v2.RandomResizedCrop(side, scale=(0.7, 1.0)), v2.RandomHorizontalFlip()]
        if arm == "classical"
        else []
    )
    classes = len(splits[0].classes)
    batches = DataLoader(
        Images(splits[0], v2.Compose([*first, *values])),
        batch_size=protocol.batch_size,
        sampler=RandomSampler(splits[0], num_samples=protocol.steps * protocol.batch_size, replacement=True),
    )
    mixup = v2.MixUp(alpha=protocol.mixup_alpha, num_classes=classes) if arm == "mixup" else None
    network = new_network(splits, protocol).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=protocol.learning_rate, weight_decay=protocol.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: learning_rate_share(protocol, step))
    for images, labels in batches:
        if mixup is not None:
            images, labels = mixup(images, labels)
        images, labels = images.to(device), labels.to(device)
        output = network(images)
        loss = F.cross_entropy(output, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        hard = labels if labels.ndim == 1 else labels.argmax(dim=1)
        (output.argmax(dim=1) == hard).float().mean().item()
        loss.item()
    network.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in DataLoader(Images(splits[1], v2.Compose(values)), batch_size=128):
            correct += int((network(images.to(device)).argmax(dim=1) == labels.to(device)).sum().item())


def side_by_side(splits: Splits, setting: Setting, device: torch.device) -> Callable[[], None]:
    """Several seeds of the baseline at once; a call takes the share of one seed, a part of the steps."""
    protocol = setting.protocol
    networks = [
        replace_all_batch_norm_modules_(new_network(splits, protocol).to(device).train())
        for _ in range(SEEDS_SIDE_BY_SIDE)
    ]
    parameters, buffers = stack_module_state(networks)  # type: ignore[arg-type]
    weights = {name: value.detach() for name, value in parameters.items()}
    optimiser = torch.optim.AdamW(list(weights.values()), lr=protocol.learning_rate)
    images, labels = splits[0].images.to(device), splits[0].labels.to(device)
    scale, shift = setting.normalisation.unit(images)

    def loss_of(some: dict[str, Tensor], others: dict[str, Tensor], batch: Tensor, classes: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(networks[0], (some, others), (batch,)), classes)

    gradients = vmap(grad(loss_of), randomness="different")

    def train() -> None:
        for _ in range(max(1, protocol.steps // SEEDS_SIDE_BY_SIDE)):
            index = torch.randint(len(images), (SEEDS_SIDE_BY_SIDE, protocol.batch_size), device=device)
            batch = images[index] * scale + shift
            found = gradients(weights, buffers, batch, labels[index])
            for name, value in weights.items():
                value.grad = found[name]
            optimiser.step()

    return train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="phantom")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--classifiers", default="small,efficientnet_lite0")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--building", action="store_true", help="time that too, and take it off both: few steps of a large network"
    )
    parser.add_argument("--warm-up", type=int, default=WARM_UP_ROUNDS, help="rounds that are not counted")
    add_json_option(parser)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    findings = Findings(given.json, device=device)
    splits = open_dataset(given.data, size=given.size).split(seed=0)
    print(f"{splits[0]}; {given.steps} steps of {given.batch_size}, one validation; {machine(device)}")
    for classifier in given.classifiers.split(","):
        base = preset("small") if classifier == "efficientnet_lite0" else Protocol(classifier=classifier)
        protocol = replace(
            base, steps=given.steps, batch_size=given.batch_size, validate_every=given.steps, head_factor=1.0, tune=0
        )
        for arm in given.arms.split(","):
            setting = prepare((arm,), splits, {}, protocol, device=device)
            rivals: dict[str, Callable[[], object]] = {
                "ours": lambda arm=arm, setting=setting: train_network(arm, splits, setting, 0, device=device),
                "reference loop": lambda arm=arm, setting=setting: reference(arm, splits, setting, device),
            }
            if given.building:
                rivals[BUILDING] = lambda protocol=protocol: new_network(splits, protocol).to(device)
            elif classifier == "small" and arm == "baseline":
                rivals["side by side"] = side_by_side(splits, setting, device)
            neighbours = Neighbours()
            one_thread = device.type == "cpu" and given.threads == 1
            times = interleave(
                rivals,
                device=device,
                rounds=given.rounds,
                seconds=given.seconds,
                clock=processor_clock() if one_thread else None,
                warm_up=given.warm_up,
            )
            clock = "processor time of the one thread" if one_thread else "wall-clock time"
            print(f"\n### {classifier}, {arm}\n")
            print(table(times, against="ours"))
            print(f"\nA whole training, {clock}.{neighbours.crowd(given.threads)}")
            what = f"{classifier}, {arm}"
            findings.add(f"{what}: ms a step, validation included", 1e3 * median(times, "ours") / given.steps, "ms")
            faster = statistics.median(ratios(times, "reference loop", "ours"))
            findings.add(f"{what}: times as fast as the plain loop, network built in each", faster)
            if given.building:
                built = median(times, BUILDING)
                loops = [median(times, name) - built for name in ("reference loop", "ours")]
                without = loops[0] / loops[1] if loops[1] > 0 else "noise"
                findings.add(f"{what}: times as fast as the plain loop", without)
                print(f"Without what building takes, times as fast: {without}")


if __name__ == "__main__":
    main()
