"""What every kind of generator keeps: the identity of an image, the folder, the training. A new kind passes through it.

A kind's own tests hold what is its own: losses, networks, weights from elsewhere.
"""

import inspect
import json
import re
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from genmix_transforms import GenMix
from genmix_transforms.data.identity import find_recorded
from genmix_transforms.data.multi_label import MultiLabelPatches
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import CorruptFileError, InputError, OverwriteError
from genmix_transforms.generators import DCGAN, TextualInversion, adm, fill_bank, load_generator
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.ema import MovingAverage
from genmix_transforms.generators.kinds import trainable_kinds
from genmix_transforms.generators.processes import Processes
from genmix_transforms.generators.state import pack
from genmix_transforms.generators.steps import Steps
from tests.generators.jobs import make_job
from tests.generators.kinds import CLASSES, KINDS, Kind
from tests.pretend_cuda import DEVICE, PretendCuda

Patches = Callable[..., PatchDataset]

TRAINED_ON = torch.device("cpu", 0)
"""The CPU by another name: where a training leaves its network can be told from where it was made."""


def find(name: str) -> Kind:
    found = KINDS[name]
    if found.needs:
        pytest.importorskip(found.needs, reason=f"{name} needs {found.needs}")
    return found


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return find(request.param)


@pytest.fixture(params=[name for name in KINDS if name != "per-class"])
def one_network(request: pytest.FixtureRequest) -> Kind:
    """A kind that trains one network; a per-class generator hands its training to its members."""
    return find(request.param)


def fit(generator: Generator, patches: PatchDataset, out: Path, **options: Any) -> Generator:
    defaults = {"steps": 4, "batch_size": 4, "checkpoint_every": 8, "progress": False, "device": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few images: what these tests are made of
        return generator.fit(patches, out=out, **{**defaults, **options})


class Unbroken(NamedTuple):
    """The weights that a training ended with, and its folder, which is not to be written to."""

    weights_hash: str
    folder: Path


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, tiny_patches: Patches) -> Callable[[Kind], Unbroken]:
    """A training of a kind that was left alone: trained once."""
    found: dict[type[Generator], Unbroken] = {}

    def trained(kind: Kind) -> Unbroken:
        if kind.cls not in found:
            out = tmp_path_factory.mktemp("unbroken") / "run"
            found[kind.cls] = Unbroken(fit(kind.make(), tiny_patches(), out).weights_hash, out)
        return found[kind.cls]

    return trained


def test_every_kind_is_here() -> None:
    assert set(trainable_kinds()) | {"per-class"} == set(KINDS)


# Images


def test_an_image_depends_on_its_own_label_and_seed_alone(kind: Kind) -> None:
    generator = kind.make()
    labels, seeds = [0, 1, 1, 0, 1, 0, 0], [5, 6, 2**40, 5, 7, 2**62, 8]
    together = generator.sample(labels, seeds)
    assert together.shape == (7, *generator.image_shape)
    assert together.dtype == generator.pixel_dtype
    assert torch.equal(generator.sample(labels[::-1], seeds[::-1]), together.flip(0))
    for number in (1, 2, 6):
        assert torch.equal(generator.sample([labels[number]], [seeds[number]])[0], together[number])
    assert torch.equal(together[0], together[3])
    assert not torch.equal(together[0], together[6])


def test_sampling_leaves_the_training_mode_and_random_numbers_alone(kind: Kind) -> None:
    generator = kind.make()
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    images = generator.sample([0, 1], [1, 2])
    assert torch.equal(torch.rand(2), expected)
    assert not any(value.requires_grad for value in (images,))
    assert generator.sample([], []).shape == (0, *generator.image_shape)


