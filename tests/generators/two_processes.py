"""What happens to trainings by two processes, in one start of both: ``main`` runs as rank 0 and as rank 1.

Each scenario leaves a JSON file for each rank; the tests of the loop's parts read them.
"""

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import DiskFullError
from genmix_transforms.generators import StyleGAN, TextualInversion, gradients, load_generator, training
from genmix_transforms.generators.adm.timesteps import make_timesteps
from genmix_transforms.generators.gradients import average_gradients
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.run_folder import held
from tests.generators.tiny_training import Tiny, position, run, same_end

SCENARIOS: list[Callable[[Path, Processes], dict[str, Any]]] = []


def scenario(function: Callable[[Path, Processes], dict[str, Any]]) -> Callable[[Path, Processes], dict[str, Any]]:
    SCENARIOS.append(function)
    return function


def ended(trainee: Tiny, out: Path, processes: Processes) -> str:
    """How a training ended."""
    try:
        run(trainee, out, processes=processes)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def stopped_by(asks: Callable[[int], None], out: Path, processes: Processes) -> dict[str, Any]:
    """A training in which ``asks`` happens at every step, and another that goes on from there."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    first = Tiny(before_step=asks)
    how = ended(first, out, processes)
    processes.wait()
    stopped_at = position(out)
    restored = handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    processes.wait()
    second = Tiny()
    again = ended(second, out, processes)
    processes.wait()
    return {
        "how": how, "steps": first.steps, "stopped_at": stopped_at, "restored": restored, "again": again,
        "went_on": second.steps, "same": same_end(out, out.parent / "unbroken"),
    }  # fmt: skip


@scenario
def unbroken(out: Path, processes: Processes) -> dict[str, Any]:
    decays: list[float] = []
    trainee = Tiny()
    decay = trainee.average.decay

    def recorded(**given: Any) -> float:
        decays.append(decay(**given))
        return decays[-1]

    trainee.average.decay = recorded  # type: ignore[method-assign]
    how = ended(trainee, out, processes)
    processes.wait()
    return {"how": how, "decays": decays}


@scenario
def interrupt_one(out: Path, processes: Processes) -> dict[str, Any]:
    def ask(images_seen: int) -> None:
        if images_seen == 28 and processes.rank == 1:
            os.kill(os.getpid(), signal.SIGINT)

    return stopped_by(ask, out, processes)


@scenario
def terminate_both(out: Path, processes: Processes) -> dict[str, Any]:
    def ask(images_seen: int) -> None:
        if images_seen == (28 if processes.rank == 1 else 32):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # launchers repeat themselves

    return stopped_by(ask, out, processes)


@scenario
def bad_loss_on_one(out: Path, processes: Processes) -> dict[str, Any]:
    def spoil(images_seen: int, loss: torch.Tensor) -> torch.Tensor:
        return loss * torch.nan if images_seen == 28 and processes.rank == 1 else loss

    how = ended(Tiny(loss=spoil), out, processes)
    processes.wait()
    kept = position(out)
    processes.wait()
    again = ended(Tiny(), out, processes)
    processes.wait()
    return {"how": how, "kept": kept, "again": again, "same": same_end(out, out.parent / "unbroken")}


@scenario
def locked_out(out: Path, processes: Processes) -> dict[str, Any]:
    if processes.is_main:
        with held(out, restart=False):
            how = ended(Tiny(), out, processes)
    else:
        how = ended(Tiny(), out, processes)
    return {"how": how}


@scenario
def full_disk(out: Path, processes: Processes) -> dict[str, Any]:
    def refuse(*_: Any, **__: Any) -> None:
        raise DiskFullError("no space at all")

    before, training.check_free_space = training.check_free_space, refuse
    how = ended(Tiny(), out, processes)
    training.check_free_space = before
    processes.wait()
    return {"how": how, "again": ended(Tiny(), out, processes)}


@scenario
def averages(out: Path, processes: Processes) -> dict[str, Any]:
    a, b, c = (torch.nn.Parameter(torch.zeros(shape)) for shape in ((2,), (1, 2), (3,)))
    a.grad = torch.tensor([1.0, 2.0]) * (processes.rank + 1)
    b.grad = torch.tensor([[10.0, 0.0]]) * processes.rank
    optimiser = torch.optim.SGD([a, b, c], lr=0)
    average_gradients(optimiser, processes)
    optimiser.step()
    gathered = processes.gather(torch.tensor([[10, processes.rank]]))
    return {
        "gradients": [None if each.grad is None else each.grad.tolist() for each in (a, b, c)],
        "gathered": gathered.tolist(),
        "mean": processes.mean([processes.rank, 2.0]),
        "any": [processes.any(processes.rank == 1), processes.any(False)],
    }


class Counting:
    """Processes that count the messages of gradients."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.messages = 0

    def start_average(self, gradients: Sequence[torch.Tensor]) -> Callable[[], None]:
        self.messages += 1
        return self.processes.start_average(gradients)


