"""A bank's card and its contact sheet: what they say of the bank, and what never gets into them."""

import getpass
import socket

import numpy as np
import pytest
import torch
from huggingface_hub import DatasetCard
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank import Flag, SyntheticBank
from genmix_transforms.bank.card import bank_card, bank_sheet, has_sheet, paths_in
from genmix_transforms.errors import InputError

# A bank's card: what it says of the bank, and what never gets into it

FINGERPRINT = "0123456789abcdef" * 4
WEIGHTS = f"sha256:{'ab' * 32}"
FILLED = {
    "generator": {
        "kind": "dcgan",
        "config": {"resolution": 64},
        "weights": WEIGHTS,
        "training": {
            "steps": 20_000,
            "images_seen": 640_000,
            "training_set": {"fingerprint": FINGERPRINT, "class_counts": {"cyst": 433, "hemangioma": 70}},
        },
    },
    "seed": 3,
    "genmix_transforms": "0.4.0",
}


def rows(card):
    """The tables' rows of two cells."""
    lines = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    return {line[0]: line[1] for line in lines if len(line) == 2}


# What it says


def test_the_front_matter_is_the_hubs(make_bank):
    data = DatasetCard(bank_card(make_bank(), licence="cc-by-4.0", title="Livers: a test")).data
    assert (data.license, data.pretty_name, data.size_categories) == ("cc-by-4.0", "Livers: a test", ["n<1K"])
    assert data.task_categories == ["image-classification"]
    assert {"synthetic", "medical", "genmix"} <= set(data.tags)
    assert data.to_dict()["viewer"] is False


@pytest.mark.parametrize(
    ("count", "category"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (9999, "1K<n<10K"),
        (10_000, "10K<n<100K"),
        (20_000, "10K<n<100K"),
    ],
)
def test_the_size_category(count, category):
    bank = SyntheticBank(torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.zeros(count).long(), classes=["a"])
    assert DatasetCard(bank_card(bank)).data.size_categories == [category]


def test_counts_shape_and_type(make_bank):
    card = bank_card(make_bank(shape=(3, 4, 5)))
    assert rows(card) | {"cyst": "2", "hemangioma": "2", "metastasis": "3", "**all**": "**7**"} == rows(card)
    assert "3 x 4 x 5 (channels first), uint8" in card
    assert "Window: none recorded" in card


def test_the_window_and_sixteen_bits(make_bank):
    card = bank_card(make_bank(dtype=torch.uint16, window=(-40, 220)))
    assert "uint16" in card
    assert "-40 HU at pixel 0, 220 HU at pixel 65535" in card


def test_labels_that_are_probabilities(make_bank):
    card = bank_card(make_bank([[0.2, 0.8, 0.0], [0.9, 0.1, 0.0]]))
    assert "class probabilities" in card
    assert (rows(card)["cyst"], rows(card)["hemangioma"]) == ("1", "1")


def test_where_the_images_come_from(make_bank):
    told = rows(bank_card(make_bank(provenance=FILLED)))
    assert (
        told
        | {
            "generator": "dcgan",
            "weights": WEIGHTS,
            "training steps": "20000",
            "training images seen": "640000",
            "training set": "cyst 433, hemangioma 70",
            "training set's fingerprint": FINGERPRINT,
            "bank's seed": "3",
            "genmix-transforms": "0.4.0",
            "seeds": "1000 to 1006",
        }
        == told
    )


def test_one_network_a_class(make_bank):
    members = [{"kind": "dcgan", "weights": WEIGHTS}, {"kind": "dcgan", "weights": WEIGHTS}]
    told = rows(bank_card(make_bank(provenance={"generator": {"kind": "per-class", "members": members}})))
    assert (told["generator"], told["its networks"]) == ("per-class", "dcgan")


def test_several_sources_each_with_its_images_and_seeds():
    bank = SyntheticBank(
        torch.zeros(5, 1, 4, 4, dtype=torch.uint8),
        torch.tensor([0, 0, 0, 1, 1]),
        classes=["cyst", "metastasis"],
        seeds=torch.tensor([5, 9, -1, -1, -1]),
        source=torch.tensor([0, 0, 1, 0, 1], dtype=torch.int32),
        provenance=[FILLED, {"source": "folder of images"}],
    )
    filled, imported = bank_card(bank).partition("### Source 0: 3 images")[2].split("### Source 1: 2 images")
    assert "| seeds | 5 to 9; 1 images have none |" in filled
    assert "| imported from | folder of images |" in imported
    assert "seeds" not in imported.partition("##")[0]