@pytest.mark.parametrize(
    ("labels", "seeds", "message"),
    [
        ([0, 2], [0, 1], "labels run from 0 to 2, but the classes are 0 cyst, 1 metastasis"),
        ([-1], [0], "labels run from -1"),
        ([0], [-5], "seeds must not be negative, got -5"),
        ([0, 1], [0], "one seed for each label, got 2 labels and 1 seeds"),
        ([0.5], [0], "labels must be whole numbers"),
        ([[0]], [0], r"labels must be whole numbers of shape \(n,\)"),
        ([0], [2**63], r"labels and seeds must be whole numbers below 2\*\*63"),
        (["a"], [1], "labels and seeds must be whole numbers"),
        ([[1, 0]], [0], r"got torch.int64 of shape \(1, 2\); a soft label is a row of floats, one weight a class"),
        ([[[0.5, 0.5]]], [0], r"got torch.float32 of shape \(1, 1, 2\); a soft label is a row of floats"),
    ],
)
def test_samples_that_cannot_be(kind: Kind, labels: list[Any], seeds: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind.ready().sample(labels, seeds)


# Soft labels


@pytest.fixture(params=[name for name in KINDS if KINDS[name].cls.refuses_soft_labels is None])
def takes_rows(request: pytest.FixtureRequest) -> Generator:
    """A generator that mixes what it is told of its classes, with classes that differ."""
    generator = find(request.param).make()
    network: Any = generator.network
    with torch.no_grad():
        for value in network.parameters():
            value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel()))
        if hasattr(network, "mean_w"):
            network.mean_w.copy_(torch.randn(network.mean_w.shape, generator=torch.Generator().manual_seed(0)))
            generator = generator.truncated(psi=0.7)  # type: ignore[attr-defined]
    return generator


def test_a_row_with_all_weight_on_one_class_is_that_classs_image(takes_rows: Generator) -> None:
    labels, seeds = torch.tensor([0, 1, 1, 0, 1]), [5, 6, 2**40, 5, 7]
    expected = takes_rows.sample(labels, seeds)
    rows = torch.nn.functional.one_hot(labels, 2)
    for dtype in (torch.float32, torch.float64, torch.float16):
        assert torch.equal(takes_rows.sample(rows.to(dtype), seeds), expected)
    assert torch.equal(takes_rows.sample(rows.float().tolist(), seeds), expected)
    assert not torch.equal(takes_rows.sample([1], [5])[0], expected[0])  # so that the classes are told apart


def test_an_image_depends_on_its_own_row_and_seed_alone(takes_rows: Generator) -> None:
    rows = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.3, 0.7], [0.25, 0.75], [0.0, 1.0], [0.5, 0.5], [0.9, 0.1]])
    seeds = [5, 5, 5, 2**40, 5, 5, 2**62]
    together = takes_rows.sample(rows, seeds)
    assert torch.equal(takes_rows.sample(rows.flip(0), seeds[::-1]), together.flip(0))
    for number in (0, 2, 6):
        assert torch.equal(takes_rows.sample(rows[number : number + 1], [seeds[number]])[0], together[number])
    assert torch.equal(together[0], together[5])
    for other in (1, 2, 4):  # of the same seed
        assert not torch.equal(together[0], together[other])
    assert takes_rows.sample(torch.zeros(0, 2), []).shape == (0, *takes_rows.image_shape)


@pytest.mark.parametrize(
    ("rows", "seeds", "message"),
    [
        ([[0.5, 0.6]], [0], "must sum to 1, row 0 sums to 1.1; divide each row by its sum"),
        ([[1.0, 0.0], [0.0, 0.0]], [0, 1], "row 1 sums to 0;"),
        ([[-0.5, 1.5]], [0], "must not be negative, got -0.5"),
        ([[1.0, float("nan")]], [0], "must be numbers, got NaN or infinity"),
        ([[1.0, 0.0, 0.0]], [0], r"a weight for each of the 2 classes \(cyst, metastasis\), got rows of 3"),
        ([[1.0, 0.0]], [0, 1], "one seed for each label, got 1 labels and 2 seeds"),
    ],
)
def test_soft_labels_that_cannot_be(kind: Kind, rows: list[Any], seeds: list[int], message: str) -> None:
    generator = kind.ready()
    if generator.refuses_soft_labels is not None:
        message = f"labels are rows of weights, and {generator.refuses_soft_labels}: give whole numbers"
    with pytest.raises(InputError, match=message):
        generator.sample(rows, seeds)