@scenario
def buckets(out: Path, processes: Processes) -> dict[str, Any]:
    """Gradients of a step, averaged in buckets of several sizes, in the backward pass and after it, and by hand."""

    def backward(network: torch.nn.Module, seed: int, *, part: bool) -> None:
        random = torch.Generator().manual_seed(seed)
        hidden = network[0](torch.randn(2, 3, 4, 4, generator=random))  # type: ignore[index]
        (hidden if part else network[1](hidden.flatten(1))).square().sum().backward()  # type: ignore[index]

    def make() -> torch.nn.Module:
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Linear(8, 5), torch.nn.Linear(5, 40))
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def by_hand(step: int) -> list[torch.Tensor | None]:
        found = []
        for rank in range(2):
            network = make()
            backward(network, 10 * step + rank, part=step == 1)
            found.append([parameter.grad for parameter in network.parameters()])
        return [None if a is None or b is None else (a + b) / 2 for a, b in zip(*found, strict=True)]

    expected = [by_hand(step) for step in range(3)]
    same, sent_early = True, []
    for size in (1, 40, 300, 10**6):
        for meanwhile in (True, False):
            gradients.BUCKET_BYTES = size
            network = make()
            optimiser = torch.optim.SGD(network.parameters(), lr=0)
            counting = Counting(processes)
            average_gradients(optimiser, counting, meanwhile=meanwhile)  # type: ignore[arg-type]
            for step in range(3):  # in the second one, some have no gradient
                counting.messages = 0
                backward(network, 10 * step + processes.rank, part=step == 1)
                sent_early.append((meanwhile, counting.messages))
                optimiser.step()
                for parameter, mean in zip(network.parameters(), expected[step], strict=True):
                    got = parameter.grad
                    same &= (got is None) == (mean is None)
                    same &= got is None or mean is None or torch.equal(got, mean)
                optimiser.zero_grad()
    return {
        "same": same,
        "meanwhile": sum(early for meanwhile, early in sent_early if meanwhile),
        "afterward": sum(early for meanwhile, early in sent_early if not meanwhile),
    }


@scenario
def stylegan_means(out: Path, processes: Processes) -> dict[str, Any]:
    """A StyleGAN whose augmentation adapts: are its weights and means alike on both?"""
    images = torch.randint(0, 256, (16, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    dataset = PatchDataset(images=images, labels=torch.arange(16) % 2, classes=("cyst", "metastasis"))
    generator = StyleGAN(classes=dataset.classes, resolution=16, fmap_base=64, fmap_max=8, latent_size=8)
    generator.fit(
        dataset, out=out, steps=6, batch_size=8, minibatch_group=4, augment_target=0.0, augment_ramp=100,
        device="cpu", progress=False,
    )  # fmt: skip
    differ = []
    for name, tensor in generator.network.state_dict().items():
        both = processes.gather(tensor.float().reshape(1, -1))
        if not torch.equal(both[0], both[1]):
            differ.append(name)
    return {"differ": differ, "mean_w": generator.network.mean_w.abs().sum().item()}


@scenario
def loss_second_moment(out: Path, processes: Processes) -> dict[str, Any]:
    """Losses that each process adds for itself, beside one sampler that is told all of them."""
    shared = make_timesteps("loss-second-moment", 3, processes=processes)
    alone = make_timesteps("loss-second-moment", 3)
    for step in range(12):
        mine = torch.tensor([step % 3, processes.rank, 2])
        shared.update(mine, torch.arange(3.0) + step + 10 * processes.rank)
        everyones = torch.tensor([step % 3, 0, 2, step % 3, 1, 2])
        alone.update(everyones, torch.cat([torch.arange(3.0) + step + 10 * rank for rank in (0, 1)]))
    return {"shared": shared.probabilities.tolist(), "alone": alone.probabilities.tolist()}


@scenario
def rare_classes(out: Path, processes: Processes) -> dict[str, Any]:
    """A Textual Inversion of rare classes: a batch of four, and more so half of one, often has none of them."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        return {}
    from genmix_transforms.generators.textual_inversion.training import TextualInversionTraining
    from tests.generators.textual_inversion.tiny_pipelines import save_ldm

    base = out.parent / "tiny-ldm"
    if processes.is_main:
        save_ldm(base)
    processes.wait()
    images = torch.randint(0, 256, (12, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.tensor([0] * 10 + [1, 2])
    patches = PatchDataset(images=images, labels=labels, classes=("a", "b", "c"), name="few")
    generator = TextualInversion(classes=patches.classes, base=base, resolution=16, vectors=2, sampler={"steps": 1})
    as_shown, seen = [], []
    step = TextualInversionTraining.training_step

    def keep(self: Any, images: Any, labels: torch.Tensor, images_seen: int) -> Any:
        index, classes, present = self.batch(images_seen)
        as_shown.append(torch.equal(index, images) and torch.equal(classes, labels))
        seen.append([sorted(set(classes.tolist())), [number for number, there in enumerate(present) if there]])
        return step(self, images, labels, images_seen)

    TextualInversionTraining.training_step = keep  # type: ignore[method-assign]
    generator.fit(patches, out=out, steps=6, batch_size=4, device="cpu", progress=False, checkpoint_every=100)
    TextualInversionTraining.training_step = step  # type: ignore[method-assign]
    rows = torch.cat(list(generator.embeddings.values()))
    everyone = processes.gather(rows[None])
    return {
        "as_shown": as_shown, "seen": seen, "alike": torch.equal(everyone[0], everyone[1]),
        "processes": load_generator(out).provenance["processes"],
    }  # fmt: skip


def main(folder: Path) -> None:
    processes = Processes.join("cpu")
    for each in SCENARIOS:
        found = each(folder / each.__name__, processes)
        (folder / f"{each.__name__}.{processes.rank}.json").write_text(json.dumps(found))
        processes.wait()
    torch.distributed.destroy_process_group()
