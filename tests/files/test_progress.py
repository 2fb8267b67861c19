"""Progress bars, and one switch for all of them."""

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
