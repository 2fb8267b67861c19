"""A training step of Textual Inversion: ours, ours without what is computed once, and the diffusers example's; in turn.

The base model has the shapes of CompVis/ldm-text2im-large-256, scaled down so that autoencoder, text encoder and U-Net
keep their shares of the arithmetic, and random weights. Then sampling at 20 steps beside 50.

    python benchmarks/textual_inversion.py --threads 1
    python benchmarks/textual_inversion.py --full-size     # the published shapes; a GPU

The example is ``examples/textual_inversion/textual_inversion.py`` of huggingface/diffusers (58eb52c, Apache-2.0), its
step written anew on the same base model, without accelerate and without reading images from files, which would cost it
more: images encoded and one prompt an image at every step, dropout in the text encoder, AdamW on the whole embedding
table, and the rows that should not have moved copied back.
"""

import argparse
import copy
import random
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from diffusers import DDPMScheduler
from findings import Findings, add_json_option
from ldm_shapes import (
    PIECES,
    PUBLISHED,
    SCALED,
    TINY,
    Shapes,
    count_operations,
    count_parameters,
    open_shapes,
    shares,
    step_operations,
)
from timing import WARM_UP_ROUNDS, Neighbours, Times, interleave, machine, median, processor_clock, ratios, table
from torch import Tensor
from torch.nn import functional as F

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.generators import TextualInversion
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.textual_inversion.network import LatentDiffusion
from genmix_transforms.generators.textual_inversion.settings import TextualInversionSettings
from genmix_transforms.generators.textual_inversion.training import TextualInversionTraining, resolve_settings

CLASSES = ("normal", "benign", "malignant", "lesion")
EXAMPLE = "the example's step"
NOTHING = "ours, nothing computed once"
CACHED = "ours, latents cached"
OURS = "ours"


class PromptAnImage(TextualInversionTraining):
    """Ours, with every image's prompt encoded by itself."""

    def choose_prompts(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        distinct, which = super().choose_prompts(classes)
        return distinct[which], torch.arange(len(classes))


def training_of(
    kind: type[TextualInversionTraining],
    generator: TextualInversion,
    images: Tensor,
    labels: Tensor,
    *,
    cached: bool,
) -> TextualInversionTraining:
    """A training whose every step has all images, in their order."""
    given = {"steps": 1, "batch_size": len(labels), "cache_latents": cached}
    processes = Processes(0, 1, generator.model.device)
    settings = TextualInversionSettings.of(given, name="benchmark")
    return kind(
        generator.model,
        embeddings=generator.embeddings,
        prompts=generator.prompt_ids(),
        dataset=PatchDataset(images=images, labels=labels, classes=generator.classes, name="random"),
        order=lambda start, stop: torch.arange(len(labels)),
        settings=resolve_settings(settings, generator.model, warm_start=False, processes=processes),
        processes=processes,
    )


def ours(
    generator: TextualInversion, images: Tensor, labels: Tensor, *, cached: bool, shared: bool, bf16: bool
) -> Callable[[], object]:
    kind = TextualInversionTraining if shared else PromptAnImage
    training = training_of(kind, generator, images, labels, cached=cached)
    training.prepare(progress=False)
    device = generator.model.device
    labels, index = labels.to(device), torch.arange(len(labels), device=device)
    seen = 0

    def step() -> None:
        nonlocal seen
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            training.training_step(index, labels, seen)
        seen += len(labels)

    return step


def example(
    model: LatentDiffusion, images: Tensor, templates: tuple[str, ...], *, vectors: int, bf16: bool
) -> Callable[[], object]:
    """The diffusers example's step: one concept, of as many vectors."""
    device, dtype = model.device, torch.bfloat16 if bf16 else torch.float32
    tokenizer, whole = copy.deepcopy(model.tokenizer), copy.deepcopy(model.text_encoder)
    text_encoder = whole.model  # without the layer behind it, whose output nobody takes
    unet, autoencoder = model.unet, model.autoencoder
    if bf16:  # frozen weights in half precision, as the example has them
        unet, autoencoder = (copy.deepcopy(piece).to(dtype) for piece in (unet, autoencoder))
    scheduler = DDPMScheduler.from_config(model.scheduler_config)
    names = ["<concept>", *(f"<concept>_{number}" for number in range(1, vectors))]
    tokenizer.add_tokens(names)
    ids = tokenizer.convert_tokens_to_ids(names)
    text_encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    embedding = text_encoder.get_input_embeddings()
    with torch.no_grad():
        embedding.weight[ids] = embedding.weight[tokenizer.convert_tokens_to_ids("image")].clone()
    text_encoder.requires_grad_(False)
    embedding.requires_grad_(True)
    optimiser = torch.optim.AdamW(embedding.parameters(), lr=1e-4, weight_decay=1e-2)
    text_encoder.train()
    original = embedding.weight.data.clone()
    prompts = [template.format(" ".join(names)) for template in templates]
    every = tokenizer(prompts, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
    every = every.to(device)
    pixels = (images.float() / 127.5 - 1).expand(-1, 3, -1, -1)
    side = model.native_size
    pixels = F.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True).to(device, dtype)
    left_alone = torch.ones(len(tokenizer), dtype=torch.bool)
    draw = random.Random(0)

    def step() -> None:
        input_ids = every[[draw.randrange(len(every)) for _ in range(len(pixels))]]
        with torch.no_grad():  # its autoencoder is frozen, and so is what goes in: no graph there either
            latents = autoencoder.encode(pixels).latent_dist.sample()
        latents = latents * autoencoder.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),), device=device)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            context = text_encoder(input_ids)[0].to(dtype)
        prediction = unet(noisy, timesteps, context).sample
        loss = F.mse_loss(prediction.float(), noise.float(), reduction="mean")
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        left_alone[:] = True
        left_alone[min(ids) : max(ids) + 1] = False
        with torch.no_grad():
            embedding.weight[left_alone] = original[left_alone]
        loss.detach().item()  # its progress bar shows it

    return step


