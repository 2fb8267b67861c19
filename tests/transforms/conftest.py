"""Banks and batches for all tests of this room; and what every way of mixing must do: laws, under many cases.

A test with an argument ``case`` runs on all cases, one with ``law`` under all laws; a module says what its way takes
by ``DTYPES`` and ``LAYOUTS``. A way is called ``mix(images, pixels, drawn, units, out=None)`` and returns its output.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.transforms.drawing import Draw
from genmix_transforms.transforms.mix import Units

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
U8, U16 = torch.uint8, torch.uint16
HIGHEST = {U8: 255, U16: 65535}
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}

MANTISSA = {F16: 11, BF16: 8}
"""Bits, the leading one included."""
SMALLEST_EXPONENT = {F16: -14, BF16: -126}


def lay_out(tensor, layout):
    """The same values in another layout of memory."""
    if layout == "contiguous":
        return tensor.contiguous()
    if layout == "channels last":
        return tensor.contiguous(memory_format=LAST[tensor.ndim])
    if layout == "every second column":
        return torch.stack([tensor, torch.zeros_like(tensor)], dim=-1).flatten(-2)[..., ::2]
    if layout == "every second image":
        return torch.stack([tensor, torch.zeros_like(tensor)], dim=1).flatten(0, 1)[::2]
    if layout == "some channels":
        return torch.cat([torch.zeros_like(tensor), tensor, torch.zeros_like(tensor)], dim=1)[
            :, tensor.shape[1] : 2 * tensor.shape[1]
        ]
    if layout == "a part":  # dense, but it begins within other memory
        return torch.cat([torch.zeros_like(tensor[:1]), tensor])[1:]
    assert layout == "images last"
    return tensor.permute(*range(1, tensor.ndim), 0).contiguous().permute(-1, *range(tensor.ndim - 1))


def make_units(channels, dimensions, *, dtype=F32, bank_dtype=U8, plain=False):
    """Other scales and shifts for each channel; for integers, one scale and no shift."""
    levels = torch.arange(channels, dtype=F32)
    scale = (1 + levels / 3) / HIGHEST[bank_dtype] / 0.4
    shift = -0.7 + levels / 2
    if plain:
        scale, shift = torch.full((channels,), 1 / HIGHEST[bank_dtype]), torch.zeros(channels)
    scale, shift = (values.view(-1, *[1] * (dimensions - 2)) for values in (scale, shift))
    if not dtype.is_floating_point:
        return Units.between_integers(scale, HIGHEST[dtype] / HIGHEST[bank_dtype])
    return Units(scale, shift)


def random_images(shape, dtype, generator):
    if dtype.is_floating_point:
        return (2 * torch.randn(shape, generator=generator, dtype=F64)).to(dtype)
    return torch.randint(0, HIGHEST[dtype] + 1, shape, generator=generator, dtype=torch.int32).to(dtype)


@dataclass
class Case:
    """A batch, a bank and a draw."""

    shape: tuple[int, ...] = (5, 3, 9, 7)
    dtype: torch.dtype = F32
    bank_dtype: torch.dtype = U8
    layout: str = "contiguous"
    bank_layout: str = "contiguous"
    out_layout: str | None = None  # None: that of torch.empty_like
    own: str = "none"  # partners of the batch: none, some, all
    inplace: bool = False
    plain: bool = False  # one scale for all channels, no shift
    seed: int = 0
    lam: list[float] | None = None
    images: Any = field(init=False)
    pixels: Any = field(init=False)
    draw: Draw = field(init=False)
    units: Units = field(init=False)

    def __post_init__(self):
        generator = torch.Generator().manual_seed(self.seed)
        count, bank_count = self.shape[0], 7
        self.images = lay_out(random_images(self.shape, self.dtype, generator), self.layout)
        bank_shape = (bank_count, *self.shape[1:])
        self.pixels = lay_out(random_images(bank_shape, self.bank_dtype, generator), self.bank_layout)
        lam = torch.rand(count, generator=generator) if self.lam is None else torch.tensor(self.lam)
        index = torch.randint(0, bank_count, (count,), generator=generator)
        own = None
        if self.own != "none":
            # Every image is mixed with the next but one, which is itself mixed: in place, order would show.
            own = torch.ones(count, dtype=torch.bool)
            if self.own == "some":
                own[1::3] = False
            index = torch.where(own, (torch.arange(count) + 2) % max(1, count), index)
        self.draw = Draw(lam, index, own)
        self.units = make_units(
            self.shape[1], len(self.shape), dtype=self.dtype, bank_dtype=self.bank_dtype, plain=self.plain
        )

    def exact(self):
        """Eq. (1) in double precision, by a loop over images and channels; and the size of what was added up."""
        lam, index, own = (None if value is None else value.tolist() for value in self.draw)
        width = math.prod(self.shape[2:])
        real = self.images.double().numpy().reshape(*self.shape[:2], width)
        pixels = self.pixels.double().numpy().reshape(len(self.pixels), self.shape[1], width)
        scale, shift = (values.double().flatten().numpy() for values in self.units)
        mixed, size = np.empty_like(real), np.empty_like(real)
        for n in range(self.shape[0]):
            for c in range(self.shape[1]):
                if own is not None and own[n]:
                    partner, terms = real[index[n], c], np.abs(real[index[n], c])
                else:
                    partner = pixels[index[n], c] * scale[c] + shift[c]
                    terms = np.abs(pixels[index[n], c] * scale[c]) + abs(shift[c])
                mixed[n, c] = lam[n] * partner + (1 - lam[n]) * real[n, c]
                size[n, c] = terms + np.abs(real[n, c])
        return mixed.reshape(self.shape), size.reshape(self.shape)

    def run(self, mix):
        """The output, after looking whether the way kept to what it may write."""
        expected = self.exact()
        before = self.images.clone(), self.pixels.clone()
        out = None
        if self.inplace:
            out = self.images
        elif self.out_layout is not None:
            out = lay_out(torch.zeros(self.shape).to(self.dtype), self.out_layout)
        found = mix(self.images, self.pixels, self.draw, self.units, out=out)
        if out is not None:
            assert found is out
        else:
            assert found.stride() == torch.empty_like(self.images).stride()
        if not self.inplace:
            assert torch.equal(self.images, before[0])
        assert torch.equal(self.pixels, before[1])
        check(found, *expected, dtype=self.dtype, truncated=self.dtype == BF16 and truncates(mix))
        return found


def spacing(values, dtype):
    """From each value to the next of a dtype."""
    exponent = np.frexp(np.abs(values))[1] - 1
    return np.ldexp(1.0, np.maximum(exponent, SMALLEST_EXPONENT[dtype]) - MANTISSA[dtype] + 1)


def truncates(mix):
    """Triton's interpreter cuts float32 off to bfloat16 where a GPU rounds: a whole spacing instead of half of one."""
    return getattr(mix, "truncates_to_bfloat16", False)


