"""One ADM training step: ours, beside one written as the original's, and beside ours with less memory; in turn.

The original's step, rebuilt here from its description (or, with ``--original``, from its own loss and diffusion): the
same network and AdamW, an average updated parameter by parameter, a gradient norm and losses read by the host. Ours
does the same work without the reads. Memory: on a GPU the peak within a step; on a CPU the bytes kept for the backward
pass.

    python benchmarks/adm_training.py --threads 1
    python benchmarks/adm_training.py --threads 1 --original guided-diffusion   # a checkout of openai/guided-diffusion
"""

import argparse
import copy
import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from adm import operations_of_a_pass
from findings import Findings, add_json_option
from timing import WARM_UP_ROUNDS, Neighbours, interleave, machine, matrix_rate, median, table
from torch import Tensor

from genmix_transforms.generators import ADM
from genmix_transforms.generators.adm.configuration import PRESETS
from genmix_transforms.generators.adm.loss import HybridLoss
from genmix_transforms.generators.adm.settings import ADMSettings
from genmix_transforms.generators.adm.timesteps import make_timesteps
from genmix_transforms.generators.adm.training import ADMTraining, prepare_for_tuning

CLASSES = ("normal", "benign", "malignant")

Batch = tuple[Tensor, Tensor]


def training_of(generator: ADM, device: torch.device, batch_size: int, **options: Any) -> ADMTraining:
    settings = ADMSettings.of({"steps": 1, "batch_size": batch_size, **options}, name="benchmark")
    network: Any = copy.deepcopy(generator.network).train().to(device)
    prepare_for_tuning(network, settings.tune)
    if settings.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    loss = HybridLoss(generator.schedule, device=device)
    timesteps = make_timesteps(settings.timesteps, loss.count, device=device)
    return ADMTraining(
        network, configuration=generator.configuration, settings=settings, loss=loss, timesteps=timesteps
    )


def ours(training: ADMTraining, batch: Batch, *, bf16: bool) -> Callable[[], object]:
    seen = 0

    def step() -> None:
        nonlocal seen
        with torch.autocast(batch[0].device.type, dtype=torch.bfloat16, enabled=bf16):
            training.training_step(*batch, seen)
        seen += len(batch[0])

    return step


def original(generator: ADM, device: torch.device, batch: Batch, *, checkout: Path | None) -> Callable[[], object]:
    network: Any = copy.deepcopy(generator.network).to(memory_format=torch.contiguous_format).train().to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.0)
    average = [parameter.detach().clone() for parameter in network.parameters()]
    images, labels = batch
    loss_of = original_loss(checkout, generator) if checkout else own_loss(generator, device)

    def model(noisy: Tensor, timesteps: Tensor, **labels: Tensor) -> Tensor:
        return network(noisy, timesteps, class_labels=labels["y"], return_dict=False)[0]

    def step() -> None:
        timesteps = torch.randint(0, generator.configuration.diffusion_steps, (len(images),), device=device)
        optimiser.zero_grad()
        losses = loss_of(model, images, timesteps, labels)
        losses.mean().backward()
        sum((parameter.grad**2).sum().item() for parameter in network.parameters())  # its grad_norm
        optimiser.step()
        for kept, value in zip(average, network.parameters(), strict=True):
            kept.mul_(0.9999).add_(value.detach(), alpha=0.0001)
        for loss, _ in zip(losses.tolist(), timesteps.tolist(), strict=True):
            float(loss)

    return step


