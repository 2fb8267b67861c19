"""Banks on the Hugging Face hub: a dataset repository that holds a bank's files, its card and its contact sheet."""

import copy
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from genmix_transforms.bank.card import SHEET, bank_card, bank_sheet, has_sheet, paths_in
from genmix_transforms.bank.manifest import (
    DECISIONS,
    INDEX,
    Manifest,
    is_shard_name,
    read_manifest,
    refuse_unfinished,
    write_manifest,
)
from genmix_transforms.bank.opening import verify_bank
from genmix_transforms.bank.reading import MappedRows
from genmix_transforms.bank.rows import Bank
from genmix_transforms.bank.writing import only_writer
from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files.hashing import file_hash
from genmix_transforms.files.images import encode_png

CARD = "README.md"
BANK_FILES = (INDEX, DECISIONS, "bank-[0-9]*.safetensors")
"""What is downloaded: not the card, not the sheet, nor whatever else somebody put beside them."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


class _Saves(Bank, Protocol):
    """A bank that can be saved."""

    def save(self, folder: str | Path) -> None:
        """Save it."""


def push_to_hub(
    bank: _Saves | str | Path,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    licence: str | None = None,
    title: str | None = None,
    commit_message: str | None = None,
    token: str | None = None,
    create_pr: bool = False,
    endpoint: str | None = None,
) -> str:
    """Publish a bank: its files, a card and a contact sheet, as one commit to a dataset repository.

    The repository holds this bank afterwards and no shard of an earlier one; a card that was there is replaced, other
    files stay. Every shard is held to its checksum before anything is sent, and a folder's manifest gets sha256 sums,
    if it has none yet.

    Args:
        bank: a saved bank's folder, whose files are sent as they are; or a bank, of which a copy is saved first (in the
            system's folder for temporary files: for a large bank, save it and give the folder).
        repo_id: owner/name; the repository is made if need be.
        private: only you and those whom you invite can see it. A public repository is refused then.
        revision: branch to commit to, made if need be; None: the default one.
        licence: the hub's identifier of it, such as "cc-by-4.0"; None: what the bank's provenance records.
        title: of the card; None: made from the class names.
        commit_message: None: how many images it is.
        token: None: that of ``hf auth login``, or of the environment's ``HF_TOKEN``.
        create_pr: propose the commit instead of making it.
        endpoint: of another hub; None: that of the environment's ``HF_ENDPOINT``, or huggingface.co.

    Returns:
        The commit's address.

    Raises:
        InputError: no such bank or an unfinished one, a path in its provenance, a public repository where a private one
            is wanted, or a hub that refuses.
        CorruptFileError: a shard is not what was written.

    Example:
        >>> push_to_hub("banks/mine", "OWNER/NAME", licence="cc-by-4.0")  # doctest: +SKIP
        'https://huggingface.co/datasets/OWNER/NAME/commit/...'
    """
    from huggingface_hub import HfApi

    if not isinstance(repo_id, str) or not _HUB_ID.fullmatch(repo_id):
        raise InputError(f"push_to_hub: expected a repository's owner/name, got {repo_id!r}")
    with ExitStack() as kept:
        if isinstance(bank, str | Path):
            source = Path(bank)
        else:
            source = Path(kept.enter_context(tempfile.TemporaryDirectory())) / "bank"
            # Saving makes the folder the bank's own; this one will be gone, so it is a copy's.
            copy.copy(bank).save(source)
        manifest = _checked(source)
        files = _files(source, manifest, repo_id=repo_id, licence=licence, title=title)
        message = commit_message or f"A bank of {manifest.count:,} synthetic images"
        api = HfApi(endpoint=endpoint, token=token, library_name="genmix_transforms")
        return _commit(api, repo_id, files, message=message, private=private, revision=revision, create_pr=create_pr)


def _commit(
    api: Any,
    repo_id: str,
    files: Mapping[str, Path | bytes],
    *,
    message: str,
    private: bool,
    revision: str | None,
    create_pr: bool,
) -> str:
    """Send the files as one commit, which removes what an earlier bank left, and return its address."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    with _plain_errors(repo_id):
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        if private and api.dataset_info(repo_id).private is False:
            raise InputError(
                f"push_to_hub: {repo_id} exists, and everybody can see it; give another repository, make it private "
                "in its settings, or say private=False"
            )
        if revision is not None and not create_pr and not revision.startswith("refs/"):
            api.create_branch(repo_id, repo_type="dataset", branch=revision, exist_ok=True)
        before = api.dataset_info(repo_id, revision=revision)
        there = [file.rfilename for file in before.siblings or ()]
        stale = [name for name in there if (is_shard_name(name) or name in (SHEET, DECISIONS)) and name not in files]
        commit = api.create_commit(
            repo_id,
            repo_type="dataset",
            operations=[
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()),
                *(CommitOperationDelete(path_in_repo=name) for name in stale),
            ],
            commit_message=message,
            revision=revision,
            create_pr=create_pr,
            # What is removed was looked up in this commit: another that comes between must not be mixed with ours.
            parent_commit=before.sha,
        )
    return str(commit.commit_url)


