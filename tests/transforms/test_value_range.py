"""The look at the first batch: which mistakes it tells, what it lets pass, and that it looks once."""

import copy
import pickle
import re
import warnings

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.transforms import value_range
from genmix_transforms.transforms.value_range import RangeCheck

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5,), "std": (0.5,)}
SHAPE = (3, 16, 16)
NOT_THE_SAME = "they are not in the same units"

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def make_bank(*, shape=SHAPE, dtype=torch.uint8, low=0, high=None, count=6):
    """Images whose pixels run evenly from low to high."""
    high = (255 if dtype == torch.uint8 else 65535) if high is None else high
    values = torch.linspace(low, high, count * torch.Size(shape).numel())
    return SyntheticBank(values.round().to(dtype).view(count, *shape), torch.arange(count) % 2, classes=["a", "b"])


def even(low=0.0, high=1.0, *, count=4, shape=SHAPE):
    """A batch whose values run evenly from low to high."""
    return torch.linspace(low, high, count * torch.Size(shape).numel()).view(count, *shape)


def look(images, bank=None, *, first=None, **unit):
    """The look at one batch; warnings are errors."""
    bank = make_bank() if bank is None else bank
    first = RangeCheck() if first is None else first
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first(images, bank, *(tensor.to(bank.images.device) for tensor in bank.unit(**unit)))
    return first


