"""A full StyleGAN training iteration: ours, beside that of an independent PyTorch port, interleaved in one process.

The rival is rosinality/style-based-gan-pytorch (MIT): give the path of its ``model.py``. Its networks are put together
from its own layers at the widths asked for, and stepped as its ``train.py`` does: R1 at every step, style mixing, Adam,
averaged generator. Its discriminator widens one convolution earlier than the published one, which costs it up to twice
the multiplications; so it is measured a second time with the published widths, still of its own layers. Same
resolution, widths, batch and number of channels (3, which it is written for); neither augments.

    python benchmarks/stylegan.py --rival style-based-gan-pytorch/model.py --threads 1 --batch-size 8

On a GPU, ours is also timed at the paper's widths at 64, 128 and 256 pixels, in seconds for 1,000 images; ``--only
kimg`` does that alone, and ``--only phases`` grows a small network, compiled, from one phase to the next.
"""

import argparse
import functools
import importlib.util
import math
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from findings import Findings, add_json_option
from timing import interleave, machine, median, processor_clock, ratios, table, wall_clock
from torch import Tensor, nn
from torch.nn import functional as F

from genmix_transforms.generators import StyleGAN
from genmix_transforms.generators.stylegan.layers import initialise
from genmix_transforms.generators.stylegan.schedule import channels_up_to, doublings
from genmix_transforms.generators.stylegan.settings import StyleGANSettings
from genmix_transforms.generators.stylegan.training import StyleGANTraining

LAZY = 16
NEVER = 10**9
PUBLISHED_S_PER_KIMG = {128: 6.79, 256: 12.53}  # stylegan3's docs/configs.md: StyleGAN2-ADA's networks, one A100