def alone(device: torch.device) -> bool:
    """Whether processor time is counted: with one thread, what this process computes, and not what it waits for."""
    return device.type == "cpu" and torch.get_num_threads() == 1


def time_in_turn(
    rivals: Mapping[str, Callable[[], object]], *, device: torch.device, rounds: int, warm_up: int = WARM_UP_ROUNDS
) -> tuple[Times, Times]:
    """Processor time where that says more (else wall-clock time), and wall-clock time, of the same calls."""
    wall: dict[str, list[float]] = {name: [] for name in rivals}

    def watched(name: str) -> Callable[[], object]:
        def call() -> None:
            start = time.perf_counter()
            rivals[name]()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            wall[name].append(time.perf_counter() - start)

        return call

    clock = processor_clock() if alone(device) else None
    times = interleave(
        {name: watched(name) for name in rivals}, device=device, rounds=rounds, clock=clock, warm_up=warm_up
    )
    for name, values in times.items():
        if isinstance(values, str):
            raise SystemExit(f"{name} {values}")
    return times, {name: values[warm_up:] for name, values in wall.items()}


def said(what: str, times: Times, wall: Times, slow: str, fast: str) -> str:
    found, by_wall = (ratios(which, slow, fast) for which in (times, wall))
    low, high = torch.tensor(found).quantile(torch.tensor([0.25, 0.75])).tolist()
    return (
        f"{what}: {statistics.median(found):.2f} x (quartiles {low:.2f}-{high:.2f}; by wall clock "
        f"{statistics.median(by_wall):.2f})."
    )


def peak(step: Callable[[], object], device: torch.device) -> float:
    """GiB of the device's memory at most, within one call."""
    torch.cuda.reset_peak_memory_stats(device)
    step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / 2**30


def compare_steps(
    generator: TextualInversion, batch: int, *, rounds: int, bf16: bool, warm_up: int, findings: Findings
) -> None:
    """Print the table of training steps, and the two ratios."""
    device, classes, vectors = generator.model.device, generator.classes, max(generator.vectors.values())
    images = torch.randint(0, 256, (batch, *generator.image_shape), dtype=torch.uint8)
    labels = torch.arange(batch) % len(classes)
    ways = {NOTHING: (False, False), CACHED: (True, False), OURS: (True, True)}
    steps: dict[str, Callable[[], object]] = {
        EXAMPLE: example(generator.model, images, generator.templates, vectors=vectors, bf16=bf16),
        **{
            name: ours(generator, images, labels, cached=cached, shared=shared, bf16=bf16)
            for name, (cached, shared) in ways.items()
        },
    }
    neighbours = Neighbours()
    times, wall = time_in_turn(steps, device=device, rounds=rounds, warm_up=warm_up)
    print(
        f"\n### A training step, batch {batch}\n\n{batch} images of {len(classes)} classes, {vectors} vectors each, "
        f"{'bfloat16' if bf16 else 'float32'}; {'processor' if alone(device) else 'wall-clock'} time; "
        f"{machine(device)}.\n\n{table(times, against=[EXAMPLE, NOTHING])}\n"
    )
    print(said("With what is computed once, against without", times, wall, NOTHING, OURS))
    print(said("Against the example's step", times, wall, EXAMPLE, OURS) + neighbours.crowd(torch.get_num_threads()))
    for name in steps:
        findings.add(f"step, batch {batch}, {name}: ms", 1e3 * median(times, name), "ms")
    faster = statistics.median(ratios(times, EXAMPLE, OURS))
    findings.add(f"step, batch {batch}: times as fast as the example's", faster)
    if device.type == "cuda":
        for name, step in steps.items():
            most = peak(step, device)
            print(f"{name}: {most:.2f} GiB at most")
            findings.add(f"step, batch {batch}, {name}: GiB at most", most, "GiB")