@contextmanager
def images_drawn(generator: Generator) -> Iterator[list[int]]:
    """How many images each pass through the networks computes."""
    sizes: list[int] = []

    def count(_: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        first = arguments[0] if arguments else next(iter(options.values()))
        sizes.append(len(first))

    networks = [member.network for member in getattr(generator, "members", [generator])]
    # A StyleGAN draws with a part of its network.
    parts = [getattr(network, "synthesis", network) for network in networks]
    handles = [part.register_forward_pre_hook(count, with_kwargs=True) for part in parts]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


def test_a_fill_computes_the_images_asked_for_and_one_partial_batch_at_most(kind: Kind, tmp_path: Path) -> None:
    generator = kind.make()
    with images_drawn(generator) as one:
        generator.sample([0], [0])
    passes, batch = len(one), generator.sample_batch
    with images_drawn(generator) as sizes:
        fill_bank(generator, counts={"cyst": 37, "metastasis": 50}, out=tmp_path / "bank", progress=False)
    partial = 2 if not generator.mixes_classes else 1  # a batch that is not full, for each network
    asked = 87
    # A pass of a guided sampler computes each image twice; a sampler takes several passes for an image.
    computed = sum(sizes) / (sum(one) / batch)
    assert asked <= computed < asked + partial * batch
    assert passes >= 1


# The folder


def test_a_saved_generator_is_the_same(kind: Kind, tmp_path: Path) -> None:
    generator = kind.make()
    generator.save_pretrained(tmp_path / "run")
    loaded = load_generator(tmp_path / "run")
    assert type(loaded) is type(generator)
    assert loaded.config == generator.config
    assert loaded.weights_hash == generator.weights_hash
    assert torch.equal(loaded.sample([0, 1], [3, 3]), generator.sample([0, 1], [3, 3]))
    description = loaded.describe()
    assert description["kind"] == json.loads(json.dumps(description))["kind"] == generator.kind
    with pytest.raises(OverwriteError, match="holds a generator already; give another folder, or overwrite=True"):
        generator.save_pretrained(tmp_path / "run")
    generator.save_pretrained(tmp_path / "run", overwrite=True)


def test_the_same_weights_make_the_same_files(kind: Kind, tmp_path: Path) -> None:
    generator = kind.make()
    for name in ("one", "two"):
        generator.save_pretrained(tmp_path / name)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert files
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_one_flipped_bit_in_the_weights_is_refused(kind: Kind, tmp_path: Path) -> None:
    kind.make().save_pretrained(tmp_path)
    # The files for other libraries are copies: the weights that are drawn from stand in these two names.
    weights = next(
        file
        for file in sorted(tmp_path.rglob("*.safetensors"))
        if file.name in ("model.safetensors", "diffusion_pytorch_model.safetensors")
    )
    content = bytearray(weights.read_bytes())
    content[-3] ^= 16
    weights.write_bytes(content)
    with pytest.raises(CorruptFileError, match=rf"{weights.name}: damaged"):
        load_generator(tmp_path)


# The training


def test_fit_saves_what_it_returns(kind: Kind, tiny_patches: Patches, tmp_path: Path) -> None:
    generator = kind.make()
    before = generator.weights_hash
    assert fit(generator, tiny_patches(), tmp_path / "run") is generator
    assert generator.weights_hash != before
    loaded = load_generator(tmp_path / "run")
    assert loaded.weights_hash == generator.weights_hash
    assert loaded.provenance == generator.provenance
    assert loaded.provenance["training_set"] == tiny_patches().training_set()
    assert torch.equal(loaded.sample([0, 1], [5, 5]), generator.sample([0, 1], [5, 5]))


def test_the_provenance_has_every_setting(one_network: Kind, tiny_patches: Patches, tmp_path: Path) -> None:
    generator = fit(one_network.make(), tiny_patches(), tmp_path / "run", seed=3, checkpoint_every=4)
    settings = generator.provenance["settings"]
    assert set(settings) == {setting.name for setting in one_network.cls.training_settings.options()}
    assert (settings["steps"], settings["batch_size"], settings["checkpoint_every"]) == (4, 4, 4)
    assert (generator.provenance["seed"], generator.provenance["images_seen"]) == (3, 16)


def test_the_seed_decides_everything(
    kind: Kind, tiny_patches: Patches, tmp_path: Path, unbroken: Callable[[Kind], Unbroken]
) -> None:
    hashes = [unbroken(kind).weights_hash]
    for number, seed in enumerate((0, 1)):
        torch.manual_seed(number)  # the global random numbers do not matter
        hashes.append(fit(kind.make(), tiny_patches(), tmp_path / str(number), seed=seed).weights_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_stopped_run_goes_on_bit_for_bit(
    kind: Kind,
    tiny_patches: Patches,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unbroken: Callable[[Kind], Unbroken],
) -> None:
    whole = unbroken(kind).weights_hash
    trainee_class: Any = None
    make_trainee = kind.cls.make_trainee if kind.cls.training_settings.PRESETS else DCGAN.make_trainee
    owner = kind.cls if kind.cls.training_settings.PRESETS else DCGAN
    steps = 0

    def watched(self: Generator, *arguments: Any, **options: Any) -> Any:
        nonlocal trainee_class
        trainee = make_trainee(self, *arguments, **options)
        step = trainee.training_step

        def training_step(*values: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == 2:
                signal.raise_signal(signal.SIGTERM)  # as a scheduler sends it; this step is finished
            return step(*values)

        trainee.training_step = training_step
        return trainee

    monkeypatch.setattr(owner, "make_trainee", watched)
    with pytest.raises(KeyboardInterrupt):
        fit(kind.make(), tiny_patches(), tmp_path / "run")
    assert steps == 2
    again = fit(kind.make(), tiny_patches(), tmp_path / "run").weights_hash
    assert again == whole
    members = len(getattr(kind.make(), "members", [0]))
    assert steps == 4 * members  # what was done is not done again


def test_another_run_is_not_gone_on_with(
    kind: Kind, tiny_patches: Patches, tmp_path: Path, unbroken: Callable[[Kind], Unbroken]
) -> None:
    shutil.copytree(unbroken(kind).folder, tmp_path / "run")
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")}
    with pytest.raises(InputError, match=r"holds a run with other settings \(seed: 0 there, 1 now\)"):
        fit(kind.make(), tiny_patches(), tmp_path / "run", seed=1)
    with pytest.raises(InputError, match=r"training_set.fingerprint"):
        fit(kind.make(), tiny_patches(26), tmp_path / "run")
    assert files == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")}
    assert fit(kind.make(), tiny_patches(), tmp_path / "run", seed=1, restart=True).provenance is not None


def test_after_a_training_it_is_where_it_was_trained(
    kind: Kind, tiny_patches: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = kind.make()
    places: dict[int, torch.device] = {}
    to = nn.Module.to

    def watched(self: nn.Module, *arguments: Any, **options: Any) -> nn.Module:
        device = options.get("device", arguments[0] if arguments else None)
        if isinstance(device, (str, torch.device)):
            for module in self.modules():
                places[id(module)] = torch.device(device)
        return to(self, *arguments, **options)

    monkeypatch.setattr(nn.Module, "to", watched)
    monkeypatch.setattr(Processes, "join", classmethod(lambda cls, device=None: cls(0, 1, TRAINED_ON)))
    fit(generator, tiny_patches(), tmp_path / "run")
    for member in getattr(generator, "members", [generator]):
        assert places[id(member.network)] == TRAINED_ON


def test_a_warm_start_goes_on_from_the_weights_there_are(
    one_network: Kind, tiny_patches: Patches, tmp_path: Path
) -> None:
    patches, more = tiny_patches(), tiny_patches(30)
    fit(one_network.make(), more, tmp_path / "first")
    first = load_generator(tmp_path / "first")
    start = first.weights_hash
    tuned = fit(first, patches, tmp_path / "second", steps=1, warm_start=True)
    assert tuned.provenance["started_from"]["weights"] == start != tuned.weights_hash
    # It has seen both sets: whoever compares it with one of them must notice.
    assert tuned.provenance["training_set"]["fingerprint"] == f"{more.fingerprint}+{patches.fingerprint}"
    with pytest.raises(InputError, match=r"options.started_from"):
        fit(tuned, patches, tmp_path / "second", warm_start=True, steps=2)


def test_the_same_object_trained_again_starts_anew(one_network: Kind, tiny_patches: Patches, tmp_path: Path) -> None:
    generator = one_network.make()
    first = fit(generator, tiny_patches(), tmp_path / "run").weights_hash
    assert fit(generator, tiny_patches(), tmp_path / "run", restart=True).weights_hash == first


def test_data_that_does_not_fit(kind: Kind, tiny_patches: Patches, tmp_path: Path) -> None:
    generator, whole = kind.ready(), tiny_patches()
    oblong = PatchDataset(images=whole.images[..., :12], labels=whole.labels, classes=whole.classes)
    for patches, message in (
        (oblong, "made for 1 x 16 x 16 torch.uint8 images, the data has 1 x 16 x 12"),
        (tiny_patches(size=32), "made for 1 x 16 x 16 torch.uint8 images, the data has 1 x 32 x 32"),
        (tiny_patches(channels=3), r"open it with size=16, channels=1"),
        (tiny_patches(classes=("a", "b")), "made for the classes cyst, metastasis, the data has a, b"),
        (tiny_patches(1), "no image of class metastasis to train on; leave the class out"),
        ((tiny_patches(), tiny_patches()), "expected a PatchDataset, got a tuple"),
    ):
        with pytest.raises(InputError, match=message):
            fit(generator, patches, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_several_labels_an_image_are_refused(kind: Kind, tiny_patches: Patches, tmp_path: Path) -> None:
    whole = tiny_patches()
    targets = torch.nn.functional.one_hot(whole.labels, 2).to(torch.uint8)
    several = MultiLabelPatches(images=whole.images, targets=targets, classes=whole.classes, name="chest.csv")
    generator = kind.ready()
    message = r"^chest\.csv: its images have several labels each .*, and this needs one label an image; [^\n]*$"
    for ask in (generator.check_trainable_on, lambda patches: fit(generator, patches, tmp_path / "run")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing is said of small classes first
            with pytest.raises(InputError, match=message):
                ask(several)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "best"}, r"preset must be one of .*, got 'best'"),
        ({"learning_rate": float("nan")}, "learning_rate must be .*, got nan"),
        ({"learning_rate": 1e9}, "learning_rate must be .*, got 1000000000.0"),
        ({"batch_size": 1_000_000_000}, "batch_size must be a whole number, from 1 to 65536, got 1000000000"),
        ({"steps": 1.5}, "steps must be a whole number, .*, got 1.5"),
        ({"checkpoint_every": 0}, "checkpoint_every must be a whole number, at least 1, got 0"),
        ({"mixed_precision": "fp16"}, "mixed_precision must be one of no, bf16, got 'fp16'"),
        ({"report_to": ("paper",)}, "report_to must be one of tensorboard, wandb, mlflow, got 'paper'"),
        ({"seed": -1}, "seed must be a whole number, from 0 to"),
        ({"device": "gpu"}, "no device 'gpu' here"),
        ({"stepz": 3}, r"\.fit: no such option: stepz; did you mean steps"),
    ],
)
def test_trainings_that_cannot_be(
    kind: Kind, options: dict[str, Any], message: str, tiny_patches: Patches, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        fit(kind.ready(), tiny_patches(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_few_images_are_warned_of_with_numbers(kind: Kind, tiny_patches: Patches) -> None:
    with pytest.warns(UserWarning, match=r"very few images .*cyst 12, metastasis 12 \(fewer than 100\)"):
        kind.ready().check_trainable_on(tiny_patches())


def test_an_estimate_writes_nothing(kind: Kind, tiny_patches: Patches, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimate = kind.make().estimate(
            tiny_patches(), out=tmp_path / "run", steps=10, batch_size=4, device=torch.device("cpu")
        )
    assert not (tmp_path / "run").exists()
    assert estimate.seconds > 0
    assert estimate.checkpoint_bytes > 0


def unseen(step: Callable[..., Any]) -> Callable[..., Any]:
    """PyTorch's optimizers count their steps on the CPU, and read that: not the device."""

    def without_modes(*arguments: Any, **options: Any) -> Any:
        with _disable_current_modes():
            return step(*arguments, **options)

    return without_modes


def ready_to_step(kind: Kind, patches: PatchDataset) -> tuple[Any, Callable[[], Any]]:
    """A trainee, and its first step; the optimizers, whose fused steps modes do not see through, are passed over."""
    generator, processes = kind.make(), Processes(0, 1, torch.device("cpu"))
    settings = generator.choose_settings({"batch_size": 4})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = generator.resolve(settings, patches, warm_start=False, processes=processes)
        trainee: Any = generator.make_trainee(settings, patches, seed=0, warm_start=False, processes=processes)
    for item in trainee.state_objects().values():
        if hasattr(item, "batch_size"):
            item.batch_size = 4
        if isinstance(item, torch.optim.Optimizer):
            item.step = unseen(item.step)
    inputs = getattr(trainee, "inputs", None)
    index = torch.arange(4)
    images = inputs(index) if inputs else patches.images[:4].float() / 127.5 - 1
    return trainee, lambda: trainee.training_step(images, patches.labels[:4], 0)


class NoFloat64(TorchDispatchMode):
    """Fails where a float64 tensor is made or read: Apple's GPUs have none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, made)):
            assert not isinstance(value, Tensor) or value.dtype != torch.float64, f"{func} of float64"
        return made


def test_a_training_on_a_device_without_float64_has_none(
    one_network: Kind, tiny_patches: Patches, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (adm.loss, adm.timesteps):
        monkeypatch.setattr(module, "widest_float", lambda device: torch.float32)  # as for "mps"
    with pytest.raises(AssertionError, match="of float64"), NoFloat64():
        torch.zeros(2).double()
    trainee, step = ready_to_step(one_network, tiny_patches())
    with NoFloat64():
        step()
    _, tensors = pack({name: item.state_dict() for name, item in trainee.state_objects().items()})
    assert tensors
    assert torch.float64 not in {tensor.dtype for tensor in tensors.values()}


def test_the_average_lies_in_memory_as_what_it_averages(
    one_network: Kind, tiny_patches: Patches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then all of it moves in one pass over the memory."""
    update, strides = MovingAverage.update, []

    def watched(self: MovingAverage, network: nn.Module, **options: Any) -> None:
        for module in (self.average, network):
            strides.append([value.stride() for value in (*module.parameters(), *module.buffers())])
        update(self, network, **options)

    monkeypatch.setattr(MovingAverage, "update", watched)
    _, step = ready_to_step(one_network, tiny_patches())
    step()
    assert len(strides) == (0 if one_network.cls is TextualInversion else 2)  # that one averages nothing
    assert strides[:1] == strides[1:]
    assert not strides or any(stride[1] == 1 for stride in strides[0] if len(stride) == 4)  # channels last


def losses_of_two_steps(kind: Kind, patches: PatchDataset, device: torch.device) -> list[float]:
    """As the loop takes them: what it shows, the random numbers, the step; on the pretended device without waiting."""
    processes, watched = Processes(0, 1, device), PretendCuda.entered
    generator = kind.make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = generator.resolve(
            generator.choose_settings({"batch_size": 4}), patches, warm_start=False, processes=processes
        )
        trainee = generator.make_trainee(settings, patches, seed=0, warm_start=False, processes=processes)
    job = make_job(
        trainee, patches, Path("run"), snapshot=lambda: generator, steps=2, processes=processes,
        inputs=getattr(trainee, "inputs", None),
    )  # fmt: skip
    steps = Steps(job, trainee.state_objects())
    steps.prepare(progress=False)
    with watched.no_waiting() if watched else nullcontext():
        found = [steps.take(batch, 4 * step) for step, batch in enumerate(steps.batches(0, 8))]
    return [float(value.detach()) for values in found for value in values.values()]


def test_a_step_on_a_gpu_is_that_of_the_cpu_and_never_waits_for_it(one_network: Kind, tiny_patches: Patches) -> None:
    expected = losses_of_two_steps(one_network, tiny_patches(8), torch.device("cpu"))
    with PretendCuda() as device:
        found = losses_of_two_steps(one_network, tiny_patches(8), DEVICE)
    assert device.operations > 100
    assert found == pytest.approx(expected, rel=1e-4)


# Volumes


class Volumes(NamedTuple):
    """A tiny generator of volumes, how to make it again, what it was trained on, and the folder of its training."""

    generator: Generator
    make: Callable[[], Generator]
    patches: PatchDataset
    folder: Path


@pytest.fixture(scope="module", params=[name for name in KINDS if KINDS[name].volumes])
def volumes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_patches: Patches) -> Volumes:
    kind, patches = find(request.param), tiny_patches(dimensions=3)
    out = tmp_path_factory.mktemp("volumes") / "run"

    def make() -> Generator:
        return kind.make(dimensions=3)

    return Volumes(fit(make(), patches, out), make, patches, out)


def test_a_volume_depends_on_its_own_label_and_seed_alone(volumes: Volumes) -> None:
    generator = volumes.generator
    labels, seeds = [0, 1, 1, 0, 1], [5, 6, 2**40, 5, 7]
    together = generator.sample(labels, seeds)
    assert together.shape == (5, *generator.image_shape) == (5, 1, 16, 16, 16)
    assert together.dtype == generator.pixel_dtype
    assert torch.equal(generator.sample(labels[::-1], seeds[::-1]), together.flip(0))
    assert torch.equal(generator.sample([1], [6])[0], together[1])
    assert torch.equal(together[0], together[3])
    assert not torch.equal(together[1], together[4])
    assert generator.sample([], []).shape == (0, 1, 16, 16, 16)


def test_a_generator_of_volumes_is_loaded_as_it_was(volumes: Volumes, tmp_path: Path) -> None:
    volumes.generator.save_pretrained(tmp_path / "saved")
    expected = volumes.generator.sample([0, 1], [3, 3])
    for folder in (volumes.folder, tmp_path / "saved"):
        loaded = load_generator(folder)
        assert (loaded.config, loaded.image_shape) == (volumes.generator.config, (1, 16, 16, 16))
        assert loaded.provenance == volumes.generator.provenance
        assert torch.equal(loaded.sample([0, 1], [3, 3]), expected)


def test_a_training_on_volumes_goes_on_bit_for_bit(volumes: Volumes, tmp_path: Path) -> None:
    fit(volumes.make(), volumes.patches, tmp_path / "run", steps=2)
    again = fit(volumes.make(), volumes.patches, tmp_path / "run")
    assert again.weights_hash == volumes.generator.weights_hash


def test_volumes_fill_a_bank_that_is_mixed_into_a_batch(volumes: Volumes, tmp_path: Path) -> None:
    counts = {"cyst": 3, "metastasis": 9}
    bank = fill_bank(volumes.generator, counts=counts, out=tmp_path / "bank", progress=False)
    assert bank.image_shape == (1, 16, 16, 16)
    for label, seed, image in zip(bank.labels, bank.seeds, bank.images, strict=True):
        assert torch.equal(volumes.generator.sample([int(label)], [int(seed)])[0], image)
    mixed, labels = GenMix(bank)(volumes.patches.images[:4] / 255, volumes.patches.labels[:4])
    assert mixed.shape == (4, 1, 16, 16, 16)
    assert labels.shape == (4, 2)


def test_a_generator_of_volumes_refuses_other_patches(volumes: Volumes, tiny_patches: Patches, tmp_path: Path) -> None:
    for patches, message in (
        (tiny_patches(dimensions=3, size=32), "made for 1 x 16 x 16 x 16 torch.uint8 images, the data has 1 x 32 x"),
        (tiny_patches(), "draws volumes of 1 x 16 x 16 x 16, the data has images of 1 x 16 x 16, and weights of one"),
    ):
        with pytest.raises(InputError, match=message):
            fit(volumes.make(), patches, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name in KINDS if not KINDS[name].volumes])
def test_a_kind_that_draws_no_volumes_names_the_way_out(name: str, tiny_patches: Patches, tmp_path: Path) -> None:
    kind, patches = find(name), tiny_patches(dimensions=3)
    way_out = "volumes of 1 x 16 x 16 x 16: train a DCGAN, which draws volumes too, or cut 2.5-D patches from the scans"
    message = f"{kind.cls.__name__}: draws two-dimensional images, and discs holds {way_out}"
    kind.ready().save_pretrained(tmp_path / "images")
    for refused in (
        lambda: kind.cls.for_patches(patches, **kind.options()),
        lambda: kind.cls.adapted_to(tmp_path / "images", patches),
        lambda: fit(kind.ready(), patches, tmp_path / "run"),
        lambda: kind.ready().estimate(patches, out=tmp_path / "run"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            refused()
    assert not (tmp_path / "run").exists()


def test_the_kinds_say_whether_they_draw_volumes(kind: Kind) -> None:
    assert kind.ready().draws_volumes == kind.volumes


# Weights that knew no classes


@pytest.fixture(params=[name for name in KINDS if KINDS[name].pretrains])
def pretrained(request: pytest.FixtureRequest) -> Kind:
    """A kind that a pool of images without labels teaches something."""
    return find(request.param)


def test_made_for_classes_it_draws_at_first_what_it_drew(
    pretrained: Kind, tiny_patches: Patches, tmp_path: Path
) -> None:
    pool = tiny_patches().without_labels()
    before = fit(pretrained.cls.for_patches(pool, **pretrained.options()), pool, tmp_path / "pool", steps=2)
    after = pretrained.cls.adapted_to(tmp_path / "pool", tiny_patches())
    assert (before.classes, after.classes) == (("unlabelled",), CLASSES)
    drawn = before.sample([0] * 4, [1, 2, 3, 4])
    for label in (0, 1):
        assert torch.equal(after.sample([label] * 4, [1, 2, 3, 4]), drawn)
    assert drawn.float().std() > 0


def test_what_weights_have_seen_is_known_to_the_banks_of_all_that_come_of_them(
    pretrained: Kind, tiny_patches: Patches, tmp_path: Path
) -> None:
    few, pool = tiny_patches(8), tiny_patches(40).subset(torch.arange(8, 40)).without_labels()
    fit(pretrained.cls.for_patches(pool, **pretrained.options()), pool, tmp_path / "pool", steps=1)
    made = {"untrained": pretrained.cls.adapted_to(tmp_path / "pool", few)}
    made["untrained"].save_pretrained(tmp_path / "untrained")
    for name, source in (("tuned", "pool"), ("tuned twice", "tuned"), ("tuned late", "untrained")):
        start = pretrained.cls.adapted_to(tmp_path / source, few)
        made[name] = fit(start, few, tmp_path / name, steps=1, warm_start=True)
    for name, generator in made.items():
        bank = fill_bank(generator, counts={"cyst": 1}, out=tmp_path / f"bank of {name}", progress=False)
        record = bank.provenance["training_set"]
        found = find_recorded(torch.cat([pool.origins, few.origins]), record)
        assert found is not None, name
        assert found[: len(pool)].all(), name
        assert found.all() or name == "untrained", name


# The settings


def test_every_setting_says_what_it_is_and_takes_its_own_default(one_network: Kind) -> None:
    for settings in (one_network.cls.training_settings, one_network.cls.network_settings):
        for setting in settings.options():
            assert setting.help.endswith("."), setting.name
            for value in (*setting.presets.values(), setting.default):
                if isinstance(value, (bool, int, float, str, tuple)):
                    assert setting.check(value, name=setting.name) == value
        assert settings.table().count("\n") == 1 + len(settings.options())
    for preset in one_network.cls.training_settings.PRESETS:
        assert one_network.cls.choose_settings({"preset": preset}).preset == preset


def test_the_constructor_refuses_what_is_no_option(kind: Kind) -> None:
    with pytest.raises((InputError, TypeError), match="resolutoin"):
        kind.make(resolutoin=16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": []}, "classes must be different names, at least one"),
        ({"classes": ["a", "a"]}, "classes must be different names"),
        ({"classes": "cyst"}, "classes must be different names, in a list; got the text 'cyst'"),
        ({"classes": [1, 2]}, r"classes must be names, got \(1, 2\)"),
        ({"bits": 12}, "bits must be 8 or 16, got 12"),
    ],
)
def test_generators_that_cannot_be(one_network: Kind, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        one_network.make(**options)


def test_it_is_made_for_patches(one_network: Kind, tiny_patches: Patches) -> None:
    made = one_network.make()
    names = {setting.name for setting in one_network.cls.network_settings.options()}
    own = {name: value for name, value in inspect.getmembers(made) if name in names}
    options = {name: value for name, value in made.config.items() if name in names and name not in ("base",)}
    options |= {"base": own["base"]} if "base" in own else {}
    patches = tiny_patches()
    generator = one_network.cls.for_patches(patches, **options)
    assert (generator.classes, generator.image_shape) == (CLASSES, (1, 16, 16))
    oblong = PatchDataset(images=patches.images[:, :, :8], labels=patches.labels, classes=CLASSES)
    with pytest.raises(InputError, match=re.escape("the patches are 8x16, and a")):
        one_network.cls.for_patches(oblong, **options)