def normalised(images, mean, std):
    return v2.Normalize(mean * (3 // len(mean)), std * (3 // len(std)))(images)


# What is told


@pytest.mark.parametrize(
    ("images", "unit", "batch_range", "bank_range", "possible"),
    [
        (normalised(even(), **IMAGENET), {}, "-2.12 to 2.64", "0 to 1", "-?0 to 1"),
        (normalised(even(), **HALF), {}, "-1 to 1", "0 to 1", "-?0 to 1"),
        (normalised(even(0, 0.3), **HALF), {}, "-1 to -0.4", "0 to 1", "-?0 to 1"),
        (255 * even(), {}, "0 to 255", "0 to 1", "-?0 to 1"),
        (255 * even(), HALF, "0 to 255", "-1 to 1", "-1 to 1"),
        (255 * even(), IMAGENET, "0 to 255", "-2.12 to 2.64", "-2.12 to 2.64"),
        (even(-1024, 3071), {}, "-1.02e[+]03 to 3.07e[+]03", "0 to 1", "-?0 to 1"),  # Hounsfield units
        (even(0, 1.3), {}, "0 to 1.3", "0 to 1", "-?0 to 1"),
        (even(-0.3, 1), {}, "-0.3 to 1", "0 to 1", "-?0 to 1"),
    ],
)
def test_other_units(images, unit, batch_range, bank_range, possible):
    """Both sides with their ranges, and what to do."""
    text = (
        rf"^GenMix: the batch's values run from {batch_range}, the bank's from {bank_range} \(possible: {possible}\): "
        rf"{NOT_THE_SAME}\. If the batch went through v2\.Normalize\(mean, std\), give GenMix\(bank, mean=mean, "
        r"std=std\); if it is in \[0, 255\], divide it by 255 or leave it uint8; if it is as it should be, "
        r"GenMix\(bank, check_range=False\)$"
    )
    with pytest.raises(InputError, match=text):
        look(images, **unit)


def test_the_text_tells_what_the_bank_has_and_what_it_could_have():
    bank = make_bank(low=51, high=102)
    text = r"the bank's from 0.2 to 0.4 \(possible: -?0 to 1\)"
    with pytest.raises(InputError, match=text):
        look(even(0, 255), bank)
    with pytest.raises(InputError, match=r"the bank's from -0.6 to -0.2 \(possible: -1 to 1\)"):
        look(even(0, 255), bank, **HALF)


@pytest.mark.parametrize("unit", [HALF, IMAGENET])
def test_a_batch_that_lacks_the_normalisation(unit):
    """It lies within what is possible: a warning, no error."""
    low, high = ("-1", "1") if unit == HALF else ("-2.12", "2.64")
    text = (
        rf"GenMix: the batch's values run from 0 to 1, the bank's from {low} to {high} \(possible: {low} to {high}\): "
        r"the batch looks as if it had not gone through the v2\.Normalize whose mean and std GenMix was given; "
        r"then leave them out, or put the v2\.Normalize before GenMix"
    )
    bank = make_bank()
    with pytest.warns(UserWarning, match=text):
        RangeCheck()(even(), bank, *bank.unit(**unit))


def test_bright_batches_and_bright_banks_are_not_warned_of():
    """Normalised values between 0 and 1 are those of bright images; where the bank's are bright too, all is well."""
    look(even(0.1, 0.9), make_bank(low=140, high=240), **HALF)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    look(even().to(dtype))
    with pytest.raises(InputError, match=r"from -1 to 1, .*" + NOT_THE_SAME):
        look(normalised(even(), **HALF).to(dtype))


def test_volumes_and_16_bits():
    shape = (1, 4, 8, 8)
    bank = make_bank(shape=shape, dtype=torch.uint16)
    look(even(shape=shape), bank)
    look(even(-1, 1, shape=shape), bank, **HALF)
    with pytest.raises(
        InputError, match=rf"from -1 to 1, the bank's from 0 to 1 \(possible: -?0 to 1\): {NOT_THE_SAME}"
    ):
        look(even(-1, 1, shape=shape), bank)
    with pytest.raises(InputError, match=rf"from 0 to 6\.55e\+04, .*{NOT_THE_SAME}"):
        look(even(0, 65535, shape=shape), bank)


def test_one_channel_with_other_units_than_the_rest():
    """The widest channel counts: with a mean and std of its own each, one may reach beyond another."""
    unit = {"mean": (0.0, 0.0, 0.5), "std": (1.0, 1.0, 0.1)}
    look(normalised(even(), **unit), **unit)
    with pytest.raises(InputError, match=rf"possible: -5 to 5\): {NOT_THE_SAME}"):
        look(even(0, 8), **unit)


# What passes


@pytest.mark.parametrize("antialias", [True, False])
def test_the_overshoot_of_an_interpolation(antialias):
    """Black stripes on white, the sharpest edges there are."""
    stripes = (torch.arange(16) // 2 % 2).float().expand(4, *SHAPE)
    resized = v2.Resize(41, interpolation=v2.InterpolationMode.BICUBIC, antialias=antialias)(stripes)
    assert resized.min() < -0.1  # else this would show nothing
    assert resized.max() > 1.1
    look(resized, make_bank(shape=(3, 41, 41)))
    look(normalised(resized, **IMAGENET), make_bank(shape=(3, 41, 41)), **IMAGENET)


@pytest.mark.parametrize(
    ("images", "unit"),
    [
        (even(), {}),
        (even(0, 0.2), {}),  # dark
        (torch.zeros(4, *SHAPE), {}),
        (torch.ones(4, *SHAPE), {}),
        (even(-0.2, 1.2), {}),  # noise, a jitter that was not clamped
        (normalised(even(), **HALF), HALF),
        (normalised(even(0, 0.2), **HALF), HALF),
        (normalised(even(), **IMAGENET), IMAGENET),
        (normalised(even(0.2, 0.25), **IMAGENET), IMAGENET),
        (normalised(torch.zeros(4, *SHAPE), **IMAGENET), IMAGENET),
        (normalised(torch.ones(4, *SHAPE), **IMAGENET), IMAGENET),
    ],
)
def test_what_is_as_it_should_be(images, unit):
    assert not look(images, **unit).pending
    assert not look(images, make_bank(low=0, high=40), **unit).pending


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_is_refused(value):
    """Mixed, it would be in as many images as the batch has, and the loss says only that it is NaN."""
    images = even()
    images[1, 2, 3, 4] = value
    with pytest.raises(InputError, match=r"NaN or infinite values.*check_range=False"):
        look(images)
    mixed, _ = GenMix(make_bank(), check_range=False)(images, torch.zeros(4, dtype=torch.int64))
    assert not mixed.isfinite().all()


def deep(highest):
    """A batch of 16-bit integers up to a value."""
    return even(0, highest).round().to(torch.int32).to(torch.uint16)


DARK = "the {} is dark beside the {}, as 12-bit CT is that was taken for 16 bits"


@pytest.mark.parametrize(
    ("images", "bank", "who", "other"),
    [
        (even(0, 4095 / 65535), make_bank(), "batch", "bank"),
        (normalised(even(0, 4095 / 65535), **HALF), make_bank(), "batch", "bank"),
        (deep(4095), make_bank(), "batch", "bank"),
        (deep(4095), make_bank(dtype=torch.uint16), "batch", "bank"),
        (even(), make_bank(dtype=torch.uint16, high=4095), "bank", "batch"),
        (deep(65535), make_bank(dtype=torch.uint16, high=4095), "bank", "batch"),
    ],
)
def test_sixteen_bits_of_which_one_side_uses_few(images, bank, who, other):
    unit = HALF if float(images.float().min()) < 0 else {}
    with pytest.warns(UserWarning, match=DARK.format(who, other) + r".*--window 40,400"):
        RangeCheck()(images, bank, *bank.unit(**unit))


@pytest.mark.parametrize("highest", [65535, 12000])
def test_sixteen_bits_of_which_both_sides_use_enough(highest):
    """Also where mean and std are given, which integers are not brought to."""
    assert not look(deep(highest), make_bank(dtype=torch.uint16), **HALF).pending
    assert not look(deep(4095), make_bank(dtype=torch.uint16, high=4095)).pending


def test_images_with_gradients_and_wrapped_ones():
    look(even().requires_grad_())
    look(tv_tensors.Image(even()))
    with pytest.raises(InputError, match=NOT_THE_SAME):
        look(tv_tensors.Image(255 * even()).requires_grad_())


# Once


@pytest.mark.parametrize(
    "nothing",
    [
        torch.full((4, *SHAPE), 255, dtype=torch.uint8),
        torch.empty(0, *SHAPE),
        torch.empty(4, *SHAPE, device="meta"),
    ],
)
def test_there_is_nothing_to_compare_in_some_batches(nothing):
    """Integers of 8 bits have the bank's own units; the look waits for the first batch that has values."""
    first = look(nothing)
    assert first.pending
    assert look(nothing, first=first).pending
    with pytest.raises(InputError, match=NOT_THE_SAME):
        look(255 * even(), first=first)


def test_one_look(monkeypatch):
    looks = []
    measure = value_range._measure
    monkeypatch.setattr(value_range, "_measure", lambda *arguments: looks.append(1) or measure(*arguments))
    genmix = GenMix(make_bank())
    labels = torch.zeros(4, dtype=torch.int64)
    for images in (even(), 255 * even(), even()):  # a later batch that is out of range does not stop the training
        genmix(images, labels)
    assert len(looks) == 1


def test_it_can_be_left_out():
    assert not RangeCheck(enabled=False).pending
    assert RangeCheck().pending
    images = 255 * even()
    mixed, _ = GenMix(make_bank(), check_range=False)(images, torch.zeros(4, dtype=torch.int64))
    assert mixed.max() > 2


def test_in_evaluation_nothing_is_looked_at():
    genmix = GenMix(make_bank()).eval()
    sample = 255 * even(), torch.zeros(4, dtype=torch.int64)
    genmix(*sample)
    genmix.train()
    with pytest.raises(InputError, match=NOT_THE_SAME):
        genmix(*sample)


def test_compiled_nothing_is_looked_at():
    """A look would need the values, which break the graph; the first call outside of it looks."""
    genmix = GenMix(make_bank())
    sample = 255 * even(), torch.zeros(4, dtype=torch.int64)
    torch._dynamo.reset()
    torch.compile(lambda images, labels: genmix(images, labels), fullgraph=True, backend="eager")(*sample)
    with pytest.raises(InputError, match=NOT_THE_SAME):
        genmix(*sample)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda first: pickle.loads(pickle.dumps(first))])
def test_copies(duplicate):
    """What was not looked at is looked at by the copy (a worker of a DataLoader); what was, is not again."""
    with pytest.raises(InputError, match=NOT_THE_SAME):
        look(255 * even(), first=duplicate(RangeCheck()))
    assert not duplicate(look(even())).pending
    assert not duplicate(RangeCheck(enabled=False)).pending


def test_the_units_are_those_of_the_class():
    """What GenMix hands over are its own scale and shift, and the text is raised through its call."""
    images = normalised(even(), **IMAGENET)
    GenMix(make_bank(), **IMAGENET)(images, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(InputError, match=r"run from -2.12 to 2.64, the bank's from 0 to 1 .*" + NOT_THE_SAME):
        GenMix(make_bank())(images, torch.zeros(4, dtype=torch.int64))
    with pytest.warns(UserWarning, match="had not gone through the v2.Normalize"):
        GenMix(make_bank(), **IMAGENET)(even(), torch.zeros(4, dtype=torch.int64))


# On CUDA: nobody waits. The device's side is played here; below are the same tests on a real one.


class OnCuda(torch.Tensor):
    """Says that it is on a GPU."""

    @property
    def device(self):
        return torch.device("cuda")


class Event:
    """Is over when the test says so."""

    over = False
    recorded = 0

    def record(self):
        Event.recorded += 1

    def query(self):
        assert Event.recorded, "nothing was waited for"
        return Event.over


@pytest.fixture
def device(monkeypatch):
    """Stands in for a GPU; ``device.over = True`` ends its work."""
    pinned = []
    empty = torch.empty

    def pin(*shape, pin_memory=False, **options):
        pinned.append(pin_memory)
        return empty(*shape, **options)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: Event.capturing)
    monkeypatch.setattr(torch, "empty", pin)
    Event.over, Event.recorded, Event.capturing, Event.pinned = False, 0, False, pinned
    return Event


def test_on_cuda_the_first_call_measures_and_a_later_one_tells(device):
    first = look((255 * even()).as_subclass(OnCuda))
    assert first.pending
    assert device.recorded == 1
    assert device.pinned == [True]  # a copy into pageable memory would wait
    for _ in range(3):
        look((255 * even()).as_subclass(OnCuda), first=first)
    assert first.pending
    assert device.recorded == 1  # measured once
    device.over = True
    with pytest.raises(InputError, match=r"run from 0 to 255, the bank's from 0 to 1 .*" + NOT_THE_SAME):
        look(even().as_subclass(OnCuda), first=first)  # of the first batch is told, not of this one
    assert first.pending  # the next batch is measured anew
    look(even().as_subclass(OnCuda), first=first)
    assert device.recorded == 2
    look(even().as_subclass(OnCuda), first=first)
    assert not first.pending


def test_on_cuda_all_is_well(device):
    first = look(even().as_subclass(OnCuda))
    device.over = True
    look((255 * even()).as_subclass(OnCuda), first=first)  # the first batch counts
    assert not first.pending


def test_on_cuda_nothing_to_compare(device):
    device.over = True
    first = look(torch.empty(0, *SHAPE).as_subclass(OnCuda))
    look(even().mul(255).byte().as_subclass(OnCuda), first=first)
    assert first.pending
    assert device.recorded == 0
    look(even().as_subclass(OnCuda), first=first)
    look(even().as_subclass(OnCuda), first=first)
    assert not first.pending


def test_while_a_cuda_graph_is_captured_nothing_is_done(device):
    """What is captured would be done again at every replay."""
    device.capturing = True
    first = look((255 * even()).as_subclass(OnCuda))
    assert first.pending
    assert device.recorded == 0
    device.capturing = False
    look((255 * even()).as_subclass(OnCuda), first=first)
    device.over = device.capturing = True
    assert look(even().as_subclass(OnCuda), first=first).pending
    device.capturing = False
    with pytest.raises(InputError, match=NOT_THE_SAME):
        look(even().as_subclass(OnCuda), first=first)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda first: pickle.loads(pickle.dumps(first))])