def test_a_bank_of_which_nothing_is_known():
    bank = SyntheticBank(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), classes=["a", "b"])
    card = bank_card(bank)
    assert "Nothing is recorded." in card
    assert "Nobody has measured how near these images are to the training images." in card
    assert "Marked as" not in card
    assert "None is stated" in card


def test_how_near_the_images_are():
    distance = torch.tensor([0.5, 0.1, torch.nan, 0.2, 0.3, 0.4])
    flags = torch.tensor([0, Flag.NEAR_COPY, 0, Flag.NEAR_COPY | Flag.DUPLICATE, Flag.REJECTED, 0], dtype=torch.uint8)
    images = torch.zeros(6, 1, 4, 4, dtype=torch.uint8)
    bank = SyntheticBank(images, torch.zeros(6).long(), classes=["a"], distance=distance, flags=flags)
    card = bank_card(bank)
    assert "is known for 5 of 6 images (83.3%)" in card
    # Of 0.1, 0.2, 0.3, 0.4, 0.5: linear between neighbours.
    assert "| nearest | 1% | 5% | 25% | 50% |\n|---:|---:|---:|---:|---:|\n| 0.1 | 0.104 | 0.12 | 0.2 | 0.3 |" in card
    assert "nearer to a training image than training images are to each other: 2 of 6 images (33.3%)" in card
    assert "the same as another image of the bank, or nearly: 1 of 6 images (16.7%)" in card
    assert "Nobody has measured" not in card


def test_marks_without_distances(make_bank):
    flags = torch.tensor([Flag.DUPLICATE] * 7, dtype=torch.uint8)
    card = bank_card(make_bank(flags=flags))
    assert "Nobody has measured" in card
    assert "or nearly: 7 of 7 images (100.0%)" in card


def test_the_warning_is_always_there(make_bank):
    assert "**These images may reproduce training patients.**" in bank_card(make_bank(provenance=FILLED))


def test_how_to_load_it(make_bank):
    code = bank_card(make_bank(), repo_id="me/livers").partition("```python\n")[2].partition("```")[0]
    compile(code, "card", "exec")
    assert 'SyntheticBank.from_hub("me/livers")' in code
    assert 'from_hub("OWNER/NAME")' in bank_card(make_bank())


def test_the_sheet_is_shown_where_there_is_one(make_bank):
    flat, volumes, signals = make_bank(), make_bank(shape=(1, 2, 4, 4)), make_bank(shape=(1, 16))
    empty = SyntheticBank(torch.zeros(0, 1, 4, 4, dtype=torch.uint8), torch.zeros(0).long(), classes=["a"])
    for bank, has in ((flat, True), (volumes, True), (signals, False), (empty, False)):
        assert has_sheet(bank) == has
        assert ("(sheet.png)" in bank_card(bank)) == has


@pytest.mark.parametrize(
    ("classes", "title"),
    [
        (["cyst"], "Synthetic images of cyst"),
        (["a", "b", "c"], "Synthetic images of a, b and c"),
        (list("abcdefg"), "Synthetic images of 7 classes"),
    ],
)
def test_a_title_of_the_classes(classes, title):
    bank = SyntheticBank(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]), classes=classes)
    assert DatasetCard(bank_card(bank)).data.pretty_name == title


def test_the_recorded_licence(make_bank):
    recorded = make_bank(provenance={"licence": "cc0-1.0"})
    assert DatasetCard(bank_card(recorded)).data.license == "cc0-1.0"
    assert DatasetCard(bank_card(recorded, licence="mit")).data.license == "mit"
    source = torch.tensor([0, 1, 0, 1, 0, 1, 0], dtype=torch.int32)
    differing = make_bank(provenance=[{"licence": "cc0-1.0"}, {"licence": "mit"}], source=source)
    assert DatasetCard(bank_card(differing)).data.license is None


def test_the_same_bank_has_the_same_card(make_bank):
    assert bank_card(make_bank(provenance=FILLED)) == bank_card(make_bank(provenance=FILLED))


def test_names_that_mean_something_in_markdown():
    names = ["a|b", "<b>", "`x`", "*y* [z](u)", "7: no", "# 1"]
    bank = SyntheticBank(torch.zeros(6, 1, 4, 4, dtype=torch.uint8), torch.arange(6), classes=names)
    card = bank_card(bank, title="a: b | [c] # <d>")
    assert DatasetCard(card).data.pretty_name == "a: b | [c] # <d>"
    for line in (r"| a\|b | 1 |", "| &lt;b&gt; | 1 |", r"| \`x\` | 1 |", r"| \*y\* \[z\](u) | 1 |", "# a: b \\| "):
        assert line in card


