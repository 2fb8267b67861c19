"""Sampling with ADM: few steps against many, and our sampler against the original's, each in turn in one process.

    python benchmarks/adm.py --threads 1
    python benchmarks/adm.py --threads 1 --original guided-diffusion    # a checkout of openai/guided-diffusion

The original is called as its scripts call it (``p_sample_loop`` and ``ddim_sample_loop`` of a respaced diffusion), on
networks of the same configuration and weights. Ours draws its noise from every image's own seed, and gives uint8.
"""

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from findings import Findings, add_json_option
from timing import WARM_UP_ROUNDS, Neighbours, interleave, machine, matrix_rate, median, processor_clock, ratios, table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from genmix_transforms.generators import ADM
from genmix_transforms.generators.adm.configuration import PRESETS, ADMConfiguration
from genmix_transforms.generators.adm.convert.guided_diffusion import rename
from genmix_transforms.generators.adm.network import build_network


def make_ours(configuration: ADMConfiguration, weights: dict[str, Tensor] | None, device: torch.device) -> ADM:
    """An ADM of so many classes, with the original's weights where there are any; random ones take as long."""
    generator = ADM(classes=[f"class {number}" for number in range(configuration.num_classes)],
                    configuration=configuration)  # fmt: skip
    if weights is not None:
        generator.network.load_state_dict(rename(weights, configuration))
    return generator.to(device)


def ours(generator: ADM, batch: int, **settings: Any) -> Callable[[], Tensor]:
    sampler = generator.with_sampler(batch_size=batch, **settings)
    labels = torch.arange(batch) % len(generator.classes)
    return lambda: sampler.sample(labels, torch.arange(batch))


def load_original(folder: Path) -> tuple[Any, Any]:
    """The original's modules: networks, and diffusions."""
    sys.path.insert(0, str(folder))
    return importlib.import_module("guided_diffusion.unet"), importlib.import_module("guided_diffusion.script_util")


