"""Merging: every image of the result is one of an input's with all that was known of it, in memory and on disk."""

import hashlib
import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.bank import BankWriter, SyntheticBank, merging, planned_writing
from genmix_transforms.bank.manifest import INDEX, Fill, Manifest, read_manifest, write_manifest
from genmix_transforms.bank.merging import merge_banks
from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError, OverwriteError, UnfinishedBankError

NAMES = ("cyst", "hemangioma", "metastasis")
SHAPE = (1, 4, 4)


@pytest.fixture(autouse=True)
def one_date(monkeypatch):
    """The manifest has a date; with SOURCE_DATE_EPOCH it is that, as in other reproducible files."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def drawn_by(weights, seed=0):
    """The source of images that a generator drew."""
    return {"generator": {"kind": "dcgan", "weights": f"sha256:{weights}", "config": {"resolution": 4}}, "seed": seed}


def random_bank(seed, *, count=9, classes=NAMES, sources=({},), soft=False, shape=SHAPE, dtype=torch.uint8, **options):
    """A bank whose every image, seed, distance and set of flags is its own."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(classes), (count,), generator=random)
    if soft:
        labels = torch.rand(count, len(classes), generator=random)
    return SyntheticBank(
        torch.randint(0, 256, (count, *shape), generator=random).to(dtype),
        labels,
        classes=classes,
        seeds=torch.randint(2**40, (count,), generator=random),
        source=torch.randint(len(sources), (count,), generator=random).to(torch.int32),
        distance=torch.where(torch.rand(count, generator=random) < 0.2, torch.nan, torch.rand(count, generator=random)),
        flags=torch.randint(256, (count,), generator=random).to(torch.uint8),
        provenance=sources,
        **options,
    )


def known(bank):
    """All that is known of each image, by name and content and not by number, in the bank's order."""
    index = torch.arange(len(bank))
    labels = [
        bank.classes[label]
        if bank.labels.ndim == 1
        else sorted((name, value) for name, value in zip(bank.classes, label, strict=True) if value)
        for label in bank.labels.tolist()
    ]
    columns = (
        [image.numpy().tobytes() for image in bank.rows(index)],
        map(str, labels),
        bank.seeds.tolist(),
        [str(bank.sources[source]) for source in bank.source.tolist()],
        map(str, bank.distance.tolist()),  # a NaN is not equal to itself
        bank.flags.tolist(),
    )
    return list(zip(*columns, strict=True))


def write(folder, bank, *, per_shard=4):
    """Save in small shards."""
    with BankWriter(
        folder,
        classes=bank.classes,
        image_shape=bank.image_shape,
        pixel_dtype=bank.pixel_dtype,
        labels="index" if bank.labels.ndim == 1 else "probabilities",
        window=bank.window,
        provenance=bank.sources,
        shard_bytes=per_shard * bank.images[0].nbytes,
    ) as writer:
        columns = {name: getattr(bank, name) for name in ("seeds", "source", "distance", "flags")}
        writer.add(bank.images, bank.labels, **columns)
    return folder


def merge(folders, out, **options):
    return merge_banks(folders, out=out, progress=False, **options)


def hashes(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("bank*"))}


@pytest.fixture
def folders(tmp_path):
    """Three banks of different classes and sources, of nine shards in all."""
    banks = {
        "a": random_bank(1, sources=(drawn_by("aa"), {"by": "hand"})),
        "b": random_bank(2, count=14, classes=("metastasis", "cyst"), sources=({"by": "hand"}, drawn_by("bb"))),
        "c": random_bank(3, count=6, classes=("normal", "hemangioma"), sources=(drawn_by("cc"),)),
    }
    return [write(tmp_path / name, bank) for name, bank in banks.items()]


# What the result holds


some_classes = st.lists(st.sampled_from((*NAMES, "normal")), min_size=1, unique=True)
some_sources = st.lists(st.sampled_from(({}, {"by": "hand"}, drawn_by("aa"), drawn_by("bb"))), min_size=1, max_size=3)