def ours(
    resolution: int,
    *,
    fmap_base: int,
    fmap_max: int,
    batch: int,
    r1: bool,
    device: torch.device,
    compiled: bool = False,
) -> Callable[[Tensor], None]:
    generator = StyleGAN(classes=["any"], channels=3, resolution=resolution, fmap_base=fmap_base, fmap_max=fmap_max)
    generator.to(device)
    settings = StyleGANSettings.of(
        {
            "steps": NEVER,
            "batch_size": batch,
            "gamma": 10.0,
            "r1_interval": 1 if r1 else NEVER,
            "start_resolution": resolution,
            "augment": (),
            "compiled": compiled,
        },
        name="benchmark",
    )
    discriminator = generator.new_discriminator().to(device)
    initialise(discriminator, seed=1)
    training = StyleGANTraining(generator.network, discriminator, settings=settings)
    seen = 0 if r1 else batch  # without R1: never the step that is due

    def step(images: Tensor) -> None:
        training.training_step(images, torch.zeros(len(images), dtype=torch.int64, device=device), seen)

    return step


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("rival", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"{path}: no such Python file; give the port's model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class PublishedBlock(nn.Module):
    """The published discriminator's block, of the port's layers."""

    def __init__(self, port: ModuleType, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(port.EqualConv2d(inputs, inputs, 3, padding=1), nn.LeakyReLU(0.2))
        self.conv2 = nn.Sequential(
            port.Blur(inputs),
            port.EqualConv2d(inputs, outputs, 3, padding=1),
            nn.AvgPool2d(2),
            nn.LeakyReLU(0.2),
        )

    def forward(self, values: Tensor) -> Tensor:
        conved: Tensor = self.conv2(self.conv1(values))
        return conved


def port_networks(port: ModuleType, widths: list[int], *, published: bool) -> tuple[nn.Module, nn.Module]:
    """The port's generator and discriminator with these widths, from 4 pixels on; fused from 128 on, as it does."""
    generator = port.StyledGenerator(512)
    blocks = [port.StyledConvBlock(widths[0], widths[0], 3, 1, initial=True)]
    for level in range(1, len(widths)):
        fused = level >= doublings(128)
        blocks.append(port.StyledConvBlock(widths[level - 1], widths[level], 3, 1, upsample=True, fused=fused))
    generator.generator.progression = nn.ModuleList(blocks)
    generator.generator.to_rgb = nn.ModuleList(port.EqualConv2d(width, 3, 1) for width in widths)
    discriminator = port.Discriminator(from_rgb_activate=True)
    down: list[nn.Module] = []
    for level in range(len(widths) - 1, 0, -1):
        sizes = (widths[level], widths[level - 1])
        fused = level >= doublings(128)
        down.append(
            PublishedBlock(port, *sizes) if published else port.ConvBlock(*sizes, 3, 1, downsample=True, fused=fused)
        )
    last = port.ConvBlock(widths[0] + 1, widths[0], 3, 1, 4, 0)
    discriminator.progression = nn.ModuleList([*down, last])
    discriminator.from_rgb = nn.ModuleList(
        nn.Sequential(port.EqualConv2d(3, width, 1), nn.LeakyReLU(0.2)) for width in widths[::-1]
    )
    discriminator.n_layer = len(widths)
    discriminator.linear = port.EqualLinear(widths[0], 1)
    return generator, discriminator


def rival(port: ModuleType, widths: list[int], *, published: bool, device: torch.device) -> Callable[[Tensor], None]:
    """The port's training iteration, as its train.py makes it with --loss r1 --mixing."""
    generator, discriminator = (network.to(device) for network in port_networks(port, widths, published=published))
    average, _ = (network.to(device) for network in port_networks(port, widths, published=published))
    average.load_state_dict(generator.state_dict())
    painter = torch.optim.Adam(generator.generator.parameters(), lr=0.001, betas=(0.0, 0.99))
    painter.add_param_group({"params": generator.style.parameters(), "lr": 0.00001})
    judge = torch.optim.Adam(discriminator.parameters(), lr=0.001, betas=(0.0, 0.99))
    level = len(widths) - 1

    def turn(network: nn.Module, on: bool) -> None:
        for parameter in network.parameters():
            parameter.requires_grad = on

    def latents(count: int) -> list[Tensor]:
        twice = 2 if random.random() < 0.9 else 1
        return [torch.randn(count, 512, device=device) for _ in range(twice)]

    def step(images: Tensor) -> None:
        discriminator.zero_grad()
        real_images = images.detach().clone().requires_grad_(True)
        scores = discriminator(real_images, step=level, alpha=1)
        F.softplus(-scores).mean().backward(retain_graph=True)
        (slope,) = torch.autograd.grad(scores.sum(), real_images, create_graph=True)
        (10 / 2 * (slope.view(len(slope), -1).norm(2, dim=1) ** 2).mean()).backward()
        first, second = latents(len(images)), latents(len(images))
        synthetic = generator(first, step=level, alpha=1)
        F.softplus(discriminator(synthetic, step=level, alpha=1)).mean().backward()
        judge.step()
        generator.zero_grad()
        turn(generator, True)
        turn(discriminator, False)
        F.softplus(-discriminator(generator(second, step=level, alpha=1), step=level, alpha=1)).mean().backward()
        painter.step()
        values = dict(generator.named_parameters())
        for name, value in average.named_parameters():
            value.data.mul_(0.999).add_(values[name].data, alpha=1 - 0.999)
        turn(generator, False)
        turn(discriminator, True)

    turn(generator, False)
    return step


def seconds_per_kimg(
    device: torch.device,
    *,
    mixed: bool,
    sizes: dict[str, int],
    resolutions: list[int],
    most: int,
    rounds: int,
    findings: Findings,
) -> None:
    """Ours, at the paper's widths where nothing else is said.

    Args:
        device: where.
        mixed: in bf16.
        sizes: the widths.
        resolutions: of which one row each.
        most: images in a batch; at 256 pixels half as many.
        rounds: of each kind of step.
        findings: what takes the numbers.
    """
    precision = "bf16" if mixed else "float32"
    print(f"\n### Seconds for 1,000 images, {precision}\n")
    print("| pixels | batch | s/kimg, R1 every step | s/kimg, every 16th | published | 560 kimg, every 16th |")
    print("| --- | --- | --- | --- | --- | --- |")
    for resolution in resolutions:
        batch = most // 2 if resolution >= 256 else most
        steps = {r1: ours(resolution, **sizes, batch=batch, r1=r1, device=device) for r1 in (True, False)}
        images = torch.rand(batch, 3, resolution, resolution, device=device) * 2 - 1

        def call(r1: bool, images: Tensor = images, steps: dict[bool, Any] = steps) -> None:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed):
                steps[r1](images)

        rivals = {"r1": partial(call, True), "plain": partial(call, False)}
        times = interleave(rivals, rounds=rounds, device=device)
        with_r1, plain = (median(times, name) for name in ("r1", "plain"))
        every, lazy = (1000 / batch * seconds for seconds in (with_r1, (with_r1 + (LAZY - 1) * plain) / LAZY))
        published = PUBLISHED_S_PER_KIMG.get(resolution)
        print(f"| {resolution} | {batch} | {every:.2f} | {lazy:.2f} | {published or ''} | {560 * lazy / 3600:.2f} h |")
        what = f"{resolution} px, {precision}"
        findings.add(f"{what}: s/kimg, R1 every step", every, "s")
        findings.add(f"{what}: s/kimg, R1 every {LAZY}th step", lazy, "s")
        if published is not None:
            findings.add(f"{what}: share of the published {published} s/kimg (A100)", lazy / published)


def compiled_phases(device: torch.device, *, batch: int, findings: Findings) -> None:
    """A small network at 8 pixels and in the fade to 16, compiled, R1 at every second step."""
    steps_a_phase = 4
    generator = StyleGAN(
        classes=["any"], channels=1, resolution=16, fmap_base=256, fmap_max=32, latent_size=32, mapping_layers=2
    ).to(device)
    settings = StyleGANSettings.of(
        {
            "steps": 3 * steps_a_phase,
            "batch_size": batch,
            "gamma": 10.0,
            "r1_interval": 2,
            "start_resolution": 8,
            "compiled": True,
        },
        name="benchmark",
    )
    discriminator = generator.new_discriminator().to(device)
    initialise(discriminator, seed=1)
    training = StyleGANTraining(generator.network, discriminator, settings=settings)
    images = torch.rand(batch, 1, 16, 16, device=device) * 2 - 1
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    clock = wall_clock(device)
    for phase, (begin, before, after) in enumerate(training.schedule.table()[:2]):
        name = f"phase {phase + 1}, {before} to {after} px" if before != after else f"phase {phase + 1}, {after} px"
        taken: list[float] = []
        losses: dict[str, Tensor] = {}
        for step in range(steps_a_phase):
            seen = begin + step * batch

            def call(seen: int = seen, losses: dict[str, Tensor] = losses) -> None:
                losses.update(training.training_step(images, labels, seen))

            taken.append(clock(call))
            broken = [loss for loss, value in losses.items() if not math.isfinite(float(value))]
            if broken:
                raise SystemExit(f"{name}, step {step}: not finite: {', '.join(broken)}")
        findings.add(f"{name}: s, the first two steps, compiling", sum(taken[:2]), "s")
        findings.add(f"{name}: ms a step afterwards", 1e3 * sum(taken[2:]) / len(taken[2:]), "ms")
        print(
            f"{name}: {sum(taken[:2]):.1f} s for the first two steps, then {1e3 * taken[-1]:.1f} ms a step", flush=True
        )
        findings.add(f"{name}: run compiled", "ok")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rival", type=Path, help="the port's model.py")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--fmap-base", type=int, default=8192)
    parser.add_argument("--fmap-max", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compiled", action="store_true", help="measure ours through torch.compile too")
    parser.add_argument("--processor-time", action="store_true", help="of one thread, for a machine that is busy")
    parser.add_argument("--only", choices=["kimg", "phases"], help="s for 1,000 images, or growing while compiled")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[64, 128, 256], help="of --only kimg")
    parser.add_argument("--backend", default="inductor", help="torch.compile's, of --only phases")
    add_json_option(parser)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if arguments.processor_time and (arguments.threads != 1 or arguments.device != "cpu"):
        parser.error("--processor-time is of one thread on the CPU")
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    random.seed(0)
    resolution, batch = arguments.resolution, arguments.batch_size
    sizes = {"fmap_base": arguments.fmap_base, "fmap_max": arguments.fmap_max}
    findings = Findings(arguments.json, device=device)
    if arguments.only == "phases":
        torch.compile = functools.partial(torch.compile, backend=arguments.backend)
        compiled_phases(device, batch=batch, findings=findings)
        return
    kimg = partial(seconds_per_kimg, device, sizes=sizes, resolutions=arguments.resolutions, findings=findings)
    if arguments.only == "kimg":
        print(machine(device))
        for mixed in (True, False):
            kimg(mixed=mixed, most=batch, rounds=arguments.rounds)
        return
    images = torch.rand(batch, 3, resolution, resolution, device=device) * 2 - 1
    steps: dict[str, Callable[[Tensor], None]] = {}
    if arguments.rival:
        port = load(arguments.rival)
        widths = channels_up_to(doublings(resolution), **sizes)
        steps["the port"] = rival(port, widths, published=False, device=device)
        steps["the port, published widths"] = rival(port, widths, published=True, device=device)
    for compiled in (False, True) if arguments.compiled else (False,):
        suffix = ", compiled" if compiled else ""
        for r1, name in ((True, "ours, with R1"), (False, "ours, no R1 in this step")):
            steps[name + suffix] = ours(resolution, **sizes, batch=batch, r1=r1, device=device, compiled=compiled)
    rivals = {name: partial(step, images) for name, step in steps.items()}
    clock = processor_clock() if arguments.processor_time else None
    times = interleave(rivals, rounds=arguments.rounds, device=device, clock=clock)
    widths_text = f"fmap_base {arguments.fmap_base}, fmap_max {arguments.fmap_max}"
    kind = "processor time" if arguments.processor_time else "wall-clock time"
    print(f"batch {batch} of 3 x {resolution} x {resolution}; {widths_text}; {kind}; {machine(device)}\n")
    against = [name for name in rivals if name.startswith("the port")] or ["ours, with R1"]
    print(table(times, against=against))
    for other in against if arguments.rival else []:
        every, plain = (sorted(ratios(times, f"ours, {kind}", other)) for kind in ("with R1", "no R1 in this step"))
        middle = len(every) // 2
        lazily = (every[middle] + (LAZY - 1) * plain[middle]) / LAZY
        print(f"\nR1 every step: {every[middle]:.2f} x {other}; every {LAZY}th step: {lazily:.2f} x {other}.")
    if device.type == "cuda":
        for mixed in (False, True):
            kimg(mixed=mixed, most=32, rounds=20)
    else:
        print("\nNo GPU here: seconds for 1,000 images on one are not measured.")


if __name__ == "__main__":
    main()