# What never gets into it

PLANTED = [
    "/home/alice/ct/P-0017.dcm",
    "C:\\Users\\alice",
    "alice",
    "gpu-box.example.org",
    "P-0017",
    "~alice/x",
    "00471123",
]
KEYS = ["kind", "weights", "training", "training_set", "fingerprint", "class_counts", "steps", "images_seen", "config"]
KEYS += ["generator", "members", "seed", "source", "genmix_transforms", "date", "created", "licence", "user", "groups"]


def planted_provenance():
    """Any provenance with planted texts as values, and as keys, wherever the card looks for something."""
    leaf = st.sampled_from(PLANTED) | st.integers(-5, 5) | st.none() | st.booleans()
    keys = st.sampled_from([*KEYS, *PLANTED])
    return st.dictionaries(
        keys,
        st.recursive(leaf, lambda below: st.lists(below, max_size=3) | st.dictionaries(keys, below, max_size=5)),
        max_size=8,
    )


def test_planted_paths_names_and_patients(make_bank):
    secrets = ["/home/alice/ct", "C:\\Users\\alice\\ct", "alice", "gpu-box", "P-0017", "00471123"]
    secrets += [name for name in (getpass.getuser(), socket.gethostname()) if len(name) > 5]
    path, windows, user, host, patient, number = secrets[:6]
    generator = {
        **FILLED["generator"],
        "folder": path,
        "config": {"classes": [patient], "log": windows},
        "weights": f"{path}/model.safetensors",
        "training": {
            "data": path,
            "user": user,
            "host": host,
            "steps": path,
            "training_set": {"fingerprint": number, "class_counts": {"cyst": 3, patient: 1}, "groups": [patient]},
        },
    }
    provenance = {
        **FILLED,
        "generator": generator,
        "source": path,
        "genmix_transforms": f"0.4.0 of {user}",
        "licence": path,
        "command": f"genmix fill {path} on {host}",
        "patients": [patient, number],
        **{f"secret {number}": secret for number, secret in enumerate(secrets)},
    }
    card = bank_card(make_bank(provenance=provenance), repo_id="me/bank")
    assert "| generator | dcgan |" in card
    assert "| training set | cyst 3, other classes 1 |" in card
    assert [secret for secret in secrets if secret in card] == []


@given(planted_provenance())
def test_wherever_something_is_planted(provenance):
    # A generator's kind may be any name: that it is one cannot be seen.
    _remove(provenance, "kind"), _remove(provenance, "licence")
    bank = SyntheticBank(
        torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.tensor([0]), classes=["a"], provenance=provenance
    )
    card = bank_card(bank)
    assert [text for text in PLANTED if text in card] == []


def _remove(value, key):
    if isinstance(value, dict):
        value.pop(key, None)
    for below in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _remove(below, key)


@pytest.mark.parametrize("name", ["title", "licence"])
@pytest.mark.parametrize("text", ["", "  ", "of /home/alice/ct", "two\nlines", 3])
def test_a_title_or_licence_that_is_none(make_bank, name, text):
    with pytest.raises(InputError, match=f"bank_card: {name} must be a line of text without a path"):
        bank_card(make_bank(), **{name: text})


@pytest.mark.parametrize(
    "text",
    [
        "/data",
        "/data/",
        "/home/x/y.png",
        "at /mnt/x",
        "path=/srv/a",
        "C:\\x",
        "see D:/x",
        "\\\\nas\\ct\\1",
        "~/x",
        "~bob/x",
    ],
)
def test_what_looks_like_a_path(text):
    assert paths_in({"a": [1, {"b": text}]}) == ["provenance.a[1].b"]
    assert paths_in({text: 1}, "sources[0]") == ["sources[0]: a key"]


@pytest.mark.parametrize(
    "text",
    [
        "", "a photo of a <cyst>", "and/or", "1/2", "https://example.org/a/b", "hf://owner/name", "owner/name", "</b>",
        "sha256:0a", "2026-11-23T12:00:00Z", "ratio 3:4", "a ~5 mm cyst", "cc-by-4.0", "runs/busi",
    ],
)  # fmt: skip
def test_what_does_not(text):
    assert paths_in({"a": text, text or "b": None}) == []


# The contact sheet of a bank: a row for each class that has images, each patch pixel for pixel