def download_bank(
    repo_id: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    local_files_only: bool | None = None,
    endpoint: str | None = None,
) -> Path:
    """The folder of a bank that somebody published, downloaded into the hub's cache if it is not there yet.

    Args:
        repo_id: a dataset repository's owner/name; or a folder, which is returned as it is.
        revision: branch, tag or commit. A commit is always the same bank; None: the newest.
        cache_dir: None: the hub's (``HF_HUB_CACHE``).
        token: for private repositories; None: that of ``hf auth login``, or of the environment's ``HF_TOKEN``.
        local_files_only: look in the cache alone; None: if ``HF_HUB_OFFLINE`` is set.
        endpoint: of another hub; None: that of the environment's ``HF_ENDPOINT``, or huggingface.co.

    Returns:
        A folder for :meth:`SyntheticBank.load`. Its files belong to the cache: do not write there.

    Raises:
        MissingPathError: no such folder, repository or revision, or no network and nothing in the cache.
        InputError: a repository that holds no bank, or a revision of a folder.

    Example:
        >>> SyntheticBank.load(download_bank("OWNER/NAME", revision="v1"))  # doctest: +SKIP
    """
    folder = Path(repo_id)
    if repo_id != "" and folder.is_dir():
        if revision is not None:
            raise InputError(f"{repo_id}: a folder, which has no revision {revision!r}; leave revision out")
        return folder
    if not isinstance(repo_id, str) or not _HUB_ID.fullmatch(repo_id) or repo_id.startswith((".", os.sep)):
        raise MissingPathError(f"{repo_id}: no such folder, and not a hub id (owner/name)")
    if folder.parent.is_dir():  # "banks/mien" is a slip, not somebody's repository
        raise MissingPathError(f"{repo_id}: no such folder (in {folder.parent} there is no {folder.name})")

    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    cache = Path(cache_dir or constants.HF_HUB_CACHE)
    with _plain_errors(repo_id, revision=revision):
        try:
            snapshot = snapshot_download(
                repo_id,
                repo_type="dataset",
                revision=revision,
                cache_dir=cache,
                token=token,
                local_files_only=bool(local_files_only),
                allow_patterns=list(BANK_FILES),
                endpoint=endpoint,
                library_name="genmix_transforms",
            )
        except LocalEntryNotFoundError as error:
            offline = "local_files_only" if local_files_only else constants.HF_HUB_OFFLINE and "HF_HUB_OFFLINE"
            cause = type(error.__cause__ or error).__name__
            reason = f"{offline} is set" if offline else f"{endpoint or constants.ENDPOINT} does not answer ({cause})"
            at = "" if revision is None else f" --revision {revision}"
            raise MissingPathError(
                f"{repo_id}{_at(revision)}: not, or not whole, in the cache {cache}, and {reason}; where there is a "
                f"network run `hf download {repo_id} --repo-type dataset{at}`, and bring the cache's folder "
                f"datasets--{repo_id.replace('/', '--')} here, or give the path of a bank's folder"
            ) from error
    if not (Path(snapshot) / INDEX).is_file():
        raise InputError(f"{repo_id}{_at(revision)}: a dataset repository without {INDEX}: not a bank")
    return Path(snapshot)