def check(found, exact, size, *, dtype, truncated):
    """Within the roundings that cannot be helped.

    Computed are product and sum of the partner, difference, product and sum of the mix. Of these five roundings the
    weights let at most four through at full size, each of half a unit in the last place of what was added up: 4 u.
    Then one to the images' dtype: half of its spacing, or half a level.
    """
    assert (found.dtype, tuple(found.shape)) == (dtype, exact.shape)
    found = found.double().numpy()
    computed = 8 * 2.0**-53 * size if dtype == F64 else 4 * 2.0**-24 * size  # for float64, the loop's own besides
    if dtype in MANTISSA:
        rounded = spacing(np.maximum(np.abs(found), np.abs(exact)), dtype) * (1 if truncated else 0.5)
    else:
        rounded = 0.0 if dtype.is_floating_point else 0.5
    if not dtype.is_floating_point:
        assert found.min(initial=0) >= 0
        assert found.max(initial=0) <= HIGHEST[dtype]
    excess = np.abs(found - exact) - rounded - computed
    assert (excess <= 0).all(), f"off by {np.abs(found - exact).max()}, of which {excess.max()} too much"


CASES = {
    **{f"{dtype}".removeprefix("torch."): {"dtype": dtype} for dtype in (F16, BF16, F32, F64, U8, U16)},
    **{
        f"{dtype}, bank of 16 bits".removeprefix("torch."): {"dtype": dtype, "bank_dtype": U16}
        for dtype in (BF16, F32, U8, U16)
    },
    **{
        f"{dtype}, {own} of the batch{', in place' if inplace else ''}".removeprefix("torch."): {
            "dtype": dtype, "own": own, "inplace": inplace,
        }
        for dtype in (F16, BF16, F32, F64, U8, U16)
        for own, inplace in (("none", True), ("some", True), ("all", False))
    },
    "in units of [0, 1]": {"plain": True},
    "no images": {"shape": (0, 3, 9, 7)},
    "no images, in place": {"shape": (0, 3, 9, 7), "inplace": True, "own": "some"},
    "one image": {"shape": (1, 3, 9, 7)},
    "one image, its own partner": {"shape": (1, 3, 9, 7), "own": "all", "inplace": True},
    "one channel": {"shape": (4, 1, 9, 7)},
    "four channels of one pixel": {"shape": (4, 4, 1, 1)},
    "many small images": {"shape": (65, 2, 3, 5), "own": "some"},
    "volumes": {"shape": (3, 2, 3, 5, 7)},
    "volumes, in place": {"shape": (3, 2, 3, 5, 7), "own": "some", "inplace": True},
    "volumes, channels last": {"shape": (3, 2, 3, 5, 7), "layout": "channels last"},
    "volumes, all channels last": {"shape": (3, 2, 3, 5, 7), "layout": "channels last", "bank_layout": "channels last"},
    "signals": {"shape": (3, 2, 33)},
    "channels last": {"layout": "channels last", "own": "some"},
    "channels last, in place": {"layout": "channels last", "own": "some", "inplace": True},
    "channels last, bfloat16": {"layout": "channels last", "dtype": BF16},
    "channels last, uint8": {"layout": "channels last", "dtype": U8, "inplace": True},
    "bank with channels last": {"bank_layout": "channels last", "own": "some"},
    "all with channels last": {"layout": "channels last", "bank_layout": "channels last"},
    "bank with channels last, uint8": {"bank_layout": "channels last", "dtype": U8},
    "every second column": {"layout": "every second column", "own": "some"},
    "every second column, in place": {"layout": "every second column", "own": "some", "inplace": True},
    "every second image": {"layout": "every second image", "inplace": True},
    "some channels": {"layout": "some channels", "dtype": F16, "inplace": True},
    "a part": {"layout": "a part", "inplace": True},
    "images last": {"layout": "images last", "own": "all"},
    "images last, uint8, in place": {"layout": "images last", "dtype": U8, "own": "some", "inplace": True},
    "every second image of the bank": {"bank_layout": "every second image"},
    "bank with images last": {"bank_layout": "images last"},
    "a part of the bank": {"bank_layout": "a part", "dtype": BF16},
    "into another layout": {"out_layout": "channels last", "own": "some"},
    "into contiguous": {"layout": "channels last", "out_layout": "contiguous"},
    "into a part": {"out_layout": "some channels", "dtype": U8},
    "into memory at hand": {"out_layout": "contiguous", "own": "some"},
}  # fmt: skip


