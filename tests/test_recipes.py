"""What the recipes of docs/how-to promise beyond that their blocks run (which test_docs.py sees to)."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import default_collate

from genmix_transforms import GenMix, SyntheticBank
from tests.ranks import run_ranks

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r'^```python(?: title="(?P<title>.+?)")?\n(?P<code>.*?)^```$', flags=re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str | None, str]]:
    """Title and code of every Python block of a recipe."""
    text = (ROOT / "docs/how-to" / page).read_text(encoding="utf-8")
    return [(block["title"], block["code"]) for block in BLOCK.finditer(text)]


def run(page: str, *, until: str | None = None) -> dict[str, Any]:
    """The names that the blocks of a page define; ``until``: run up to the line that begins so."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for title, code in blocks(page):
        if title is None:
            code, found, _ = code.partition(f"\n{until}") if until else (code, "", "")
            exec(compile(code, page, "exec"), names)
            if found:
                return names
    assert until is None, f"{page} has no line {until}"
    return names


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty folder, the random numbers of seed 0, and nothing left behind in the environment."""
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield tmp_path
    if dist.is_initialized():
        dist.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def bank() -> SyntheticBank:
    images = torch.randint(0, 256, (12, 1, 16, 16), dtype=torch.uint8)
    return SyntheticBank(images, torch.arange(12) % 3, classes=["cyst", "hemangioma", "metastasis"])


# Compiled


@pytest.mark.slow  # traced alone, below and on the page, in the default run
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="Inductor needs a C++ compiler on the CPU")
def test_inductor_mixes_as_a_plain_call_does(bank):
    genmix = GenMix(bank, mean=(0.5,), std=(0.5,), generator=torch.Generator())
    images, labels = torch.rand(6, 1, 16, 16) * 2 - 1, torch.arange(6) % 3
    torch._dynamo.reset()
    results = []
    for call in (genmix, torch.compile(genmix, fullgraph=True)):
        genmix.generator.manual_seed(7)
        results.append([call(images, labels) for _ in range(2)])
    for (plain, plain_labels), (compiled, compiled_labels) in zip(*results, strict=True):
        torch.testing.assert_close(compiled, plain, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(compiled_labels, plain_labels, atol=1e-6, rtol=1e-6)
    assert not torch.equal(results[1][0][0], results[1][1][0])


def test_a_smaller_last_batch_is_compiled_too(bank):
    genmix = GenMix(bank, generator=torch.Generator())
    torch._dynamo.reset()
    compiled = torch.compile(genmix, fullgraph=True, backend="aot_eager")
    for count in (8, 8, 5, 1):
        images, labels = torch.rand(count, 1, 16, 16), torch.arange(count) % 3
        found = []
        for call in (genmix, compiled):
            genmix.generator.manual_seed(count)
            found.append(call(images, labels))
        torch.testing.assert_close(found[1][0], found[0][0], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(found[1][1], found[0][1], atol=1e-6, rtol=1e-6)


# Several processes


@pytest.fixture(scope="module")
def scripts(tmp_path_factory) -> Path:
    """The page's bank and scripts, in files."""
    folder = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("several-processes.md")
    for title, code in blocks("several-processes.md"):
        if title is not None:
            (folder / title).write_text(code)
    return folder


def run_script(script: Path, *arguments: str) -> None:
    os.chdir(script.parent)
    sys.argv = [script.name, *arguments]
    runpy.run_path(script.name, run_name="__main__")


def launch(script: Path, *arguments: str, **environment: str) -> set[str]:
    """Run a script in two processes; the lines that they printed."""
    said = script.parent / f"said-{script.stem}-{len(arguments)}"
    said.mkdir()

    codes = run_ranks(run_script, script, *arguments, said=said, timeout=180, **environment)
    assert codes == [0, 0], "".join(file.read_text() for file in said.glob("*.err"))
    return lines_of("".join(file.read_text() for file in said.glob("*.out")))