def seal(folder: str | Path) -> Manifest:
    """Verify a bank, and write sha256 sums of its shards into its manifest, as what is published should have.

    Raises:
        CorruptFileError: the bank is not whole.
    """
    folder = Path(folder)
    with only_writer(folder):
        manifest = verify_bank(folder)
        if all(entry.sha256 for entry in manifest.shards):
            return manifest
        shards = tuple(replace(entry, sha256=file_hash(folder / entry.file)) for entry in manifest.shards)
        manifest = replace(manifest, shards=shards, generation=manifest.generation + 1)
        write_manifest(folder, manifest)
        return manifest


def _checked(folder: Path) -> Manifest:
    """The manifest of a bank that is fit to be published, its sha256 sums included."""
    manifest = read_manifest(folder)
    refuse_unfinished(folder, manifest)
    paths = paths_in(manifest.sources, "sources")
    if paths:
        raise InputError(
            f"push_to_hub: {folder}: its provenance holds a path of your machine ({', '.join(paths[:3])}), and would "
            "be published; save the bank with a provenance without it"
        )
    # Not every bank may be written to: what somebody published has its sums already, and lies in the hub's cache.
    return verify_bank(folder) if all(entry.sha256 for entry in manifest.shards) else seal(folder)


def _files(
    folder: Path, manifest: Manifest, *, repo_id: str, licence: str | None, title: str | None
) -> dict[str, Path | bytes]:
    """What is published, by name."""
    index = (folder / INDEX).read_bytes()
    bank = MappedRows(folder, manifest)
    files: dict[str, Path | bytes] = {entry.file: folder / entry.file for entry in manifest.shards}
    files[CARD] = bank_card(bank, licence=licence, title=title, repo_id=repo_id).encode()
    if decided := bank.decisions.summary():
        files[DECISIONS] = decided
    if has_sheet(bank):
        files[SHEET] = encode_png(bank_sheet(bank))
    if read_manifest(folder) != manifest or (folder / INDEX).read_bytes() != index:
        raise InputError(f"push_to_hub: {folder} was changed meanwhile; push it when nobody writes there")
    return {**files, INDEX: index}


@contextmanager
def _plain_errors(repo_id: str, *, revision: str | None = None) -> Iterator[None]:
    """Turn the hub's errors into ours."""
    from huggingface_hub import errors

    try:
        yield
    except InputError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise InputError(f"{repo_id}: HF_HUB_OFFLINE is set, and this needs the network; unset it") from error
    except errors.LocalTokenNotFoundError as error:
        raise InputError(f"{repo_id}: no token: run `hf auth login`, or give token=") from error
    except errors.GatedRepoError as error:
        raise MissingPathError(f"{repo_id}: its owner grants access one by one: ask for it on its page") from error
    except errors.RepositoryNotFoundError as error:
        raise MissingPathError(
            f"{repo_id}: no such folder, and no such dataset repository on the hub; or a private one, and no token "
            "that may see it: run `hf auth login`, or give token="
        ) from error
    except errors.RevisionNotFoundError as error:
        raise MissingPathError(f"{repo_id}: no revision {revision or 'main'!r} (branch, tag or commit)") from error
    except errors.HfHubHTTPError as error:
        raise InputError(f"{repo_id}: {_refusal(error)}") from error
    except ValueError as error:  # what the hub's client finds wrong: a license that the hub does not know, for one
        raise InputError(f"{repo_id}: {error}") from error
    except Exception as error:
        # Which HTTP library the hub's client uses, and so the class of this error, depends on its version.
        of_http = type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "requests")
        if not of_http and not isinstance(error, ConnectionError | TimeoutError):  # of the client of large files
            raise
        raise InputError(f"{repo_id}: the hub does not answer ({type(error).__name__}: {error})") from error


def _refusal(error: Any) -> str:
    status = error.response.status_code if error.response is not None else None
    if status in (401, 403):
        return "the hub wants a token that may write there: run `hf auth login`, or give token="
    if status == 412:
        return "somebody else has committed meanwhile; push again"
    return f"the hub answered {status} ({error.server_message or type(error).__name__})"


def _at(revision: str | None) -> str:
    return "" if revision is None else f" at {revision}"
