"""Progress bars, and one switch for all of them."""

import io
import sys
from collections.abc import Iterator

import pytest

from genmix_transforms.files.progress import progress_bar, show_progress_bars


@pytest.fixture(autouse=True)
def shown_again() -> Iterator[None]:
    yield
    show_progress_bars(True)


def test_a_bar_counts_and_gives_the_items(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar("abc", desc="letters", unit="letter")) == ["a", "b", "c"]
    assert "letters: 100%" in capsys.readouterr().err
    with progress_bar(total=3, initial=1) as bar:
        bar.update(2)
        assert bar.n == 3


def test_bars_are_hidden_one_by_one_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress_bar("abc", disable=True)) == ["a", "b", "c"]
    show_progress_bars(False)
    assert list(progress_bar("abc")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
    show_progress_bars(True)
    list(progress_bar("abc"))
    assert "3/3" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_one_line_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    list(progress_bar(range(3), mininterval=0))
    assert terminal.getvalue().count("\r") > 3
    assert terminal.getvalue().count("\n") == 1


def test_a_log_gets_whole_lines_and_few_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    with progress_bar(range(1000), desc="steps") as bar:
        for number in bar:
            bar.set_postfix(loss=number)
    assert "\r" not in log.getvalue()
    first, last = log.getvalue().splitlines()
    assert first.startswith("steps:   0%|")
    assert "1000/1000" in last
    assert "loss=999" in last


def test_a_log_gets_a_line_whenever_its_time_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", log := io.StringIO())
    list(progress_bar(range(4), mininterval=0, miniters=1))
    states = [line.rpartition("| ")[2].split()[0] for line in log.getvalue().splitlines()]
    assert list(dict.fromkeys(states)) == ["0/4", "1/4", "2/4", "3/4", "4/4"]
