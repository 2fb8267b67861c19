"""The steps: who is shown which images, with which random numbers, and what counts the whole batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from genmix_transforms.generators import steps
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.steps import Steps
from tests.generators.jobs import make_job
from tests.generators.tiny_training import Tiny, tiny_patches


@dataclass(frozen=True)
class OneOf(Processes):
    """One of several processes, whose others are never heard."""

    def start_average(self, gradients: Sequence[torch.Tensor]) -> Callable[[], None]:
        return lambda: [gradient.zero_() for gradient in gradients] and None


def steps_of(rank: int, count: int) -> tuple[Tiny, Steps]:
    trainee = Tiny()
    taker = Steps(
        make_job(
            trainee, tiny_patches(), Path("run"), snapshot=trainee.result, steps=1, batch_size=8, seed=3,
            processes=OneOf(rank, count, torch.device("cpu")),
        ),
        trainee.state_objects(),
    )  # fmt: skip
    return trainee, taker


def test_several_processes_share_a_batch() -> None:
    shown: list[torch.Tensor] = []
    for rank, count in ((0, 2), (1, 2), (0, 1)):
        trainee, taker = steps_of(rank, count)
        trainee.training_step = lambda images, labels, seen: shown.append(images) or {}  # type: ignore
        first, second = taker.batches(0, 16)
        assert len(first) == len(second) == 8
        taker.take(first, 0)
    assert torch.equal(torch.cat(shown[:2]), shown[2])


def test_the_average_counts_the_batch_of_all_processes() -> None:
    decays = []
    for rank, count in ((0, 1), (0, 2), (1, 2)):
        trainee, _ = steps_of(rank, count)
        decays.append([trainee.average.decay(images_seen=seen) for seen in range(0, 4000, 8)])
        # What a trainee itself says of the batch, its own part for example, does not count.
        assert trainee.average.decay(images_seen=800, batch=8 // count) == trainee.average.decay(images_seen=800)
    assert decays[0] == decays[1] == decays[2]


def test_gradients_are_averaged_before_every_optimisers_step() -> None:
    trainee, taker = steps_of(0, 2)
    before = [parameter.clone() for parameter in trainee.network.parameters()]
    taker.take(taker.batches(0, 8)[0], 0)
    assert all(torch.equal(one, other) for one, other in zip(before, trainee.network.parameters(), strict=True))


def test_a_step_follows_from_its_position() -> None:
    found = []
    for _ in range(2):
        _, taker = steps_of(0, 1)
        torch.manual_seed(len(found))  # whatever was drawn before
        losses = [taker.take(batch, 8 * number)["squared"].item() for number, batch in enumerate(taker.batches(0, 24))]
        found.append(losses)
    assert found[0] == found[1]


@pytest.mark.parametrize("on", [True, False])
def test_a_step_and_what_comes_before_it_compute_as_the_setting_says(on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    now: list[tuple[str, bool]] = []
    seen: list[list[tuple[str, bool]]] = []

    @contextmanager
    def noted(device: torch.device, on: bool) -> Iterator[None]:
        now.append((device.type, on))
        yield
        now.pop()

    monkeypatch.setattr(steps, "fast_math", noted)
    trainee = Tiny()
    trainee.training_step = lambda images, labels, images_seen: seen.append(list(now)) or {}  # type: ignore
    trainee.prepare = lambda *, progress: seen.append(list(now))  # type: ignore
    job = make_job(trainee, tiny_patches(), Path("run"), snapshot=trainee.result, steps=1, batch_size=8, fast_math=on)
    taker = Steps(job, trainee.state_objects())
    taker.prepare(progress=False)
    taker.take(taker.batches(0, 8)[0], 0)
    assert seen == [[("cpu", on)], [("cpu", on)]]
    assert now == []
