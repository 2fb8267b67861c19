"""One DCGAN training step: ours, beside one written as in the PyTorch DCGAN example, interleaved in one process.

The example's step, rebuilt here from its description: sigmoid and binary cross-entropy, two backward passes through
the discriminator, its weights' gradients computed again in the generator's step, unfused Adam, and five host reads of
losses and scores. Ours does more (an averaged generator always; augmentation where said) and is measured with and
without it. Both train the same networks (64 pixels, the example's widths) on the same real batch.

    python benchmarks/dcgan_step.py --threads 1 --batch-size 8
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from timing import interleave, machine, table
from torch import Tensor, nn

from genmix_transforms.generators import DCGAN
from genmix_transforms.generators.augmentation import POLICIES
from genmix_transforms.generators.dcgan.network import DCGANDiscriminator, initialise
from genmix_transforms.generators.dcgan.settings import DCGANSettings
from genmix_transforms.generators.dcgan.training import DCGANTraining


def ours(channels: int, *, augment: tuple[str, ...], device: torch.device) -> Callable[[Tensor], None]:
    generator = DCGAN(classes=["any"], channels=channels).to(device)
    discriminator = DCGANDiscriminator(channels=channels).to(device)
    initialise(discriminator, seed=1)
    training = DCGANTraining(
        generator.network, discriminator, settings=DCGANSettings.of({"augment": augment}, name="benchmark")
    )
    seen = 0

    def step(images: Tensor) -> None:
        nonlocal seen
        training.training_step(images, torch.zeros(len(images), dtype=torch.int64, device=device), seen)
        seen += len(images)

    return step


def example(channels: int, *, device: torch.device) -> Callable[[Tensor], None]:
    generator = DCGAN(classes=["any"], channels=channels).network.main.to(device).train()
    discriminator = DCGANDiscriminator(channels=channels)
    initialise(discriminator, seed=1)
    judge = nn.Sequential(discriminator.main, nn.Sigmoid()).to(device).train()
    judge_adam = torch.optim.Adam(judge.parameters(), lr=2e-4, betas=(0.5, 0.999))
    generator_adam = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    criterion = nn.BCELoss()

    def step(images: Tensor) -> None:
        count = len(images)
        real, fake = (torch.full((count,), value, device=device) for value in (1.0, 0.0))
        judge.zero_grad()
        output = judge(images).view(-1)
        real_loss = criterion(output, real)
        real_loss.backward()
        output.mean().item()
        synthetic = generator(torch.randn(count, 100, 1, 1, device=device))
        output = judge(synthetic.detach()).view(-1)
        fake_loss = criterion(output, fake)
        fake_loss.backward()
        output.mean().item()
        judge_adam.step()
        generator.zero_grad()
        output = judge(synthetic).view(-1)
        loss = criterion(output, real)
        loss.backward()
        output.mean().item()
        generator_adam.step()
        (real_loss + fake_loss).item()
        loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    images = torch.rand(arguments.batch_size, arguments.channels, 64, 64, device=device) * 2 - 1
    steps = {
        "the example's step": example(arguments.channels, device=device),
        "ours, no augmentation": ours(arguments.channels, augment=(), device=device),
        "ours, DiffAugment (default)": ours(arguments.channels, augment=POLICIES, device=device),
    }
    rivals = {name: partial(step, images) for name, step in steps.items()}
    print(f"batch {arguments.batch_size} of {arguments.channels} x 64 x 64; {machine(device)}")
    print(table(interleave(rivals, rounds=arguments.rounds, device=device), against="the example's step"))


if __name__ == "__main__":
    main()
