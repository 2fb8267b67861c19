"""Every attack of the folder ``attacks`` is beaten off, and one that is not would be seen."""

import re
import shutil
from dataclasses import replace

import pytest

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.manifest import INDEX, LOCK, is_shard_name, read_manifest
from genmix_transforms.bank.opening import verify_bank
from tests.bank.attacks import ATTACKS, attack, writing
from tests.bank.attacks.__main__ import main


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """Whole banks, whose labels are soft or not."""
    folder = tmp_path_factory.mktemp("pristine")
    for soft in (False, True):
        attack.write_bank(folder / str(soft), soft=soft)
    return {soft: folder / str(soft) for soft in (False, True)}


def run(one, pristine, folder):
    try:
        return attack.run(one, pristine[one.soft], folder)
    except attack.ImpossibleError as reason:
        pytest.skip(str(reason))


def known(one):
    return pytest.mark.xfail(strict=True, reason=one.succeeds) if one.succeeds else ()


def params(of_writers):
    return [
        pytest.param(one, id=one.name, marks=known(one)) for one in ATTACKS if (one in writing.ATTACKS) == of_writers
    ]


@pytest.mark.parametrize("one", params(False))
def test_beaten_off(one, pristine, tmp_path):
    assert attack.failures(one, run(one, pristine, tmp_path / "bank")) == []


@pytest.mark.parametrize("one", params(True))
def test_a_writer_that_is_stopped(one, pristine, tmp_path):
    """The next one goes on from what stands, and leaves nothing that no manifest names."""
    assert attack.failures(one, run(one, pristine, tmp_path / "bank")) == []
    before = read_manifest(tmp_path / "bank")
    writing.write(tmp_path / "bank")
    manifest = verify_bank(tmp_path / "bank")
    assert manifest.shards[: len(before.shards)] == before.shards
    assert manifest.count == before.count + 6
    there = {path.name for path in (tmp_path / "bank").iterdir()}
    assert there == {INDEX, LOCK, *(shard.file for shard in manifest.shards)}


def test_the_bank_that_is_attacked_is_whole(pristine):
    for soft, folder in pristine.items():
        bank = SyntheticBank.load(folder, verify=True)
        verify_bank(folder)
        assert [shard.class_counts for shard in read_manifest(folder).shards] == list(attack.BY_SHARD)
        assert (bank.labels.ndim == 2) == soft
        assert not bool((bank.images == attack.WRITTEN).any())


def test_names_are_different():
    names = [one.name for one in ATTACKS]
    assert len(set(names)) == len(names)


# An attack that succeeds is seen


def example(damage, **expected):
    refused = attack.Refused("not a bank's manifest")
    fields = {"load": refused, "verify": refused, "opened": refused, **expected}
    return attack.Attack("example", "something", damage, **fields)


def break_manifest(folder):
    (folder / INDEX).write_bytes(b"{")


def swap_everything(folder):
    """For another whole bank of the same kind."""
    for path in list(folder.iterdir()):
        if is_shard_name(path.name) or path.name == INDEX:
            path.unlink()
    writing.write(folder)


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (example(lambda folder: None), r"load\(verify=True\): the bank that was written; must be: Refused"),
        (example(swap_everything), r"load\(verify=False\): what was whole before"),
        (example(lambda folder: (folder / INDEX).unlink()), "MissingPathError: .* no bank.index.json"),
        (example(break_manifest, verify=attack.Opens.SAME), "verify_bank: CorruptFileError"),
        (example(break_manifest, opened=attack.Refused("another word")), r"load\(verify=False\): CorruptFileError"),
        (example(break_manifest, load=attack.Refused("manifest", OSError)), r"load\(verify=True\): CorruptFileError"),
        (example(break_manifest, load=attack.Opens.CHANGED), r"must be: Opens.CHANGED"),
    ],
    ids=["no damage", "another bank", "another error", "verify", "another text", "another class", "opens"],
)
def test_an_attack_that_succeeds_is_seen(one, text, pristine, tmp_path, capsys):
    wrong = attack.failures(one, attack.run(one, pristine[False], tmp_path / "bank"))
    assert len(wrong) >= 1
    assert any(re.search(text, line) for line in wrong), wrong
    assert main([one]) == 1
    assert "SUCCEEDED" in capsys.readouterr().out


def test_errors_of_others_and_hangs_are_seen(pristine, tmp_path, monkeypatch):
    def fail(folder):
        raise OSError(5, "Input/output error")

    def hang(folder):
        while True:
            pass

    monkeypatch.setattr(attack, "SECONDS", 0.05)
    one = example(break_manifest)
    for reader, text in ((fail, "an error of somebody else's: OSError"), (hang, "hangs: no answer after")):
        monkeypatch.setitem(attack.READERS, "load", reader)
        came = attack.run(one, pristine[False], tmp_path / text[:5].strip())
        assert attack.failures(one, came)[0].startswith(f"load(verify=True): {text}")


def test_an_error_that_does_not_say_where_is_seen(pristine, tmp_path, monkeypatch):
    def nowhere(folder):
        raise attack.CorruptFileError("not a bank's manifest")

    monkeypatch.setitem(attack.READERS, "verify", nowhere)
    one = example(break_manifest)
    assert len(attack.failures(one, attack.run(one, pristine[False], tmp_path / "bank"))) == 1


def test_the_command(pristine, capsys):
    one = example(break_manifest)
    assert main([one, replace(one, name="again")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("beaten off example: something: \"CorruptFileError: bank/bank.index.json: not a bank's")
    assert lines[-1] == "2 attacks, 0 succeeded"


def test_the_pristine_bank_stays_as_it_is(pristine, tmp_path):
    before = {path.name: path.read_bytes() for path in pristine[False].iterdir()}
    attack.run(example(shutil.rmtree), pristine[False], tmp_path / "bank")
    assert {path.name: path.read_bytes() for path in pristine[False].iterdir()} == before