def original_network(unet: Any, configuration: ADMConfiguration) -> Any:
    torch.manual_seed(0)
    network = unet.UNetModel(
        image_size=configuration.image_size,
        in_channels=configuration.input_channels,
        model_channels=configuration.num_channels,
        out_channels=configuration.output_channels,
        num_res_blocks=configuration.num_res_blocks,
        attention_resolutions=tuple(configuration.image_size // side for side in configuration.attention_resolutions),
        dropout=configuration.dropout,
        channel_mult=configuration.channel_mult,
        num_classes=configuration.num_classes if configuration.class_cond else None,
        num_heads=configuration.num_heads,
        num_head_channels=configuration.num_head_channels,
        use_scale_shift_norm=configuration.use_scale_shift_norm,
        resblock_updown=configuration.resblock_updown,
        use_new_attention_order=configuration.use_new_attention_order,
    ).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # some are zero at first
            parameter.copy_(torch.randn_like(parameter) * 0.02)
    return network


def theirs(
    network: Any, script_util: Any, configuration: ADMConfiguration, batch: int, *, method: str, steps: int
) -> Callable[[], Tensor]:
    diffusion = script_util.create_gaussian_diffusion(
        steps=configuration.diffusion_steps,
        learn_sigma=configuration.learn_sigma,
        noise_schedule=configuration.noise_schedule,
        timestep_respacing=f"ddim{steps}" if method == "ddim" else str(steps),
    )
    sample = diffusion.ddim_sample_loop if method == "ddim" else diffusion.p_sample_loop
    shape = (batch, configuration.channels, configuration.image_size, configuration.image_size)
    device = next(network.parameters()).device
    labels = torch.arange(batch, device=device) % configuration.num_classes

    def call() -> Tensor:
        kwargs = {"y": labels} if configuration.class_cond else {}
        values = sample(network, shape, model_kwargs=kwargs, device=device)
        return ((values + 1) * 127.5).clamp(0, 255).to(torch.uint8).cpu()

    return call


def operations_of_a_pass(configuration: ADMConfiguration, batch: int) -> int:
    """Floating-point operations of one pass through the network; a product and a sum are two."""
    with torch.device("meta"):
        network = build_network(configuration)
        images = torch.empty(batch, configuration.input_channels, *(2 * [configuration.image_size]))
        times = torch.zeros(batch)
        labels = torch.zeros(batch, dtype=torch.int64) if configuration.class_cond else None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images, times, class_labels=labels)
    return int(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small-32", choices=list(PRESETS))
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--few", type=int, default=25, help="steps")
    parser.add_argument("--many", type=int, default=250, help="steps that the few are compared with")
    parser.add_argument("--original", type=Path, help="a checkout of openai/guided-diffusion")
    parser.add_argument("--only", choices=["steps", "original"], help="one of the two comparisons")
    parser.add_argument("--methods", nargs="+", default=["ddpm", "ddim", "dpmsolver++", "unipc"], help="of few steps")
    parser.add_argument("--precisions", nargs="+", choices=["float32", "bfloat16"], help="default: those for here")
    parser.add_argument("--warm-up", type=int, default=WARM_UP_ROUNDS, help="rounds that are not counted")
    parser.add_argument("--compile", action="store_true", help="torch.compile our network")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add_json_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    findings = Findings(arguments.json, device=device)
    preset = PRESETS[arguments.preset]
    configuration = ADMConfiguration.from_flags({**preset.to_flags(), "num_classes": arguments.classes})
    batch = arguments.batch_size
    precisions = arguments.precisions or (["float32", "bfloat16"] if device.type == "cuda" else ["float32"])
    # With one thread on the CPU, what this process computes is counted, and not what it waits for on a busy machine.
    alone = device.type == "cpu" and arguments.threads == 1
    timed = {
        "rounds": arguments.rounds,
        "device": device,
        "clock": processor_clock() if alone else None,
        "warm_up": arguments.warm_up,
    }
    few, many = arguments.few, arguments.many
    print(f"{arguments.preset}, {batch} images of {configuration.image_size} pixels; {machine(device)}")

    if arguments.only != "original":
        generator = make_ours(configuration, None, device)
        if arguments.compile:
            generator.network.compile()
        # Many steps as published, in float32, where that is measured at all.
        rivals = {
            f"ddpm, {many} steps": ours(generator, batch, method="ddpm", steps=many, precision=precisions[0]),
            **{
                f"{method}, {few} steps, {precision}": ours(
                    generator, batch, method=method, steps=few, precision=precision
                )
                for method in arguments.methods
                for precision in precisions
            },
        }
        neighbours = Neighbours()
        times = interleave(rivals, **timed)
        print(f"\n### Few steps\n\n{table(times, against=f'ddpm, {many} steps')}\n")
        fastest = f"{'ddim' if 'ddim' in arguments.methods else arguments.methods[0]}, {few} steps, {precisions[-1]}"
        faster = ratios(times, f"ddpm, {many} steps", fastest)
        more = sorted(faster)[len(faster) // 2]
        print(f"{few} steps of {fastest.split(',')[0]}: {more:.1f} times as many images a second."
              f"{neighbours.crowd(arguments.threads)}")  # fmt: skip
        findings.add(f"sampling, {few} steps: images/s", batch / median(times, fastest))
        findings.add(f"sampling, {many} steps: images/s", batch / median(times, f"ddpm, {many} steps"))
        findings.add("sampling, few steps against many: times the images/s", more)
        if device.type == "cuda" or arguments.json:
            done = few * operations_of_a_pass(configuration, batch) / median(times, fastest)
            peak = matrix_rate(device)
            share = f"{100 * done / peak:.0f} % of the {peak / 1e12:.0f}"
            print(f"{done / 1e12:.1f} TFLOP/s, {share} that bf16 matrices reach")
            findings.add(f"sampling, {precisions[-1]}: TFLOP/s", done / 1e12)
            findings.add(f"sampling, {precisions[-1]}: share of the bf16 matrix rate", done / peak)
            findings.add("bf16 matrix rate: TFLOP/s", peak / 1e12)
        if device.type == "cuda":
            print(f"peak memory {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB")
            findings.add("sampling: GiB at most", torch.cuda.max_memory_allocated(device) / 2**30, "GiB")

    if arguments.original is not None and arguments.only != "steps":
        unet, script_util = load_original(arguments.original)
        network = original_network(unet, configuration)
        generator = make_ours(configuration, network.state_dict(), device)
        if arguments.compile:
            generator.network.compile()
        network.to(device)
        rivals = {}
        for method in ("ddpm", "ddim"):
            rivals[f"original, {method}"] = theirs(network, script_util, configuration, batch, method=method, steps=few)
            for precision in precisions:
                rivals[f"ours, {method}, {precision}"] = ours(
                    generator, batch, method=method, steps=few, precision=precision
                )
        neighbours = Neighbours()
        times = interleave(rivals, **timed)
        print(f"\n### The original, {few} steps\n\n{table(times, against=['original, ddpm', 'original, ddim'])}\n")
        for method in ("ddpm", "ddim"):
            faster = ratios(times, f"original, {method}", f"ours, {method}, {precisions[-1]}")
            print(f"{method}: ours {sorted(faster)[len(faster) // 2]:.2f} times as many images a second.")
        print(neighbours.crowd(arguments.threads))


if __name__ == "__main__":
    main()
