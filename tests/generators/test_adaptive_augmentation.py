"""The control loop beside the published rule, and the thinning of a draw."""

import pytest
import torch

from genmix_transforms.generators.adaptive_augmentation import AdaptiveAugmentation, thin_out
from genmix_transforms.generators.augmentation import diff_augment, draw_augmentation


def test_p_rises_above_the_target_and_falls_below_it() -> None:
    loop = AdaptiveAugmentation(target=0.6, ramp=1000)
    sure, unsure = torch.tensor([1.0, 2, 3, 4]), torch.tensor([1.0, -2, 3, -4])
    for _ in range(8):  # mean sign 1
        loop.update(sure, batch=10)
    assert loop.p.item() == pytest.approx(2 * 4 * 10 / 1000)
    for _ in range(4):  # mean sign 0
        loop.update(unsure, batch=10)
    assert loop.p.item() == pytest.approx(4 * 10 / 1000)


def test_p_stays_a_probability() -> None:
    loop = AdaptiveAugmentation(target=0.6, ramp=10)
    for _ in range(8):
        loop.update(-torch.ones(4), batch=10)
    assert loop.p.item() == 0
    for _ in range(8):
        loop.update(torch.ones(4), batch=10)
    assert loop.p.item() == 1


def test_the_mean_is_over_four_batches() -> None:
    loop = AdaptiveAugmentation(target=0.4, ramp=100)
    for value in (1.0, 1, 1, -1):  # mean 0.5, though the last batch alone is far below
        assert loop.p.item() == 0
        loop.update(torch.full((3,), value), batch=1)
    assert loop.p.item() == pytest.approx(0.04)


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_its_state_goes_on_in_the_middle(stop: int) -> None:
    logits = [torch.randn(4, generator=torch.Generator().manual_seed(number)) + 1 for number in range(12)]
    whole = AdaptiveAugmentation(ramp=100)
    for some in logits:
        whole.update(some, batch=4)
    first, second = AdaptiveAugmentation(ramp=100), AdaptiveAugmentation(ramp=100)
    for some in logits[:stop]:
        first.update(some, batch=4)
    second.load_state_dict(first.state_dict())
    for some in logits[stop:]:
        second.update(some, batch=4)
    assert torch.equal(whole.p, second.p)


def test_a_closed_loop_settles_at_its_target() -> None:
    # A discriminator whose sureness falls as the augmentation grows: 1 - p.
    loop = AdaptiveAugmentation(target=0.6, ramp=2000)
    for _ in range(400):
        share = (2 - float(loop.p)) / 2  # of logits above zero: mean sign 1 - p
        loop.update((torch.arange(1000) < share * 1000).float() - 0.5, batch=10)
    assert loop.p.item() == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize(("p", "same"), [(0.0, True), (1.0, False)])
def test_nothing_and_everything(p: float, same: bool) -> None:
    torch.manual_seed(0)
    images = torch.rand(8, 3, 16, 16) + 0.5
    draw = draw_augmentation(images)
    thinned = thin_out(draw, p=p, size=16)
    out = diff_augment(images, thinned)
    if same:
        assert torch.allclose(out, images, atol=1e-6)
    else:
        assert torch.equal(out, diff_augment(images, draw))


def test_each_image_and_each_augmentation_by_itself() -> None:
    torch.manual_seed(0)
    images = torch.rand(4000, 1, 8, 8)
    draw = draw_augmentation(images)
    draw["shift"] += 1000  # never 0
    thinned = thin_out(draw, p=torch.tensor(0.3), size=8)
    brightness, shift = thinned["brightness"] != 0, (thinned["shift"] != 0).any(dim=1)
    hole = thinned["hole"][:, 0] > -8
    for kept in (brightness, shift, hole):
        assert kept.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert (brightness & shift).float().mean().item() == pytest.approx(0.09, abs=0.02)