def compare_samplers(generator: TextualInversion, arguments: argparse.Namespace, *, findings: Findings) -> None:
    """Print the table of samplings, and the ratio."""
    device = generator.model.device
    count, few, many = arguments.sampled, arguments.few, arguments.many
    labels, seeds = torch.arange(count) % len(generator.classes), torch.arange(count)

    def draw(method: str, steps: int) -> Callable[[], Tensor]:
        precision = "bfloat16" if arguments.bf16 else "float32"
        sampler = generator.with_sampler(method=method, steps=steps, batch_size=count, precision=precision)
        return lambda: sampler.sample(labels, seeds)

    paper, fast = f"ddim, {many} steps", f"dpmsolver++, {few} steps"
    draws: dict[str, Callable[[], object]] = {
        paper: draw("ddim", many),
        **{f"{method}, {few} steps": draw(method, few) for method in arguments.methods},
    }
    if fast not in draws:
        draws[fast] = draw("dpmsolver++", few)
    neighbours = Neighbours()
    times, wall = time_in_turn(draws, device=device, rounds=arguments.draws, warm_up=arguments.warm_up)
    print(f"\n### Sampling\n\n{count} images, guided and decoded.\n\n{table(times, against=paper)}\n")
    print(said(f"{few} steps of dpmsolver++", times, wall, paper, fast) + neighbours.crowd(torch.get_num_threads()))
    for name in draws:
        findings.add(f"sampling, {name}: s an image", median(times, name) / count, "s")
    if device.type == "cuda":
        most = peak(draws[fast], device)
        print(f"{fast}: {most:.2f} GiB at most")
        findings.add(f"sampling, {fast}: GiB at most", most, "GiB")


def describe(shapes: Shapes, batches: list[int], classes: int) -> str:
    """The shapes beside the published ones, and what a step costs by its operations alone."""
    lines = [
        "| GFLOP an image, as multiples of the U-Net's | " + " | ".join(PIECES) + " |",
        "| --- " * (len(PIECES) + 1) + "|",
    ]
    for each in dict.fromkeys((PUBLISHED, shapes)):
        lines.append(f"| {each.name} | {shares(count_operations(each))} |")
    forward = count_operations(shapes)
    everything = step_operations(forward, encoded=True, prompts=1)
    counts = ", ".join(f"{name} {count / 1e6:.1f}M" for name, count in count_parameters(shapes).items())
    lines += ["", f"{shapes.name}: {counts} weights. A step of {everything / 1e9:.2f} GFLOP an image."]
    for batch in batches:
        once = step_operations(forward, encoded=False, prompts=min(classes, batch) / batch)
        lines.append(
            f"With latents cached and {classes} prompts for {batch} images: {once / 1e9:.2f}, "
            f"{everything / once:.2f} x less."
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full-size", action="store_true", help="the published shapes: 1.5 billion weights; a GPU")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to see that it runs: times say nothing")
    parser.add_argument(
        "--batch-size", type=int, nargs="+", default=[8, 24], help="of all classes together; the example's is of one"
    )
    parser.add_argument("--classes", type=int, default=3, choices=range(1, len(CLASSES) + 1), help="in a batch")
    parser.add_argument("--vectors", type=int, default=8, help="of each class")
    parser.add_argument("--steps", type=int, default=12, help="timed training steps of each")
    parser.add_argument("--draws", type=int, default=3, help="timed samplings of each; 0: none")
    parser.add_argument("--few", type=int, default=20, help="sampling steps")
    parser.add_argument("--many", type=int, default=50, help="sampling steps that the few are compared with")
    parser.add_argument("--sampled", type=int, default=2, help="images of one sampling")
    parser.add_argument(
        "--methods", nargs="+", default=["ddim", "dpmsolver++", "unipc"], help="of few steps; dpmsolver++ always"
    )
    parser.add_argument("--warm-up", type=int, default=WARM_UP_ROUNDS, help="rounds that are not counted")
    parser.add_argument("--brief", action="store_true", help="do not count operations first, which takes a while")
    parser.add_argument("--bf16", action="store_true", help="ours and the example's, as each does it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add_json_option(parser)
    arguments = parser.parse_args()
    if arguments.full_size and arguments.quick:
        parser.error("--full-size or --quick, not both")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    shapes = PUBLISHED if arguments.full_size else TINY if arguments.quick else SCALED
    classes = CLASSES[: arguments.classes]
    findings = Findings(arguments.json, device=device)
    if not arguments.brief:
        print(describe(shapes, arguments.batch_size, len(classes)))

    model = open_shapes(shapes, device)
    generator = TextualInversion(
        classes=classes, base=model, resolution=64, channels=1, vectors=arguments.vectors, modality="ultrasound"
    )
    for batch in arguments.batch_size:
        compare_steps(
            generator,
            batch,
            rounds=arguments.steps,
            bf16=arguments.bf16,
            warm_up=arguments.warm_up,
            findings=findings,
        )
    if arguments.draws:
        compare_samplers(generator, arguments, findings=findings)


if __name__ == "__main__":
    main()