def test_a_copy_measures_for_itself(device, duplicate):
    """Events and pinned memory belong to one process."""
    first = look((255 * even()).as_subclass(OnCuda))
    other = duplicate(first)
    assert other.pending
    device.over = True
    look(even().as_subclass(OnCuda), first=other)
    assert device.recorded == 2
    assert not look(even().as_subclass(OnCuda), first=other).pending
    with pytest.raises(InputError, match=NOT_THE_SAME):
        look(even().as_subclass(OnCuda), first=first)


@needs_cuda
def test_on_a_real_device_without_waiting():
    bank = make_bank().cuda()
    images = 255 * even().cuda()
    scale, shift = (tensor.cuda() for tensor in bank.unit())
    first = RangeCheck()
    torch.cuda.set_sync_debug_mode("error")
    try:
        first(images, bank, scale, shift)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert first.pending
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(InputError, match=r"run from 0 to 255, the bank's from 0 to 1 .*" + NOT_THE_SAME):
            first(images, bank, scale, shift)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not first.pending


@needs_cuda
def test_in_a_training_loop_on_a_real_device():
    genmix = GenMix(make_bank(), generator=torch.Generator("cuda").manual_seed(0)).cuda()
    images, labels = normalised(even(), **HALF).cuda(), torch.zeros(4, dtype=torch.int64, device="cuda")

    def train():
        for _ in range(3):
            genmix(images, labels)
            torch.cuda.synchronize()

    with pytest.raises(InputError, match=r"run from -1 to 1, .*" + NOT_THE_SAME):
        train()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_on_a_device_that_is_not_the_current_one():
    """The event must be of the stream on which the batch was measured."""
    bank = make_bank().to("cuda:1")
    scale, shift = (tensor.to("cuda:1") for tensor in bank.unit())
    images = even().to("cuda:1")
    with torch.cuda.device(0):
        first = RangeCheck()
        with torch.cuda.device(1):
            torch.cuda._sleep(200_000_000)
        first(images, bank, scale, shift)
        assert not first._ready.query()
        torch.cuda.synchronize(1)
        first(images, bank, scale, shift)
    assert not first.pending