def launch_by_torchrun(script: Path) -> set[str]:
    """The same as the page says it."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script.name],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=script.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    return lines_of(done.stdout)


def lines_of(printed: str) -> set[str]:
    lines = [line for line in printed.splitlines() if line]
    assert len(set(lines)) == len(lines)
    return set(lines)


@pytest.fixture(scope="module")
def unbroken(scripts) -> set[str]:
    return launch(scripts / "train_ddp.py")


def test_ranks_draw_apart(unbroken):
    found = {re.fullmatch(r"(epoch \d, rank \d): lambda (\[.+\]), loss .+", line).groups() for line in unbroken}
    assert sorted(where for where, _ in found) == [f"epoch {epoch}, rank {rank}" for epoch in (0, 1) for rank in (0, 1)]
    assert len({drawn for _, drawn in found}) == 4


@pytest.mark.slow
def test_torchrun_starts_the_same(scripts, unbroken):
    assert launch_by_torchrun(scripts / "train_ddp.py") == unbroken


def test_both_ranks_go_on_from_the_first_ones_checkpoint(scripts, unbroken):
    resumed = launch(scripts / "train_ddp.py", "checkpoint-1.pt")
    assert resumed == {line for line in unbroken if line.startswith("epoch 1")}
    checkpoint = torch.load(scripts / "checkpoint-1.pt", weights_only=True)
    assert checkpoint["genmix"].keys() == {"generator_state"}


def test_accelerate(scripts):
    """With gloo. That it draws on after ``load_state`` the script asserts itself."""
    drawn = dict(line.split(": ") for line in launch(scripts / "train_accelerate.py", ACCELERATE_USE_CPU="true"))
    assert drawn.keys() == {"rank 0", "rank 1"}
    assert drawn["rank 0"] != drawn["rank 1"]
    size = sum(file.stat().st_size for file in (scripts / "checkpoint").glob("custom_checkpoint_*"))
    assert 0 < size < bytes_of(SyntheticBank.load(scripts / "banks/mine"))


@pytest.fixture
def sent(monkeypatch) -> list[int]:
    """Bytes of the tensors in every broadcast of DistributedDataParallel."""
    calls: list[int] = []
    broadcast = dist._broadcast_coalesced

    def count(group, tensors, *arguments):
        calls.append(sum(tensor.numel() * tensor.element_size() for tensor in tensors))
        return broadcast(group, tensors, *arguments)

    monkeypatch.setattr(dist, "_broadcast_coalesced", count)
    return calls


def bytes_of(bank: SyntheticBank) -> int:
    return bank.images.numel() * bank.images.element_size()


@pytest.mark.parametrize("inside", [True, False])
def test_ddp_sends_the_bank_of_a_genmix_in_the_model_at_every_forward(bank, sent, inside):
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 3))
    genmix = GenMix(bank)
    if inside:
        model.genmix = genmix
        model.forward = lambda images: model[1](model[0](images))
    wrapped = DistributedDataParallel(model)
    sent.clear()
    for _ in range(2):
        images, labels = genmix(torch.rand(4, 1, 16, 16), torch.tensor([0, 1, 2, 0]))
        F.cross_entropy(wrapped(images), labels).backward()
    assert len(sent) == 2 * inside
    assert all(size > bytes_of(bank) for size in sent)


# Lightning

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}


@pytest.fixture
def lightning_page() -> dict[str, Any]:
    pytest.importorskip("lightning")
    return run("lightning.md", until="options = ")


@pytest.mark.filterwarnings("ignore")  # Lightning's, on workers, folders and deprecations of torch
@pytest.mark.parametrize("place", ["data module", "list", "attribute", "attribute, buffers not sent"])
def test_what_lightning_sends(lightning_page, sent, place):
    import lightning
    from lightning.pytorch.strategies import DDPStrategy

    data = lightning_page["Lesions"]()
    model = lightning_page["Classifier"]()
    train = lightning_page["train"]
    bank = SyntheticBank(train.images, train.labels, classes=train.classes)
    if place != "data module":
        mixing = GenMix(bank)
        if place == "list":
            model.mixing = [mixing]
        else:
            model.mixing = mixing
        model.on_after_batch_transfer = lambda batch, _: mixing(batch) if model.trainer.training else batch
    strategy = DDPStrategy(**({"broadcast_buffers": False} if place.endswith("not sent") else {}))
    trainer = lightning.Trainer(max_steps=3, strategy=strategy, devices=1, enable_checkpointing=False, **QUIET)
    if place == "data module":
        trainer.fit(model, datamodule=data)
    else:
        trainer.fit(model, data.train_dataloader(), data.val_dataloader())
    assert trainer.global_step == 3
    of_the_bank = [size for size in sent if size >= bytes_of(bank)]
    assert (len(of_the_bank) >= 3) if place == "attribute" else not of_the_bank


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_lightning_run_draws_on(lightning_page):
    import lightning

    data_module, classifier = lightning_page["Lesions"], lightning_page["Classifier"]
    drawn: list[torch.Tensor] = []

    class Recorded(data_module):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            batch = super().on_after_batch_transfer(batch, dataloader_idx)
            if self.trainer.training:
                drawn.append(self.genmix.params["lam"].clone())
            return batch

    def fit(epochs, **options):
        drawn.clear()
        trainer = lightning.Trainer(max_epochs=epochs, default_root_dir=f"to-{epochs}", **QUIET)
        trainer.fit(classifier(), datamodule=Recorded(), **options)
        return torch.cat(drawn), trainer

    unbroken, _ = fit(2)
    half, trainer = fit(1)
    rest, _ = fit(2, ckpt_path=trainer.checkpoint_callback.best_model_path)
    assert len(unbroken) == 80  # 40 images, two epochs
    assert torch.equal(torch.cat([half, rest]), unbroken)


# The Hugging Face Trainer


@pytest.fixture
def trainer_page(monkeypatch) -> dict[str, Any]:
    pytest.importorskip("transformers")
    return run("hugging-face-trainer.md", until="arguments = ")


def arguments(page: dict[str, Any], **options: Any) -> Any:
    defaults = {"output_dir": "runs", "report_to": [], "disable_tqdm": True, "save_strategy": "no", "use_cpu": True}
    return page["TrainingArguments"](**{**defaults, "logging_strategy": "steps", "logging_steps": 1, **options})


def train(page: dict[str, Any], kind: type, *, steps: int = 2, accumulated: int = 1, **options: Any) -> Any:
    """A trainer that has trained; what came into its model is in ``trainer.seen``, as (images, labels, logits)."""
    trainer = kind(
        page["model"],
        arguments(page, max_steps=steps, per_device_train_batch_size=8, gradient_accumulation_steps=accumulated),
        train_dataset=page["Patches"](page["train"]),
        eval_dataset=page["Patches"](page["val"]),
        **options,
    )
    trainer.seen = []
    compute = trainer.compute_loss_func

    def keep(outputs, labels, num_items_in_batch=None):
        trainer.seen.append((labels, outputs.logits.detach()))
        return compute(outputs, labels, num_items_in_batch=num_items_in_batch)

    trainer.compute_loss_func = keep
    trainer.train()
    return trainer


def logged(trainer: Any, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def test_the_trap_is_there_still(trainer_page):
    """Soft labels: a binary loss when nothing is said, and no loss at all when the task is named."""
    model = trainer_page["model"]
    images, soft = GenMix(trainer_page["bank"])(torch.rand(4, 1, 16, 16), torch.tensor([0, 1, 2, 0]))
    output = model(pixel_values=images, labels=soft)
    torch.testing.assert_close(output.loss, F.binary_cross_entropy_with_logits(output.logits, soft))
    assert not torch.isclose(output.loss, F.cross_entropy(output.logits, soft))
    model.config.problem_type = "single_label_classification"
    with pytest.raises((ValueError, RuntimeError)):
        model(pixel_values=images, labels=soft)


@pytest.mark.filterwarnings("ignore:.*pin_memory")
@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_trainer_computes_the_soft_cross_entropy(trainer_page, accumulated):
    trainer = train(
        trainer_page, trainer_page["MixingTrainer"], accumulated=accumulated, genmix=GenMix(trainer_page["bank"])
    )
    assert len(trainer.seen) == 2 * accumulated
    for labels, _ in trainer.seen:
        assert (labels.dtype, labels.shape) == (torch.float32, (8, 3))
        assert (labels.max(dim=1).values < 1).any()
    expected = [F.cross_entropy(logits, labels).item() for labels, logits in trainer.seen]
    expected = torch.tensor(expected).view(2, accumulated).mean(dim=1)
    torch.testing.assert_close(torch.tensor(logged(trainer, "loss")), expected, atol=1e-4, rtol=1e-4)
    assert trainer_page["model"].config.problem_type is None


@pytest.mark.filterwarnings("ignore:.*pin_memory")
def test_the_trainer_evaluates_unmixed(trainer_page):
    trainer = train(trainer_page, trainer_page["MixingTrainer"], genmix=GenMix(trainer_page["bank"]))
    trainer.seen.clear()
    loss = trainer.evaluate()["eval_loss"]
    val = trainer_page["val"]
    assert torch.equal(torch.cat([labels for labels, _ in trainer.seen]), val.labels)
    with torch.no_grad():
        logits = trainer_page["model"].eval()(val.images / 255).logits
    assert loss == pytest.approx(F.cross_entropy(logits, val.labels).item(), rel=1e-4)


@pytest.mark.filterwarnings("ignore:.*pin_memory")
def test_why_not_in_the_data_collator(trainer_page):
    """There the Trainer counts three labels an image, and mixes what it evaluates."""
    genmix, loss = GenMix(trainer_page["bank"]), trainer_page["soft_cross_entropy"]
    trainer = train(
        trainer_page,
        trainer_page["Trainer"],
        data_collator=lambda samples: genmix(default_collate(samples)),
        compute_loss_func=loss,
    )
    expected = [F.cross_entropy(logits, labels).item() / 3 for labels, logits in trainer.seen]
    assert logged(trainer, "loss") == pytest.approx(expected, rel=1e-3)
    trainer.seen.clear()
    trainer.evaluate()
    assert trainer.seen[0][0].shape == (8, 3)


# timm


def test_what_timm_switches_off_with_does_not_switch_genmix_off(bank):
    """``train.py`` sets an attribute; the recipe says ``eval()``."""
    genmix = GenMix(bank)
    genmix.mixup_enabled = False
    images, labels = torch.rand(8, 1, 16, 16), torch.zeros(8, dtype=torch.int64)
    assert not torch.equal(genmix(images, labels)[0], images)
    assert torch.equal(genmix.eval()(images, labels)[0], images)