@given(
    parts=st.lists(st.tuples(some_classes, some_sources, st.integers(1, 6)), min_size=1, max_size=4),
    soft=st.booleans(),
)
def test_every_image_is_one_of_the_inputs_with_all_that_was_known(parts, soft):
    banks = [
        random_bank(number, count=count, classes=classes, sources=sources, soft=soft)
        for number, (classes, sources, count) in enumerate(parts)
    ]
    merged = banks[0].merge(*banks[1:])
    assert Counter(known(merged)) == Counter(row for bank in banks for row in known(bank))
    assert merged.classes == tuple(dict.fromkeys(name for classes, *_ in parts for name in classes))
    contents = [str(source) for source in merged.sources]
    assert len(set(contents)) == len(contents)
    assert set(contents) == {str(source) for _, sources, _ in parts for source in sources}
    for name in merged.classes:
        assert merged.class_counts[name] == sum(bank.class_counts.get(name, 0) for bank in banks)


@given(st.integers(0, 2**31), st.booleans(), st.tuples(some_classes, some_classes, some_classes))
def test_merging_is_associative(seed, soft, classes):
    a, b, c = (random_bank(seed + n, count=5, classes=names, soft=soft) for n, names in enumerate(classes))
    left, right, at_once = a.merge(b).merge(c), a.merge(b.merge(c)), a.merge(b, c)
    assert left.classes == right.classes == at_once.classes
    assert left.sources == right.sources == at_once.sources
    if soft:  # a row's most probable class may come earlier in one list of classes than in another
        assert Counter(known(left)) == Counter(known(right)) == Counter(known(at_once))
    else:
        assert known(left) == known(right) == known(at_once)


def test_other_orders_hold_the_same_images():
    a, b = random_bank(1), random_bank(2, classes=("normal", "cyst"))
    assert Counter(known(a.merge(b))) == Counter(known(b.merge(a)))
    assert b.merge(a).classes == ("normal", "cyst", "hemangioma", "metastasis")


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_on_disk_as_in_memory(tmp_path, soft, dtype):
    banks = [
        random_bank(1, soft=soft, dtype=dtype, window=(-100, 200)),
        random_bank(2, soft=soft, dtype=dtype, window=(-100, 200), classes=("normal", "metastasis"), count=11),
    ]
    on_disk = merge([write(tmp_path / str(number), bank) for number, bank in enumerate(banks)], tmp_path / "out")
    in_memory = banks[0].merge(banks[1])
    assert known(on_disk) == known(in_memory)
    for name in ("classes", "sources", "window", "pixel_dtype", "image_shape", "class_counts"):
        assert getattr(on_disk, name) == getattr(in_memory, name), name
    assert torch.equal(on_disk.labels, in_memory.labels)
    on_disk.verify()


def test_a_bank_on_disk_is_merged_in_memory_and_stays_there(folders):
    resident, mapped = (SyntheticBank.load(folders[0], resident=resident) for resident in (True, False))
    other = SyntheticBank.load(folders[1])
    assert known(mapped.merge(other)) == known(resident.merge(other))
    assert not mapped.resident


def test_what_a_bank_does_not_know_has_no_probability():
    a = SyntheticBank(torch.zeros(1, *SHAPE, dtype=torch.uint8), torch.tensor([[0.25, 0.75]]), classes=["x", "y"])
    b = SyntheticBank(
        torch.ones(1, *SHAPE, dtype=torch.uint8), torch.tensor([[0.5, 0.3, 0.2]]), classes=["z", "y", "x"]
    )
    merged = a.merge(b)
    assert merged.classes == ("x", "y", "z")
    torch.testing.assert_close(merged.labels, torch.tensor([[0.25, 0.75, 0.0], [0.2, 0.3, 0.5]]))


def test_the_classes_that_are_asked_for(folders, tmp_path):
    wanted = ("normal", "abscess", "metastasis", "hemangioma", "cyst")
    merged = merge(folders, tmp_path / "out", classes=wanted)
    assert merged.classes == wanted
    assert merged.class_counts["abscess"] == 0
    assert Counter(known(merged)) == Counter(row for folder in folders for row in known(SyntheticBank.load(folder)))


def test_a_class_without_images_can_be_left_out(tmp_path):
    a = random_bank(1).drop(classes=["cyst"])
    for merged in (
        a.merge(classes=["metastasis", "hemangioma"]),
        merge([write(tmp_path / "a", a)], tmp_path / "out", classes=["metastasis", "hemangioma"]),
    ):
        assert merged.classes == ("metastasis", "hemangioma")
        assert Counter(known(merged)) == Counter(known(a))