# Laws beyond the equation


def dequantised(case):
    """The partners in float32 (float64 for float64): with one rounding, or with two."""
    dtype = np.float64 if case.dtype == F64 else np.float32
    index = case.draw.index
    pixels = case.pixels[index].double().numpy()
    scale, shift = (values.double().numpy().reshape(-1, *[1] * (len(case.shape) - 2)) for values in case.units)
    product = pixels * scale  # exact: 24 bits times 16
    return (product + shift).astype(dtype), (product.astype(dtype) + shift.astype(dtype)).astype(dtype)


def law_lambda_0_is_the_real_image(mix, dtype):
    case = Case(dtype=dtype, lam=[0.0] * 5, own="some")
    assert torch.equal(case.run(mix), case.images)


def law_lambda_1_is_the_partner(mix, dtype):
    """Whatever the real image is; rounded once to the images' dtype."""
    for bank_dtype in (U8, U16) if dtype in (F32, U16) else (U8,):
        case = Case(dtype=dtype, lam=[1.0] * 5, bank_dtype=bank_dtype)
        found = case.run(mix)
        ways = [torch.from_numpy(values) for values in dequantised(case)]
        if not dtype.is_floating_point:
            ways = [values.round() for values in ways]
        one, other = (values.to(dtype) for values in ways)
        if dtype != BF16 or not truncates(mix):
            found_, one, other = (values.double() for values in (found, one, other))  # uint16 has few operations
            assert bool(((found_ == one) | (found_ == other)).all())
        case.images = torch.zeros_like(case.images)
        assert torch.equal(case.run(mix), found)
    own = Case(dtype=dtype, lam=[1.0] * 5, own="all")
    assert torch.equal(own.run(mix), own.images[own.draw.index])


