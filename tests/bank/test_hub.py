"""Banks on the hub, against a stand-in that speaks its HTTP API: what is sent, what comes back, and what is refused.

The hub's client reads its settings when it is imported. So it runs in processes of their own, one with a network and
one without; errors come back as they were raised.
"""

import importlib.util
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.hub import _plain_errors, download_bank, push_to_hub
from genmix_transforms.bank.manifest import Fill, read_manifest, write_manifest
from genmix_transforms.bank.writing import BankWriter
from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError

_spec = importlib.util.spec_from_file_location("hub_stand_in", Path(__file__).with_name("hub_stand_in.py"))
hub_stand_in = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hub_stand_in)


@contextmanager
def process_with(**settings):
    """A call that runs in another process, with these environment variables."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_OFFLINE"))]:
                patch.delenv(name)
            for name, value in settings.items():
                patch.setenv(name, str(value))
            pool.submit(len, "").result()  # the process starts now, with these variables
        yield lambda function, *args, **options: pool.submit(function, *args, **options).result()


@pytest.fixture(scope="module")
def hub():
    with hub_stand_in.HubStandIn() as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The hub's folder on this machine, with the cache."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def settings(home):
    return {
        "HF_HOME": home,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }


@pytest.fixture(scope="module")
def online(hub, settings):
    """A process that knows the hub and a token."""
    with process_with(HF_ENDPOINT=hub.endpoint, HF_TOKEN=hub.token, **settings) as call:
        yield call


@pytest.fixture(scope="module")
def offline(hub, settings):
    """A process with HF_HUB_OFFLINE and the same cache."""
    with process_with(HF_ENDPOINT=hub.endpoint, HF_TOKEN=hub.token, HF_HUB_OFFLINE="1", **settings) as call:
        yield call


@pytest.fixture
def saved(tmp_path, make_bank):
    """The maker of saved banks: ``saved("name", **options of make_bank)`` is the folder."""

    def save(name="mine", **options):
        make_bank(**options).save(tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def in_shards(tmp_path):
    """A saved bank of three shards."""
    folder = tmp_path / "in-shards"
    with BankWriter(folder, classes=["cyst", "metastasis"], image_shape=(1, 4, 4), shard_bytes=48) as writer:
        writer.add(torch.arange(7).view(7, 1, 1, 1).expand(7, 1, 4, 4).byte(), torch.tensor([0, 1, 1, 0, 1, 0, 0]))
    assert len(shards_of(folder)) == 3
    return folder


def shards_of(folder):
    return [shard["file"] for shard in json.loads((folder / "bank.index.json").read_text())["shards"]]


def bank_files(folder):
    return {name: (folder / name).read_bytes() for name in ["bank.index.json", *shards_of(folder)]}


def only(files, *names):
    return {name: files[name] for name in names}


# What is sent


def test_one_commit_of_the_bank_its_card_and_its_sheet(hub, online, in_shards):
    (in_shards / "notes.txt").write_text("somebody's")
    url = online(push_to_hub, in_shards, "me/whole")
    assert hub.commits("me/whole") == ["initial commit", "A bank of 7 synthetic images"]
    published = hub.files("me/whole")
    expected = bank_files(in_shards)
    assert published.keys() == {*expected, "README.md", "sheet.png", ".gitattributes"}
    assert only(published, *expected) == expected
    assert published["sheet.png"].startswith(b"\x89PNG")
    assert url == f"{hub.endpoint}/datasets/me/whole/commit/{hub.repositories['me/whole'].branches['main']}"


def test_the_card_is_that_of_the_bank(hub, online, saved):
    online(push_to_hub, saved(), "me/card", licence="cc-by-4.0", title="Cysts and more")
    card = hub.files("me/card")["README.md"].decode()
    assert "license: cc-by-4.0" in card
    assert "# Cysts and more" in card
    assert 'SyntheticBank.from_hub("me/card")' in card


def test_what_is_published_has_sha256_sums(hub, online, in_shards):
    online(push_to_hub, in_shards, "me/sealed")
    files = hub.files("me/sealed")
    for shard in json.loads(files["bank.index.json"])["shards"]:
        assert shard["sha256"] == hub_stand_in._sha256(files[shard["file"]])


def test_the_same_bank_again_is_no_commit(hub, online, saved):
    folder = saved()
    first = online(push_to_hub, folder, "me/again")
    assert online(push_to_hub, folder, "me/again") == first
    assert len(hub.commits("me/again")) == 2


def test_an_older_banks_shards_go_in_the_same_commit_and_other_files_stay(hub, online, in_shards, saved):
    online(push_to_hub, in_shards, "me/replaced")
    repository = hub.repositories["me/replaced"]
    repository.commit("main", {**hub.files("me/replaced"), "paper.pdf": b"somebody's"}, "a paper")
    signals = saved("signals", shape=(1, 16))  # of which no sheet can be drawn
    online(push_to_hub, signals, "me/replaced", commit_message="signals now")
    assert hub.commits("me/replaced")[2:] == ["a paper", "signals now"]
    published = hub.files("me/replaced")
    assert published.keys() == {*bank_files(signals), "README.md", ".gitattributes", "paper.pdf"}
    assert only(published, *bank_files(signals)) == bank_files(signals)


def test_a_bank_that_was_never_saved(hub, online, make_bank, same):
    bank = make_bank()
    online(push_to_hub, bank, "me/in-memory")
    same(SyntheticBank.load(online(download_bank, "me/in-memory")), bank)


def test_a_bank_is_not_moved_to_the_copy_that_was_sent(make_bank, tmp_path):
    bank = make_bank()
    bank.save(tmp_path / "mine")
    with pytest.raises(InputError, match="me/nowhere"):
        push_to_hub(bank, "me/nowhere", endpoint="http://127.0.0.1:9", token="hf_none")
    bank.verify()  # of the files in tmp_path


def test_a_branch_is_made_and_the_others_stay(hub, online, saved):
    online(push_to_hub, saved("first"), "me/branches")
    before = hub.files("me/branches")
    online(push_to_hub, saved("second", seed=1), "me/branches", revision="draft")
    assert hub.files("me/branches") == before
    assert hub.files("me/branches", "draft") != before


def test_a_proposal_changes_no_branch(hub, online, saved):
    online(push_to_hub, saved("first"), "me/proposed")
    before = hub.files("me/proposed")
    url = online(push_to_hub, saved("second", seed=1), "me/proposed", create_pr=True)
    assert hub.files("me/proposed") == before
    assert url.rpartition("/")[2] == hub.repositories["me/proposed"].branches["refs/pr/1"]


# What is not sent


def test_private_unless_told_otherwise(hub, online, saved):
    online(push_to_hub, saved(), "me/private")
    online(push_to_hub, saved("other"), "me/public", private=False)
    assert (hub.repositories["me/private"].private, hub.repositories["me/public"].private) == (True, False)


def test_nothing_goes_to_a_public_repository_by_mistake(hub, online, saved):
    online(push_to_hub, saved("first"), "me/open", private=False)
    with pytest.raises(InputError, match=r"me/open exists, and everybody can see it; .*private=False"):
        online(push_to_hub, saved("second", seed=1), "me/open")
    assert len(hub.commits("me/open")) == 2


def test_a_path_in_the_provenance_is_not_published(hub, online, saved):
    folder = saved(provenance={"generator": {"kind": "dcgan", "data": "/home/somebody/ct"}})
    with pytest.raises(InputError, match=r"path of your machine \(sources\[0\]\.generator\.data\)"):
        online(push_to_hub, folder, "me/path")
    assert "me/path" not in hub.repositories


def test_a_corrupt_shard_is_not_published(hub, online, in_shards):
    second = in_shards / shards_of(in_shards)[1]
    raw = bytearray(second.read_bytes())
    raw[-1] ^= 1
    second.write_bytes(raw)
    with pytest.raises(CorruptFileError, match=second.name):
        online(push_to_hub, in_shards, "me/corrupt")
    assert "me/corrupt" not in hub.repositories


def test_an_unfinished_fill_is_not_published(hub, online, saved):
    folder = saved()
    manifest = read_manifest(folder)
    write_manifest(folder, replace(manifest, fills=(Fill(identity="x", first=0, total=3),)))
    with pytest.raises(InputError, match="2 shards of a fill are still to come"):
        online(push_to_hub, folder, "me/unfinished")


def test_somebody_commits_meanwhile(hub, online, saved):
    online(push_to_hub, saved("first"), "me/busy")
    hub.meanwhile = lambda repository: repository.commit("main", {"theirs": b"x"}, "theirs")
    with pytest.raises(InputError, match="somebody else has committed meanwhile; push again"):
        online(push_to_hub, saved("second", seed=1), "me/busy")
    assert hub.files("me/busy") == {"theirs": b"x"}


def test_no_bank_to_push(online, tmp_path):
    with pytest.raises(MissingPathError, match="no such bank"):
        online(push_to_hub, tmp_path / "nowhere", "me/bank")


@pytest.mark.parametrize("repo_id", ["bank", "a/b/c", "", "me/ba nk", 3])
def test_push_wants_owner_and_name(saved, repo_id):
    with pytest.raises(InputError, match="owner/name, got"):
        push_to_hub(saved(), repo_id)


def test_the_hubs_own_rules_for_names(online, saved):
    with pytest.raises(InputError, match="me/a--b"):
        online(push_to_hub, saved(), "me/a--b")


def test_a_licence_that_the_hub_does_not_know(hub, online, saved):
    with pytest.raises(InputError, match='"license" must be one of'):
        online(push_to_hub, saved(), "me/licence", licence="do-what-you-like")
    assert hub.commits("me/licence") == ["initial commit"]


def test_push_without_a_token(online, saved):
    with pytest.raises(InputError, match="wants a token that may write there: run `hf auth login`"):
        online(push_to_hub, saved(), "me/nobody", token="hf_wrong")


def test_push_without_a_network(online, offline, saved):
    folder = saved()
    with pytest.raises(InputError, match="me/bank: HF_HUB_OFFLINE is set"):
        offline(push_to_hub, folder, "me/bank")
    with pytest.raises(InputError, match="me/bank: the hub does not answer"):
        online(push_to_hub, folder, "me/bank", endpoint="http://127.0.0.1:9")


# What comes back


def test_the_bank_comes_back_and_nothing_beside_it(online, in_shards, same):
    online(push_to_hub, in_shards, "me/back")
    folder = online(download_bank, "me/back")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == bank_files(in_shards)
    same(SyntheticBank.load(folder, verify=True), SyntheticBank.load(in_shards))


def test_a_revision_is_always_the_same_bank(online, saved, same):
    first, second, third = saved("first"), saved("second", seed=1), saved("third", seed=2)
    commit = online(push_to_hub, first, "me/pinned").rpartition("/")[2]
    online(push_to_hub, second, "me/pinned")
    online(push_to_hub, third, "me/pinned", revision="draft")
    for revision, folder in ((commit, first), (None, second), ("main", second), ("draft", third)):
        same(SyntheticBank.load(online(download_bank, "me/pinned", revision=revision)), SyntheticBank.load(folder))


def test_a_published_bank_can_be_published_again(hub, online, saved):
    online(push_to_hub, saved(), "me/original")
    folder = online(download_bank, "me/original")
    before = {file.name for file in folder.iterdir()}
    online(push_to_hub, folder, "me/fork")
    assert hub.files("me/fork")["bank.index.json"] == hub.files("me/original")["bank.index.json"]
    assert {file.name for file in folder.iterdir()} == before  # the cache is not written to


def test_a_cache_of_ones_own_and_a_hub_given(hub, offline, online, saved, tmp_path):
    online(push_to_hub, saved(), "me/elsewhere")
    options = {"cache_dir": tmp_path / "cache", "endpoint": hub.endpoint, "token": hub.token}
    folder = online(download_bank, "me/elsewhere", **options)
    assert folder.is_relative_to(tmp_path / "cache")
    with pytest.raises(MissingPathError, match="me/elsewhere"):
        offline(download_bank, "me/elsewhere")  # whose cache is another


def test_from_the_cache_alone(hub, online, offline, saved, same):
    source = saved()
    commit = online(push_to_hub, source, "me/cached").rpartition("/")[2]
    folder = online(download_bank, "me/cached")
    asked = len(hub.requests)
    assert online(download_bank, "me/cached", local_files_only=True) == folder
    assert offline(download_bank, "me/cached") == folder
    assert offline(download_bank, "me/cached", revision=commit) == folder
    assert len(hub.requests) == asked
    same(SyntheticBank.load(folder), SyntheticBank.load(source))


def test_the_cache_serves_while_the_hub_is_away(online, saved):
    online(push_to_hub, saved(), "me/away")
    folder = online(download_bank, "me/away")
    assert online(download_bank, "me/away", endpoint="http://127.0.0.1:9") == folder


def test_nothing_in_the_cache_and_no_network(online, offline, home):
    way_out = (
        "run `hf download me/far --repo-type dataset --revision v1`, and bring the cache's folder datasets--me--far"
    )
    for call, options, reason in (
        (offline, {}, "HF_HUB_OFFLINE is set"),
        (online, {"local_files_only": True}, "local_files_only is set"),
        (online, {"endpoint": "http://127.0.0.1:9"}, r"http://127.0.0.1:9 does not answer \(ConnectError\)"),
    ):
        with pytest.raises(MissingPathError, match=f"me/far at v1: not, .* in the cache {home}.*{reason}.*{way_out}"):
            call(download_bank, "me/far", revision="v1", **options)


def test_no_such_repository(online, saved):
    online(push_to_hub, saved(), "me/secret")
    for repo_id, token in (("me/unknown", None), ("me/secret", "hf_wrong")):
        with pytest.raises(MissingPathError, match=rf"{repo_id}: .*no such dataset repository.*hf auth login"):
            online(download_bank, repo_id, token=token)


@pytest.mark.parametrize("revision", ["v9", "0" * 40])
def test_no_such_revision(online, saved, revision):
    online(push_to_hub, saved(), "me/revisions")
    with pytest.raises(MissingPathError, match=f"me/revisions: no revision '{revision}'"):
        online(download_bank, "me/revisions", revision=revision)


def test_a_repository_that_is_no_bank(hub, online):
    hub.repositories["me/text"] = hub_stand_in.Repository("me/text", private=False)
    hub.repositories["me/text"].commit("main", {"train.parquet": b"x" * 100}, "a text")
    asked = len(hub.requests)
    with pytest.raises(InputError, match=r"me/text: a dataset repository without bank\.index\.json: not a bank"):
        online(download_bank, "me/text")
    assert not any("resolve" in request for request in hub.requests[asked:])  # of which nothing is downloaded


def test_a_folder_is_returned_as_it_is(saved, monkeypatch):
    folder = saved()
    assert download_bank(folder) == folder
    assert download_bank(str(folder)) == folder
    monkeypatch.chdir(folder.parent.parent)
    assert download_bank(f"{folder.parent.name}/mine") == Path(folder.parent.name, "mine")


def test_a_folder_has_no_revision(saved):
    with pytest.raises(InputError, match="a folder, which has no revision 'v1'"):
        download_bank(saved(), revision="v1")


def test_a_slip_in_a_path_is_not_looked_for_on_the_hub(saved, monkeypatch):
    folder = saved()
    monkeypatch.chdir(folder.parent.parent)
    with pytest.raises(MissingPathError, match="there is no mien"):
        download_bank(f"{folder.parent.name}/mien")


@pytest.mark.parametrize("source", ["bank", "a/b/c", "", Path("me/bank"), "./bank"])
def test_neither_a_folder_nor_an_id(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingPathError, match="no such folder, and not a hub id"):
        download_bank(source)


@pytest.mark.parametrize("error", [ConnectionError("Xet is gone"), TimeoutError("no answer")])
def test_a_connection_that_breaks_is_a_plain_error(error):
    refused = pytest.raises(InputError, match=r"owner/name: the hub does not answer \((Connection|Timeout)Error: ")
    with refused, _plain_errors("owner/name"):
        raise error