def own_loss(generator: ADM, device: torch.device) -> Callable[..., Tensor]:
    loss = HybridLoss(generator.schedule, device=device)

    def losses(model: Callable[..., Tensor], images: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        added = torch.randn_like(images)
        squared, bits = loss(model(loss.noisy(images, added, timesteps), timesteps, y=labels), images, added, timesteps)
        assert bits is not None
        return squared + bits

    return losses


def original_loss(checkout: Path, generator: ADM) -> Callable[..., Tensor]:
    sys.path.insert(0, str(checkout))
    theirs = importlib.import_module("guided_diffusion.gaussian_diffusion")
    flags = generator.configuration
    diffusion = theirs.GaussianDiffusion(
        betas=theirs.get_named_beta_schedule(flags.noise_schedule, flags.diffusion_steps),
        model_mean_type=theirs.ModelMeanType.EPSILON,
        model_var_type=theirs.ModelVarType.LEARNED_RANGE,
        loss_type=theirs.LossType.MSE,
    )
    return lambda model, images, timesteps, labels: diffusion.training_losses(
        model, images, timesteps, model_kwargs={"y": labels}
    )["loss"]


def memory(step: Callable[[], object], training: ADMTraining | None, device: torch.device, batch: Batch) -> str:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return f"{torch.cuda.max_memory_allocated(device) / 2**20:,.0f} MiB at most"
    if training is None or training.settings.gradient_checkpointing:
        return ""  # what is computed again does not pass the hooks
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in training.network.parameters()}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    part = slice(0, -(-len(batch[0]) // training.settings.accumulate))
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        images, labels = batch[0][part], batch[1][part]
        training.losses(images, labels, torch.zeros(len(images), dtype=torch.int64), torch.randn_like(images))
    return f"{sum(kept.values()) / 2**20:,.0f} MiB kept"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configuration", default="small-32", choices=sorted(PRESETS))
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--original", type=Path, help="a checkout of openai/guided-diffusion")
    parser.add_argument("--warm-up", type=int, default=WARM_UP_ROUNDS, help="rounds that are not counted")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="rows by name, also on a CPU 'ours, bf16'")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add_json_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    findings = Findings(arguments.json, device=device)
    torch.manual_seed(0)
    generator = ADM(classes=CLASSES, configuration=arguments.configuration)
    count = arguments.batch_size
    batch = (
        torch.rand(count, *generator.image_shape, device=device) * 2 - 1,
        torch.arange(count, device=device) % len(CLASSES),
    )
    ways: dict[str, dict[str, Any]] = {
        "ours": {},
        "ours, gradient checkpointing": {"gradient_checkpointing": True},
        f"ours, {min(4, count)} parts": {"accumulate": min(4, count)},
        "ours, attention only": {"tune": "attention"},
    }
    if device.type == "cuda" or arguments.only:
        ways["ours, bf16"] = {"mixed_precision": "bf16"}
    theirs = "the original's step" if arguments.original else "a step as the original's"
    if arguments.only:
        unknown = [name for name in arguments.only if name not in (theirs, *ways)]
        if unknown:
            parser.error(f"--only: no row {unknown[0]!r}; there are {', '.join((theirs, *ways))}")
        ways = {name: options for name, options in ways.items() if name in arguments.only}
    steps = {}
    if not arguments.only or theirs in arguments.only:
        steps[theirs] = original(generator, device, batch, checkout=arguments.original)
    trainings = {name: training_of(generator, device, count, **options) for name, options in ways.items()}
    for name, training in trainings.items():
        steps[name] = ours(training, batch, bf16=training.settings.mixed_precision == "bf16")
    neighbours = Neighbours()
    times = interleave(steps, rounds=arguments.rounds, device=device, warm_up=arguments.warm_up)
    print(
        f"{arguments.configuration}, batch {count} of {' x '.join(map(str, generator.image_shape))}; {machine(device)}."
    )
    print(neighbours.crowd(arguments.threads).strip())
    print(table(times, against=next(iter(steps))))
    measure = partial(memory, device=device, batch=batch)
    for name, step in steps.items():
        values = times[name]
        if isinstance(values, str):
            continue
        said = measure(step, trainings.get(name))
        print(f"{name}: {count / min(values):.2f} images/s at best{', ' + said if said else ''}")
        findings.add(f"training, {name}: images/s", count / median(times, name))
        if said:
            findings.add(f"training, {name}: memory", said)
    if arguments.json and "ours, bf16" in steps:
        # Forward, and twice as much for the gradients of the images and of the weights.
        done = 3 * operations_of_a_pass(generator.configuration, count) / median(times, "ours, bf16")
        peak = matrix_rate(device)
        findings.add("training, ours, bf16: TFLOP/s", done / 1e12)
        findings.add("training, ours, bf16: share of the bf16 matrix rate", done / peak)
        print(f"ours, bf16: {done / 1e12:.1f} TFLOP/s, {done / peak:.0%} of the {peak / 1e12:.0f} that matrices reach")


if __name__ == "__main__":
    main()
