"""What patches may be."""

import pytest

from genmix_transforms.data.volumes.settings import FULL_RANGE, PatchSettings
from genmix_transforms.errors import InputError


def test_gray_ranges_and_channels():
    assert PatchSettings().gray_range == FULL_RANGE
    assert PatchSettings(window=(40, 400)).gray_range == (-160, 240)
    assert [PatchSettings(kind=kind, neighbors=2).channels for kind in ("2d", "2.5d", "3d")] == [1, 5, 1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 4}, "size"),
        ({"spacing": 0.0}, "spacing"),
        ({"kind": "4d"}, "kind"),
        ({"kind": "3d", "every": 2}, "a cube has all slices"),
        ({"window": (40, 0)}, "a width above 0"),
        ({"labels": {"0": "liver"}}, "labels: mask values are whole numbers above 0, got '0'"),
        ({"labels": {"one": "liver"}}, "labels: mask values"),
        ({"neighbors": 4}, "neighbors"),
    ],
)
def test_refused(options, text):
    with pytest.raises(InputError, match=text):
        PatchSettings(**options)
