import threading

import pytest
import torch

from genmix_transforms import GenMix, SyntheticBank
from genmix_transforms.errors import InputError

CLASSES = ("cyst", "hemangioma", "metastasis")
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    images = torch.arange(60, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    folder = tmp_path_factory.mktemp("banks") / "bank"
    SyntheticBank(images, torch.arange(60) % 3, classes=CLASSES).save(folder)
    return folder


def on_disk(folder, device="cpu") -> SyntheticBank:
    return SyntheticBank.load(folder, resident=False, device=device)


def batches(count=5, size=7):
    random = torch.Generator().manual_seed(3)
    return [
        (torch.rand(size, 1, 4, 4, generator=random), torch.randint(3, (size,), generator=random)) for _ in range(count)
    ]


def seeded(bank, **options) -> GenMix:
    # check_range would look at some of the bank's images on its own.
    return GenMix(bank, generator=torch.Generator(bank.device).manual_seed(5), check_range=False, **options)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("options", [{}, {"pairing": "same"}, {"real_partner": 0.5}, {"p": 0.5}, {"per_sample": False}])
def test_the_batches_are_those_without_prefetching(folder, device, options):
    plain = seeded(SyntheticBank.load(folder, resident=True, device=device), **options)
    ahead = seeded(on_disk(folder, device), **options)
    expected = [plain(images.to(device), labels.to(device)) for images, labels in batches()]
    got = list(ahead.prefetch(batches()))
    assert len(got) == len(expected)
    for (images, labels), (images_then, labels_then) in zip(got, expected, strict=True):
        assert images.device.type == device
        assert torch.equal(images, images_then)
        assert torch.equal(labels, labels_then)


def test_with_soft_labels_and_dicts(folder):
    samples = [
        {"image": images, "labels": torch.nn.functional.one_hot(labels, 3).float(), "age": torch.arange(len(labels))}
        for images, labels in batches()
    ]
    plain, ahead = seeded(SyntheticBank.load(folder)), seeded(on_disk(folder))
    for sample, got in zip(samples, ahead.prefetch(samples), strict=True):
        expected = plain(sample)
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[name], expected[name]) for name in got)


def test_the_next_batch_is_read_while_one_is_trained_on(folder, monkeypatch):
    bank, read = on_disk(folder), []
    rows = bank.rows

    def recorded(index):
        read.append((len(read), threading.current_thread() is threading.main_thread()))
        return rows(index)

    monkeypatch.setattr(bank, "rows", recorded)
    loaded = []

    def loader():
        for number, sample in enumerate(batches(4)):
            loaded.append(number)
            yield sample

    iterator = iter(seeded(bank).prefetch(loader()))
    next(iterator)
    assert loaded == [0, 1]  # the second is on its way when the first comes
    assert len(list(iterator)) == 3
    assert [number for number, _ in read] == [0, 1, 2, 3]  # each batch's once
    assert not any(on_main_thread for _, on_main_thread in read)


def test_a_bank_in_memory_is_not_read_ahead(folder):
    bank = SyntheticBank.load(folder, resident=True)
    loaded = []
    samples = (loaded.append(number) or sample for number, sample in enumerate(batches(3)))
    iterator = iter(seeded(bank).prefetch(samples))
    next(iterator)
    assert loaded == [0]


def test_in_eval_the_images_pass(folder):
    genmix = seeded(on_disk(folder)).eval()
    for (images, labels), (images_then, labels_then) in zip(genmix.prefetch(batches()), batches(), strict=True):
        assert torch.equal(images, images_then)
        assert torch.equal(labels, torch.nn.functional.one_hot(labels_then, 3).float())


def test_it_is_iterated_anew_every_epoch_and_as_long_as_its_loader(folder):
    ahead = seeded(on_disk(folder)).prefetch(batches(4))
    assert len(ahead) == 4
    first, second = list(ahead), list(ahead)
    assert len(first) == len(second) == 4
    assert not torch.equal(first[0][0], second[0][0])  # other draws


def test_who_stops_early_leaves_no_thread(folder):
    before = threading.active_count()
    iterator = iter(seeded(on_disk(folder)).prefetch(batches()))
    next(iterator)
    assert threading.active_count() == before + 1
    iterator.close()
    assert threading.active_count() == before


def test_an_error_of_the_reading_thread_arrives(folder, monkeypatch):
    bank = on_disk(folder)

    def broken(index):
        raise OSError("the disk is gone")

    monkeypatch.setattr(bank, "rows", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        next(iter(seeded(bank).prefetch(batches())))


def test_with_a_data_loader(folder):
    images, labels = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=8)
    mixed = list(seeded(on_disk(folder)).prefetch(loader))
    assert [len(batch) for batch, _ in mixed] == [8, 8, 8, 8, 3]


def test_what_a_draw_drew_is_mixed_without_a_look_at_the_bank(folder):
    genmix, plain = seeded(on_disk(folder)), seeded(SyntheticBank.load(folder))
    sample = batches(1)[0]
    params = genmix.draw(sample)
    params["partners"] = genmix.bank.rows(params["index"])
    del genmix.bank.content.mapped.shards, genmix.bank.content.mapped._images
    images, labels = genmix(*sample, params=params)
    expected_images, expected_labels = plain(*sample)
    assert torch.equal(images, expected_images)
    assert torch.equal(labels, expected_labels)


@pytest.mark.parametrize(
    "partners",
    [
        torch.zeros(6, 1, 4, 4, dtype=torch.uint8),
        torch.zeros(7, 3, 4, 4, dtype=torch.uint8),
        torch.zeros(7, 1, 4, 4),
        "images",
    ],
)
def test_partners_that_are_not_the_banks_are_refused(folder, partners):
    genmix = seeded(on_disk(folder))
    sample = batches(1)[0]
    with pytest.raises(InputError, match=r"params' partners must be the bank's images, \(7, 1, 4, 4\) torch.uint8"):
        genmix(*sample, params={**genmix.draw(sample), "partners": partners})


def test_what_cannot_be_iterated_over_is_refused(folder):
    with pytest.raises(InputError, match="prefetch: expected a DataLoader or another iterable, got a int"):
        seeded(on_disk(folder)).prefetch(3)


def test_a_loader_without_a_length_has_none(folder):
    with pytest.raises(TypeError, match="has no len"):
        len(seeded(on_disk(folder)).prefetch(iter([])))
