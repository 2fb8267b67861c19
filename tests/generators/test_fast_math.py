"""How CUDA computes in float32: set for a while, and set back; the switches are there without a GPU too."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from genmix_transforms.generators.fast_math import fast_math

CUDA, CPU = torch.device("cuda"), torch.device("cpu")

READ = {
    "products": lambda: torch.backends.cuda.matmul.fp32_precision,
    "convolutions": lambda: torch.backends.cudnn.conv.fp32_precision,
    "recurrent": lambda: torch.backends.cudnn.rnn.fp32_precision,
    "products, old": lambda: torch.backends.cuda.matmul.allow_tf32,
    "cudnn, old": lambda: torch.backends.cudnn.allow_tf32,
    "oldest": torch.get_float32_matmul_precision,
    "benchmark": lambda: torch.backends.cudnn.benchmark,
    "deterministic": lambda: torch.backends.cudnn.deterministic,
    "products of a CPU": lambda: torch.backends.mkldnn.matmul.fp32_precision,
    "convolutions of a CPU": lambda: torch.backends.mkldnn.conv.fp32_precision,
}


def switches() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, read in READ.items():
        try:
            found[name] = read()
        except RuntimeError:
            found[name] = "contradicted"
    return found


@pytest.fixture(autouse=True)
def as_they_were() -> Iterator[None]:
    """What a test sets stays in the test."""
    cudnn = torch.backends.cudnn
    benchmark, deterministic = cudnn.benchmark, cudnn.deterministic
    yield
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"
    torch.backends.fp32_precision = "none"
    cudnn.benchmark, cudnn.deterministic = benchmark, deterministic


@pytest.mark.parametrize("on", [True, False])
def test_it_sets_what_cuda_does_and_nothing_of_the_cpu(on: bool) -> None:
    before = switches()
    with fast_math(CUDA, on):
        within = switches()
    word = "tf32" if on else "ieee"
    assert within == {
        **before, "products": word, "convolutions": word, "recurrent": word, "products, old": on, "cudnn, old": on,
        "oldest": "high" if on else "highest", "benchmark": on, "deterministic": not on,
    }  # fmt: skip
    assert switches() == before


def test_on_a_cpu_nothing_is_set() -> None:
    before = switches()
    with fast_math(CPU, True):
        assert switches() == before


def old_ways() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = False


def oldest_high() -> None:
    torch.set_float32_matmul_precision("high")


def oldest_medium() -> None:
    torch.set_float32_matmul_precision("medium")


def new_ways() -> None:
    torch.backends.cuda.matmul.fp32_precision = "ieee"


def choices() -> None:
    torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = True


@pytest.mark.parametrize("user", [old_ways, oldest_high, oldest_medium, new_ways, choices])
@pytest.mark.parametrize("on", [True, False])
def test_what_a_user_had_set_is_set_again(user: Callable[[], None], on: bool) -> None:
    user()
    before = switches()
    assert "contradicted" not in before.values()
    with fast_math(CUDA, on):
        assert "contradicted" not in switches().values()  # torch.compile reads the old ones
        assert switches()["products"] == switches()["convolutions"] == ("tf32" if on else "ieee")
    assert switches() == before


@pytest.mark.parametrize("on", [True, False])
def test_also_where_old_and_new_contradict_each_other(on: bool) -> None:
    """PyTorch then refuses to say what the old ones are: what counts is what is computed, and the new ones say it."""
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    before = switches()
    assert before["products, old"] == before["cudnn, old"] == "contradicted"
    with fast_math(CUDA, on):
        assert switches()["products, old"] == switches()["cudnn, old"] == on
    after = switches()
    assert [after[name] for name in ("products", "convolutions", "recurrent")] == ["tf32", "ieee", "tf32"]


def test_off_is_off_under_a_process_wide_tf32() -> None:
    torch.backends.fp32_precision = "tf32"
    with fast_math(CUDA, False):
        assert switches()["products"] == switches()["convolutions"] == "ieee"


def test_an_error_within_sets_them_back() -> None:
    before = switches()
    with pytest.raises(KeyboardInterrupt), fast_math(CUDA, True):
        raise KeyboardInterrupt
    assert switches() == before


def test_one_within_another() -> None:
    with fast_math(CUDA, True):
        outer = switches()
        with fast_math(CUDA, False):
            assert switches()["products"] == "ieee"
        assert switches() == outer
