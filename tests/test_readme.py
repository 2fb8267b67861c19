"""The README's code runs as written."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from genmix_transforms import SyntheticBank
from genmix_transforms.data import open_dataset
from genmix_transforms.evaluation import Protocol

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
COMMANDS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_it_opens_with_two_commands_and_ten_lines() -> None:
    assert [block.count("\n") for block in COMMANDS[:2]] == [1, 1]
    assert COMMANDS[0] == "pip install . && genmix demo\n"
    assert COMMANDS[1] == "pip install '.[test]' && python -m pytest -n 2\n"
    lines = [line for line in BLOCKS[0].splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 10


def test_the_training_loop_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    bank = torch.randint(0, 256, (9, 1, 8, 8), dtype=torch.uint8)
    SyntheticBank(bank, torch.arange(9) % 3, classes=["cyst", "hemangioma", "metastasis"]).save("genmix-demo/bank")
    images, labels = torch.rand(12, 1, 8, 8) * 2 - 1, torch.arange(12) % 3
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    before = model[1].weight.detach().clone()
    names: dict[str, Any] = {
        "loader": DataLoader(TensorDataset(images, labels), batch_size=5),
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }
    exec(BLOCKS[0], names)
    assert names["labels"].shape == (2, 3)  # the last, smaller batch
    assert names["labels"].dtype == torch.float32
    assert torch.isfinite(names["loss"])
    assert not torch.equal(model[1].weight, before)


def test_the_path_in_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    np.savez("patches.npz", images=random.integers(0, 256, (40, 32, 32), dtype=np.uint8), labels=np.arange(40) % 2)
    open_dataset("patches.npz").save_split("split.csv")  # as the commands above it have
    # The same calls, shorter.
    code = BLOCKS[1]
    for there, here in (
        ("steps=20_000", "steps=2"),
        ("for_patches(train)", "for_patches(train, base_width=4)"),
        ("seeds=5", "seeds=1, protocol=Protocol(steps=2)"),
    ):
        assert there in code
        code = code.replace(there, here)
    with pytest.warns(UserWarning, match="very few images"):
        exec(code, {"Protocol": Protocol})
    out = capsys.readouterr().out
    assert all(arm in out for arm in ("baseline", "mixup", "blend", "genmix"))


def test_the_commands_it_names_exist() -> None:
    from typer.main import get_command

    from genmix_transforms.cli.main import app

    for line in COMMANDS[2].splitlines():
        words = line.split("#")[0].split()
        command: Any = get_command(app)
        for word in words[1:]:
            if not hasattr(command, "list_commands"):
                break
            command = command.get_command(None, word)
            command = getattr(command, "loaded", command)
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line