SIDE, GAP, MAGNIFY = 48, 2, 2  # small patches are enlarged to about 96 pixels


def flat_bank(labels, classes=("cyst", "hemangioma", "metastasis"), dtype=torch.uint8):
    """Image number n is evenly grey of level 10 n."""
    levels = 10 * torch.arange(len(labels))
    images = levels.view(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE).to(dtype)
    return SyntheticBank(images.contiguous(), torch.tensor(labels), classes=classes)


def cells(picture, rows, columns):
    """The patches of a sheet, ``[row][column]``, from its right and lower edge inwards."""
    step = SIDE * MAGNIFY + GAP
    left = picture.width - columns * step
    assert picture.height == GAP + rows * step
    array = np.asarray(picture)
    return [
        [array[GAP + r * step :, left + c * step :][: SIDE * MAGNIFY, : SIDE * MAGNIFY] for c in range(columns)]
        for r in range(rows)
    ]


def test_each_class_has_its_row_with_its_own_images():
    picture = bank_sheet(flat_bank([2, 0, 2, 0, 1, 2]))
    found = cells(picture, rows=3, columns=3)
    levels = [[sorted({int(v) for v in cell.reshape(-1)}) for cell in row] for row in found]
    assert levels[0] == [[10], [30], [255]]  # two cysts, then white
    assert levels[1] == [[40], [255], [255]]
    assert levels[2] == [[0], [20], [50]]


def test_pixels_are_those_of_the_image(pixels):
    image = pixels(1, (3, SIDE, SIDE))
    bank = SyntheticBank(image, torch.tensor([0]), classes=["a"])
    found = cells(bank_sheet(bank), rows=1, columns=1)[0][0]
    expected = image[0].permute(1, 2, 0).numpy().repeat(MAGNIFY, 0).repeat(MAGNIFY, 1)
    assert np.array_equal(found, expected)


def test_classes_without_images_have_no_row():
    cells(bank_sheet(flat_bank([0, 2, 2])), rows=2, columns=2)


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_columns_are_the_most_of_a_row(columns):
    labels = [0] * 4 + [1]
    picture = bank_sheet(flat_bank(labels), columns=columns)
    shown = cells(picture, rows=2, columns=min(columns, 4))
    levels = [int(cell[0, 0, 0]) for cell in shown[0]]
    assert len(set(levels)) == min(columns, 4)  # no image twice
    assert set(levels) <= {0, 10, 20, 30}
    assert int(shown[1][0][0, 0, 0]) == 40


def test_seed_chooses_the_images():
    bank = flat_bank([0] * 20)
    one, again, other = (bank_sheet(bank, columns=6, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(np.asarray(one), np.asarray(again))
    assert not np.array_equal(np.asarray(one), np.asarray(other))


def test_sixteen_bits_show_their_range():
    found = cells(bank_sheet(flat_bank([0, 0], dtype=torch.uint16)), rows=1, columns=2)[0]
    assert [int(cell[0, 0, 0]) for cell in found] == [0, 255]


def test_probabilities_show_under_the_likeliest_class():
    bank = flat_bank([0, 0, 0])
    soft = SyntheticBank(bank.images, torch.tensor([[0.4, 0.6, 0], [1, 0, 0], [0.1, 0.8, 0.1]]), classes=bank.classes)
    found = cells(bank_sheet(soft), rows=2, columns=2)
    assert [[int(cell[0, 0, 0]) for cell in row] for row in found] == [[10, 255], [0, 20]]


def test_volumes_show_their_middle_slices():
    volumes = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 1, 3, 1, 1).repeat(1, 1, 1, SIDE, SIDE)
    bank = SyntheticBank(volumes, torch.tensor([0]), classes=["a"])
    assert int(cells(bank_sheet(bank), rows=1, columns=1)[0][0][0, 0, 0]) == 20


@pytest.mark.parametrize(
    ("shape", "columns", "text"),
    [
        ((1, 1, 16), 12, "a sheet shows images or volumes, the bank's are 1 x 16"),
        ((0, 1, 4, 4), 12, "a sheet of an empty bank shows nothing: fill the bank first"),
        ((1, 1, 4, 4), 0, "at least one column, got columns=0"),
    ],
)
def test_refused(shape, columns, text):
    bank = SyntheticBank(torch.zeros(shape, dtype=torch.uint8), torch.zeros(shape[0]).long(), classes=["a"])
    with pytest.raises(InputError, match=text):
        bank_sheet(bank, columns=columns)