def test_the_class_hands_its_batches_over_on_every_call_until_it_is_done():
    """A pending look is asked again at the next batch: integers first, then floats that are wrong."""
    genmix = GenMix(make_bank())
    labels = torch.zeros(4, dtype=torch.int64)
    genmix(torch.zeros(4, *SHAPE, dtype=torch.uint8), labels)
    genmix(torch.empty(0, *SHAPE), labels[:0])
    with pytest.raises(InputError, match=re.escape("run from 0 to 255")):
        genmix(255 * even(), labels)


def test_noise_that_reaches_beyond_is_no_other_unit():
    """Unclamped noise puts single values anywhere; it is most of them that count."""
    bank = SyntheticBank(torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8), torch.zeros(8).long(), classes=["a"])
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(16, 1, 32, 32, generator=generator) + 0.1 * torch.randn(16, 1, 32, 32, generator=generator)
    assert images.min() < -0.25
    GenMix(bank)(images, torch.zeros(16, dtype=torch.int64))
    with pytest.raises(InputError, match=NOT_THE_SAME):
        GenMix(bank)((images - 0.5) / 0.25, torch.zeros(16, dtype=torch.int64))


def test_a_bad_batch_is_refused_again_when_it_comes_again():
    """A cell that is run twice must not pass the second time."""
    bank = SyntheticBank(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2).long(), classes=["a"])
    genmix = GenMix(bank)
    for _ in range(2):
        with pytest.raises(InputError, match=NOT_THE_SAME):
            genmix(torch.full((2, 1, 4, 4), 9.0), torch.zeros(2, dtype=torch.int64))
    genmix(torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, dtype=torch.int64))
    genmix(torch.full((2, 1, 4, 4), 9.0), torch.zeros(2, dtype=torch.int64))  # looked at no more