def law_an_image_mixed_with_itself_is_itself(mix, dtype):
    """For every lambda: none of the roundings may show."""
    for shape in ((20, 3, 2, 2), (1, 3, 8, 8)):
        case = Case(dtype=dtype, shape=shape, own="all")
        case.draw = Draw(case.draw.lam, torch.arange(shape[0]), torch.ones(shape[0], dtype=torch.bool))
        assert torch.equal(case.run(mix), case.images)


def law_what_is_no_number_stays_none(mix, dtype):
    """And spreads to no other pixel: whoever looks for it finds it after the mix as before."""
    if dtype.is_floating_point:
        images = torch.zeros(3, 1, 2, 2, dtype=dtype)
        images[0, 0, 0, 1], images[1, 0, 1, 0], images[2, 0, 0, 0] = torch.nan, torch.inf, -torch.inf
        draw = Draw(torch.tensor([0.3, 0.3, 0.7]), torch.tensor([0, 1, 2]), None)
        mixed = mix(images, torch.full((3, 1, 2, 2), 255, dtype=U8), draw, make_units(1, 4, plain=True))
        assert torch.equal(mixed.isfinite(), images.isfinite())
        assert mixed[0, 0, 0, 1].isnan()


def law_halves_go_to_the_even_number(mix, dtype):
    """All pairs of levels, lambdas at which the mix is often half-way between two: as torch.round."""
    if dtype.is_floating_point:
        return
    lam = [0.25, 0.5, 0.75, 0.5]
    levels = torch.arange(256)
    if dtype == U16:
        levels = torch.randint(0, 65536, (256,), generator=torch.Generator().manual_seed(0))
    real = levels.view(1, 1, 256, 1).expand(4, 1, 256, 256).to(dtype).contiguous()
    pixels = levels.view(1, 1, 1, 256).expand(1, 1, 256, 256).to(dtype).contiguous()
    draw = Draw(torch.tensor(lam), torch.zeros(4, dtype=torch.int64), None)
    units = Units.between_integers(torch.ones(1, 1, 1), 1.0)
    exact = torch.tensor(lam).double().view(4, 1, 1, 1) * pixels.double()
    exact = exact + (1 - torch.tensor(lam).double().view(4, 1, 1, 1)) * real.double()
    assert ((exact * 2) % 2 == 1).sum() > 60_000  # halves
    assert torch.equal(mix(real, pixels, draw, units).double(), exact.round())


def law_overflow_is_infinite(mix, dtype):
    """As a conversion's, not a large number with the other sign."""
    if dtype == F16:
        images = torch.full((1, 1, 2, 2), 60000.0, dtype=F16)
        units = Units(torch.full((1, 1, 1), 1000.0), torch.zeros(1, 1, 1))
        draw = Draw(torch.tensor([0.5]), torch.tensor([0]), None)
        mixed = mix(images, torch.full((1, 1, 2, 2), 255, dtype=U8), draw, units)
        assert bool((mixed == torch.inf).all())


def law_an_image_depends_on_its_own_row_alone(mix, dtype):
    """Bit for bit, whatever the batch: splitting it, or going through it in another order."""
    case = Case(dtype=dtype, shape=(7, 2, 5, 5))
    together = case.run(mix)
    order = torch.tensor([4, 0, 6, 2])
    lam, index, _ = case.draw
    some = mix(case.images[order], case.pixels, Draw(lam[order], index[order], None), case.units)
    assert torch.equal(some, together[order])


def law_indices_may_be_strided(mix, dtype):
    """As parts of a larger draw are, or columns of one."""
    case = Case(dtype=dtype, own="some")
    expected = case.run(mix)
    strided = Draw(*(torch.stack([value, torch.zeros_like(value)], dim=1)[:, 0] for value in case.draw))
    assert not strided.index.is_contiguous()
    assert torch.equal(mix(case.images, case.pixels, strided, case.units), expected)