def test_a_shard_becomes_a_shard_and_the_inputs_stay(folders, tmp_path):
    before = [hashes(folder) for folder in folders]
    merge(folders, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert [shard.count for shard in manifest.shards] == [4, 4, 1, 4, 4, 4, 2, 4, 2]
    assert manifest.sources == (drawn_by("aa"), {"by": "hand"}, drawn_by("bb"), drawn_by("cc"))
    assert manifest.shards_to_come == 0
    assert [hashes(folder) for folder in folders] == before


def test_a_merged_bank_can_be_merged_and_added_to(folders, tmp_path):
    merge(folders[:2], tmp_path / "ab")
    nested = merge([tmp_path / "ab", folders[2]], tmp_path / "abc")
    assert known(nested) == known(merge(folders, tmp_path / "at once"))
    with BankWriter(tmp_path / "ab", classes=NAMES, image_shape=SHAPE, append=True) as writer:
        writer.add(torch.zeros(1, *SHAPE, dtype=torch.uint8), torch.tensor([0]))
    assert read_manifest(tmp_path / "ab").count == 24


def test_a_bank_without_images_brings_its_classes(tmp_path, folders):
    with BankWriter(tmp_path / "empty", classes=["abscess"], image_shape=SHAPE):
        pass
    assert merge([folders[0], tmp_path / "empty"], tmp_path / "out").class_counts["abscess"] == 0
    with pytest.raises(InputError, match="the banks hold no images: fill them first"):
        merge([tmp_path / "empty"], tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


# Together, and in several sittings


def test_a_finished_merger_is_opened_not_made_again(folders, tmp_path, monkeypatch):
    first = merge(folders, tmp_path / "out")
    before = hashes(tmp_path / "out")
    monkeypatch.setattr(merging, "_whole_shard", lambda *_: pytest.fail("read again"))
    assert known(merge(folders, tmp_path / "out")) == known(first)
    assert hashes(tmp_path / "out") == before


def test_it_goes_on_where_it_stopped(folders, tmp_path, monkeypatch):
    merge(folders, tmp_path / "whole")
    read, done = merging._whole_shard, []

    def failing(*arguments):
        if len(done) == 5:
            raise OSError(28, "No space left on device")
        done.append(arguments)
        return read(*arguments)

    monkeypatch.setattr(merging, "_whole_shard", failing)
    with pytest.raises(OSError, match="No space left"):
        merge(folders, tmp_path / "broken")
    done.extend([()] * 4)
    merge(folders, tmp_path / "broken")
    assert len(done) == 5 + 4 + 4  # nothing is read twice
    assert hashes(tmp_path / "broken") == hashes(tmp_path / "whole")


@pytest.mark.parametrize("count", [2, 4, 16])
def test_several_processes_write_the_files_that_one_writes(folders, tmp_path, monkeypatch, count):
    """Also more processes than there are shards."""
    merge(folders, tmp_path / "one")
    out = tmp_path / "shared"
    for rank in [*reversed(range(1, count)), 0]:  # in any order: nobody waits for anybody
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(count))
        if rank:
            with pytest.raises(
                UnfinishedBankError, match="this process's share is done; . of 9 shards are still to come"
            ):
                merge(folders, out)
        else:
            assert len(merge(folders, out)) == 29
    assert hashes(out) == hashes(tmp_path / "one")


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from genmix_transforms.bank import merging
from genmix_transforms.errors import UnfinishedBankError

root, folders, whole = Path(sys.argv[1]), sys.argv[2:], merging._whole_shard

def begin(out, rank, count, pause):
    # A process of its own. Forked: a new interpreter would only take longer to start.
    pid = os.fork()
    if pid:
        return pid
    os.environ.update(SLURM_PROCID=str(rank), SLURM_NTASKS=str(count))
    merging._whole_shard = lambda *arguments: time.sleep(pause) or whole(*arguments)
    code = 1
    try:
        merging.merge_banks(folders, out=out, progress=False)
        code = 0
    except UnfinishedBankError:
        code = 0
    finally:
        os._exit(code)

for shards in (1, 4):
    out = root / f"killed after {shards}"
    process = begin(out, 0, 1, 0.2)
    deadline = time.monotonic() + 60
    while len(list(out.glob("bank-*"))) < shards and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL
    assert shards <= len(list(out.glob("bank-*"))) < 9

for count in (2, 4):
    processes = [begin(root / f"shared by {count}", rank, count, 0.01) for rank in range(count)]
    assert [os.waitpid(process, 0)[1] for process in processes] == [0] * count
"""


def test_killed_or_shared_by_real_processes_the_bytes_are_the_same(folders, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path, *folders], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    merge(folders, tmp_path / "whole")
    for name in ("killed after 1", "killed after 4"):
        assert hashes(tmp_path / name) != hashes(tmp_path / "whole")
        merge(folders, tmp_path / name)
    for name in ("killed after 1", "killed after 4", "shared by 2", "shared by 4"):
        assert hashes(tmp_path / name) == hashes(tmp_path / "whole"), name
        assert not [file.name for file in (tmp_path / name).iterdir() if file.suffix == ".tmp"]
        SyntheticBank.load(tmp_path / name, verify=True)


def test_what_is_whole_can_be_read_before_the_rest_is_there(folders, tmp_path, monkeypatch):
    read, done = merging._whole_shard, []

    def failing(*arguments):
        done.append(arguments)
        if len(done) == 5:
            raise OSError("stop")
        return read(*arguments)

    monkeypatch.setattr(merging, "_whole_shard", failing)
    monkeypatch.setattr(planned_writing.time, "monotonic", lambda: 100.0 * len(done))
    with pytest.raises(OSError, match="stop"):
        merge(folders, tmp_path / "out")
    bank = SyntheticBank.load(tmp_path / "out")
    assert len(bank) == 4 + 4 + 1 + 4
    assert bank.shards_to_come == 5


# What is refused


def test_a_corrupt_shard_is_named_and_not_merged(folders, tmp_path):
    shard = folders[1] / "bank-00002.safetensors"
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CorruptFileError, match=rf"{shard}: not the bytes that were written"):
        merge(folders, tmp_path / "out")
    with pytest.raises(MissingPathError, match="first shard is not finished|no bank.index.json"):
        SyntheticBank.load(tmp_path / "out")
    content[-5] ^= 1
    shard.write_bytes(content)
    assert len(merge(folders, tmp_path / "out")) == 29  # the copy is whole: it goes on


def test_a_missing_shard(folders, tmp_path):
    (folders[2] / "bank-00001.safetensors").unlink()
    with pytest.raises(CorruptFileError, match=r"c/bank-00001.safetensors: the manifest names this shard"):
        merge(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()  # told before the work begins


def test_a_source_that_the_manifest_does_not_have(folders, tmp_path):
    manifest = read_manifest(folders[0])
    write_manifest(folders[0], Manifest(**{**vars(manifest), "sources": manifest.sources[:1]}))
    with pytest.raises(CorruptFileError, match="a/bank-0000.*: of a source that the manifest does not have"):
        merge(folders, tmp_path / "out")


@pytest.mark.parametrize("again", ["a", "./a", "b/../a"])
def test_a_bank_with_itself(folders, tmp_path, again, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="a is given twice: each of its images would be in the new bank twice"):
        merge([*folders, again], tmp_path / "out")
    bank = SyntheticBank.load(folders[0])
    with pytest.raises(InputError, match="the same bank is given twice"):
        bank.merge(random_bank(4), bank)


def test_a_copy_of_a_shard(folders, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folders[0].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    with pytest.raises(
        InputError, match=r"a/bank-00000.safetensors and .*copy/bank-00000.safetensors are one and the sa"
    ):
        merge([*folders, copy], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["memory", "disk"])
def test_an_image_that_is_in_two_banks(tmp_path, how):
    """Shards differ, and the images have been sorted differently: the generator and the seed tell."""
    whole = random_bank(1, count=40, sources=(drawn_by("aa"), {"by": "hand"}))
    drawn = whole.select(sources=0)
    some, others = drawn.take(torch.arange(0, len(drawn), 2)), drawn.take(torch.arange(1, len(drawn), 2))

    def together(name, *banks):
        if how == "memory":
            return banks[0].merge(*banks[1:])
        (tmp_path / name).mkdir()
        paths = [write(tmp_path / name / str(number), bank, per_shard=3) for number, bank in enumerate(banks)]
        return merge(paths, tmp_path / name / "out")

    with pytest.raises(
        InputError, match=r"\d+ images of \w+ are in both, drawn by the same generator from the same seeds"
    ):
        together("overlapping", some, random_bank(7), whole)
    assert Counter(known(together("apart", some, others))) == Counter(known(drawn))


def test_what_no_generator_drew_may_have_equal_seeds():
    """A seed is of a generator: those of two hands say nothing."""
    a, b = random_bank(1), random_bank(2)
    b = SyntheticBank(b.images, b.labels, classes=b.classes, seeds=a.seeds)
    assert len(a.merge(b)) == 18


def test_equal_seeds_of_different_classes_are_different_images():
    pixels, seeds = torch.zeros(2, *SHAPE, dtype=torch.uint8), torch.tensor([0, 1])
    a, b = (
        SyntheticBank(pixels, torch.full((2,), label), classes=["x", "y"], seeds=seeds, provenance=drawn_by("aa"))
        for label in (0, 1)
    )
    assert a.merge(b).class_counts == {"x": 2, "y": 2}


def test_a_bank_that_is_not_finished(folders, tmp_path):
    manifest = read_manifest(folders[1])
    unfinished = {**vars(manifest), "fills": (Fill(identity="i", first=4, total=3),)}
    write_manifest(folders[1], Manifest(**unfinished))
    with pytest.raises(InputError, match="b: 3 shards of a fill are still to come; finish it first"):
        merge(folders, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (3, 4, 4)}, r"image shape \(1, 4, 4\) and \(3, 4, 4\)$"),
        ({"dtype": torch.uint16}, "pixel type uint8 and uint16$"),
        ({"window": (-100, 200)}, r"window None and \(-100.0, 200.0\)$"),
        ({"soft": True}, "labels as index and probabilities$"),
        ({"soft": True, "dtype": torch.uint16}, "pixel type uint8 and uint16; labels as index and probabilities$"),
    ],
    ids=str,
)
def test_banks_of_different_kinds(folders, tmp_path, options, message):
    other = random_bank(5, **options)
    with pytest.raises(
        InputError, match=f"a and .*other cannot be merged, their images are not of one kind: {message}"
    ):
        merge([*folders, write(tmp_path / "other", other)], tmp_path / "out")
    with pytest.raises(
        InputError, match=f"bank 1 and bank 3 cannot be merged, their images are not of one kind: {message}"
    ):
        random_bank(1).merge(random_bank(2), other)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("soft", [False, True])
def test_a_class_that_is_not_asked_for(tmp_path, soft):
    bank = random_bank(1, soft=soft)
    count = bank.class_counts["cyst"]
    message = (
        rf"has {count} images of cyst, which is not among the classes given \(metastasis, hemangioma\); name it, or"
    )
    with pytest.raises(InputError, match=f"bank 1 {message}"):
        bank.merge(classes=["metastasis", "hemangioma"])
    with pytest.raises(InputError, match=f"a {message}"):
        merge([write(tmp_path / "a", bank)], tmp_path / "out", classes=["metastasis", "hemangioma"])


def test_folders_that_are_none(folders, tmp_path):
    for given_folders, message in (
        ([], "no banks given"),
        (folders[0], "folders must be a list of banks' folders"),
        ("a", "folders must be a list of banks' folders, got 'a'"),
        ([*folders, tmp_path / "nowhere"], "nowhere: no such bank"),
        ([*folders, tmp_path], f"no {INDEX}: not a bank"),
    ):
        with pytest.raises(InputError, match=message):
            merge(given_folders, tmp_path / "out")
    with pytest.raises(InputError, match="merge: banks must be SyntheticBanks, got a PosixPath"):
        random_bank(1).merge(folders[0])
    with pytest.raises(InputError, match="classes must be a list of names, got 'cyst'"):
        merge(folders, tmp_path / "out", classes="cyst")


def test_what_is_in_the_way(folders, tmp_path, monkeypatch):
    with pytest.raises(OverwriteError, match="a: is one of the banks to merge; give another folder to write"):
        merge(folders, folders[0], overwrite=True)
    merge(folders[:2], tmp_path / "out")
    before = hashes(tmp_path / "out")
    for change in ({"folders": folders}, {"folders": folders[1::-1]}, {"classes": [*NAMES, "normal"]}):
        with pytest.raises(
            OverwriteError, match="holds a bank that was not merged from these, .*folder, or overwrite$"
        ):
            merge(change.pop("folders", folders[:2]), tmp_path / "out", **change)
    assert hashes(tmp_path / "out") == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/mine.txt").write_text("mine")
    with pytest.raises(OverwriteError, match="holds other files and no bank"):
        merge(folders, tmp_path / "notes")
    assert len(merge(folders, tmp_path / "out", overwrite=True)) == 29
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="several processes cannot overwrite a bank: remove the folder first"):
        merge(folders[:2], tmp_path / "out", overwrite=True)