def law_the_default_device_does_not_matter(mix, dtype):
    """Scripts set it to CUDA, and have the batch on the CPU still."""
    case = Case(dtype=dtype, own="some")
    expected = case.run(mix)
    with torch.device("meta"):
        found = mix(case.images, case.pixels, case.draw, case.units)
    assert torch.equal(found, expected)


LAWS: dict[str, Callable[..., None]] = {
    name.removeprefix("law_"): law for name, law in list(globals().items()) if name.startswith("law_")
}
DTYPES = (F16, BF16, F32, F64, U8, U16)


def pytest_generate_tests(metafunc):
    """Over all cases and laws that the module's way takes."""
    dtypes = getattr(metafunc.module, "DTYPES", DTYPES)
    layouts = getattr(metafunc.module, "LAYOUTS", None)
    if "case" in metafunc.fixturenames:
        names = []
        for name, options in CASES.items():
            used = {options.get(which, "contiguous") for which in ("layout", "bank_layout", "out_layout")}
            if options.get("dtype", F32) in dtypes and (layouts is None or used <= set(layouts)):
                names.append(name)
        if "on_device" in metafunc.fixturenames and not torch.cuda.is_available():
            names = names[:1]  # one line says that they are skipped
        metafunc.parametrize("case", names, indirect=True)
    if "law" in metafunc.fixturenames:
        pairs = [(name, dtype) for name in LAWS for dtype in dtypes]
        if "on_device" in metafunc.fixturenames and not torch.cuda.is_available():
            pairs = pairs[:1]
        ids = [f"{name.replace('_', ' ')}, {dtype}".replace("torch.", "") for name, dtype in pairs]
        metafunc.parametrize("law", pairs, ids=ids, indirect=True)


@pytest.fixture
def case(request):
    return Case(**CASES[request.param])


@pytest.fixture
def law(request):
    """``law(mix)`` holds a way to it; its dtype is ``law.dtype``."""
    name, dtype = request.param

    def hold(mix):
        LAWS[name](mix, dtype)

    hold.name, hold.dtype = name, dtype
    return hold


@pytest.fixture(scope="session")
def make_case():
    return Case


@pytest.fixture(scope="session")
def lay():
    return lay_out


# Banks and batches in which every image is evenly of one level, its own, so that a mix shows what it was made of

SHAPE = (1, 2, 2)


def make_levels(levels, shape=SHAPE):
    """Images ``(N, *shape)``, each filled with its level."""
    levels = torch.as_tensor(levels)
    return levels.view(-1, *[1] * len(shape)).expand(-1, *shape).clone()


def make_random_bank(count=12, *, classes=3, shape=SHAPE, dtype=torch.uint8, soft=False, seed=0, **options):
    """Random images; the classes in turn."""
    generator = torch.Generator().manual_seed(seed)
    highest = 255 if dtype == torch.uint8 else 65535
    images = torch.randint(0, highest + 1, (count, *shape), generator=generator).to(dtype)
    labels = torch.arange(count) % classes
    if soft:
        labels = torch.softmax(3 * torch.eye(classes)[labels] + torch.rand(count, classes, generator=generator), 1)
    return SyntheticBank(images, labels, classes=[f"c{number}" for number in range(classes)], **options)


def make_counted_bank(counts, **options):
    """As many images of each class as ``counts`` says; the image in row n of the bank is of level n mod 256."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = make_levels(torch.arange(len(labels)) % 256).to(torch.uint8)
    return SyntheticBank(images, labels, classes=[f"c{number}" for number in range(len(counts))], **options)


def make_batch(count=4, *, classes=3, shape=SHAPE, dtype=torch.float32, seed=1):
    """Random images in [0, 1) and class indices."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *shape, generator=generator).to(dtype), torch.randint(
        0, classes, (count,), generator=generator
    )


@pytest.fixture
def levels():
    return make_levels


@pytest.fixture
def random_bank():
    return make_random_bank


@pytest.fixture
def counted_bank():
    return make_counted_bank


@pytest.fixture
def batch():
    return make_batch


@pytest.fixture
def threads():
    """Say how many threads torch has; as many as before, afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
