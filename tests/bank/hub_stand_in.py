"""A stand-in for the hub: what of its HTTP API a dataset repository needs, served from memory by a thread.

It answers as the hub does to ``huggingface_hub``, an ordinary HTTP client that knows nothing of it: repositories with
branches and commits (the first, with ``.gitattributes``, made with the repository), large files sent beforehand over
the LFS protocol and checked against their sha256, and the hub's headers and error codes. ``requests`` lists what was
asked.

    with HubStandIn() as hub:
        push_to_hub("banks/mine", "me/bank", endpoint=hub.endpoint, token=hub.token)
        hub.files("me/bank")  # {"README.md": b"...", ...}
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_of_nobody"
LARGE = (".safetensors", ".png")  # what the hub's .gitattributes gives to LFS


class Repository:
    """Branches point to commits, commits hold whole trees."""

    def __init__(self, name: str, *, private: bool) -> None:
        self.name, self.private = name, private
        self.trees: dict[str, dict[str, bytes]] = {}
        self.messages: dict[str, str] = {}
        self.branches: dict[str, str] = {}
        self.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")

    def commit(self, branch: str, tree: dict[str, bytes], message: str) -> str:
        content = json.dumps([self.name, len(self.trees), branch, message, sorted(tree)])
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.trees[sha], self.messages[sha], self.branches[branch] = tree, message, sha
        return sha

    def resolve(self, revision: str) -> str | None:
        sha = self.branches.get(revision, revision)
        return sha if sha in self.trees else None


class HubStandIn:
    """The server. A context manager: it listens on a free port of this machine until it is left."""

    token = TOKEN

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.meanwhile: Callable[[Repository], object] | None = None  # done once, while somebody is about to commit
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        # Large files come from another host than the rest, and the client's token must not go there.
        self.store = f"http://localhost:{self._server.server_port}/large"

    def __enter__(self) -> "HubStandIn":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """What a repository holds at a revision."""
        repository = self.repositories[name]
        sha = repository.resolve(revision)
        assert sha is not None
        return repository.trees[sha]

    def commits(self, name: str) -> list[str]:
        """The messages of all commits, oldest first."""
        return list(self.repositories[name].messages.values())


class _RefusedError(Exception):
    def __init__(self, status: int, code: str = "", **content: Any) -> None:
        self.status, self.code, self.content = status, code, content


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 (the names that http.server looks for)

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{self.command} {url.path}")
        try:
            for methods, pattern, handle in _ROUTES:
                match = re.fullmatch(pattern, url.path)
                if match and self.command in methods.split():
                    with self.hub.lock:
                        handle(self, **{name: unquote(value) for name, value in match.groupdict().items() if value})
                    return
            raise _RefusedError(404)
        except _RefusedError as refused:
            headers = {"X-Error-Code": refused.code} if refused.code else {}
            self._send(refused.content, status=refused.status, **headers)

    def _send(self, content: Any, *, status: int = 200, **headers: str) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    @property
    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, name: str, *, write: bool = False) -> Repository:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._known):
            raise _RefusedError(404 if self._known else 401, "RepoNotFound", error="Repository not found")
        if write and not self._known:
            raise _RefusedError(403, error="Forbidden")
        return repository

    def _tree(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repository = self._repository(name)
        sha = repository.resolve(revision)
        if sha is None:
            raise _RefusedError(404, "RevisionNotFound", error="Invalid rev id")
        return sha, repository.trees[sha]

    # The routes

    def create(self) -> None:
        asked = json.loads(self.body)
        if not self._known:
            raise _RefusedError(401, error="Invalid username or password.")
        assert asked["type"] == "dataset"
        name = f"{asked['organization']}/{asked['name']}"
        url = f"{self.hub.endpoint}/datasets/{name}"
        if name in self.hub.repositories:
            raise _RefusedError(409, error="You already created this dataset repo", url=url)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repositories[name] = Repository(name, private=private)
        self._send({"url": url, "name": name})

    def branch(self, name: str, branch: str) -> None:
        repository = self._repository(name, write=True)
        if branch in repository.branches:
            raise _RefusedError(409, error="Reference already exists")
        repository.branches[branch] = repository.branches["main"]
        self._send({})

    def info(self, name: str, revision: str = "main") -> None:
        sha, tree = self._tree(name, revision)
        files = [{"rfilename": path} for path in sorted(tree)]
        private = self.hub.repositories[name].private
        self._send({"id": name, "sha": sha, "private": private, "siblings": files})

    def tree(self, name: str, revision: str) -> None:
        _, tree = self._tree(name, revision)
        self._send([{"type": "file", "path": path, **_described(path, raw)} for path, raw in sorted(tree.items())])

    def preupload(self, name: str, revision: str) -> None:
        self._repository(name, write=True)
        _, tree = self._tree(name, revision)
        answers = []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            mode = "lfs" if path.endswith(LARGE) else "regular"
            there = tree.get(path)
            oid = None if there is None else (_sha256(there) if mode == "lfs" else _git_hash(there))
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send({"files": answers})
        if self.hub.meanwhile is not None:
            meanwhile, self.hub.meanwhile = self.hub.meanwhile, None
            meanwhile(self.hub.repositories[name])

    def large_batch(self, name: str) -> None:
        self._repository(name, write=True)
        objects = []
        for one in json.loads(self.body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.store}/{one['oid']}"}}
            objects.append({**one, **({} if one["oid"] in self.hub.large else {"actions": upload})})
        self._send({"transfer": "basic", "objects": objects})

    def large_put(self, oid: str) -> None:
        if _sha256(self.body) != oid:
            raise _RefusedError(400, error="not what was announced")
        self.hub.large[oid] = self.body
        self._send({})

    def large_get(self, oid: str) -> None:
        if "Authorization" in self.headers:
            raise _RefusedError(400, error="the store takes no token")
        self._send(self.hub.large[oid], ETag=f'"{oid}"')

    def validate(self) -> None:
        content = json.loads(self.body)["content"]
        try:
            data = yaml.safe_load(content.split("---")[1])
        except (IndexError, yaml.YAMLError) as error:
            raise _RefusedError(400, errors=[{"message": str(error)}]) from error
        # The hub knows the licences there are; a few stand here for them.
        if data.get("license") not in (None, "cc-by-4.0", "cc0-1.0", "mit", "other"):
            raise _RefusedError(400, errors=[{"message": '"license" must be one of cc-by-4.0, ...'}], warnings=[])
        self._send({"errors": [], "warnings": []})

    def commit(self, name: str, revision: str) -> None:
        repository = self._repository(name, write=True)
        parent, before = self._tree(name, revision)
        header, *operations = (json.loads(line) for line in self.body.splitlines())
        if header["value"].get("parentCommit", parent) != parent:
            raise _RefusedError(412, error="A commit has happened since. Please refresh and try again.")
        tree = dict(before)
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                if value["oid"] not in self.hub.large:
                    raise _RefusedError(400, error="LFS object not found")
                tree[value["path"]] = self.hub.large[value["oid"]]
            elif operation["key"] == "deletedFile":
                del tree[value["path"]]
            else:
                raise _RefusedError(400, error=f"unknown operation {operation['key']}")
        proposed = "create_pr" in self.query
        branch = f"refs/pr/{len(repository.branches)}" if proposed else revision
        sha = repository.commit(branch, tree, header["value"]["summary"])
        page = f"{self.hub.endpoint}/datasets/{name}"
        answer = {"commitUrl": f"{page}/commit/{sha}", "commitOid": sha}
        self._send({**answer, **({"pullRequestUrl": f"{page}/discussions/1"} if proposed else {})})

    def resolve(self, name: str, revision: str, path: str) -> None:
        sha, tree = self._tree(name, revision)
        if path not in tree:
            raise _RefusedError(404, "EntryNotFound", error="Entry not found")
        raw = tree[path]
        described = _described(path, raw)
        if "lfs" not in described:
            self._send(raw, X_Repo_Commit=sha, ETag=f'"{described["oid"]}"')
            return
        oid = described["lfs"]["oid"]
        linked = {"X_Linked_Size": str(len(raw)), "X_Linked_ETag": f'"{oid}"'}
        self._send(b"", status=302, X_Repo_Commit=sha, Location=f"{self.hub.store}/{oid}", **linked)


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _git_hash(raw: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()


def _described(path: str, raw: bytes) -> dict[str, Any]:
    """A file as the listing of a tree describes it."""
    if not path.endswith(LARGE):
        return {"size": len(raw), "oid": _git_hash(raw)}
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{_sha256(raw)}\nsize {len(raw)}\n".encode()
    lfs = {"oid": _sha256(raw), "size": len(raw), "pointerSize": len(pointer)}
    return {"size": len(raw), "oid": _git_hash(pointer), "lfs": lfs}


_NAME = r"(?P<name>[^/]+/[^/]+)"
_ROUTES = [
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate),
    ("GET", rf"/api/datasets/{_NAME}(/revision/(?P<revision>[^/]+))?", _Handler.info),
    ("GET", rf"/api/datasets/{_NAME}/tree/(?P<revision>[^/]+)", _Handler.tree),
    ("POST", rf"/api/datasets/{_NAME}/branch/(?P<branch>[^/]+)", _Handler.branch),
    ("POST", rf"/api/datasets/{_NAME}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    ("POST", rf"/api/datasets/{_NAME}/commit/(?P<revision>[^/]+)", _Handler.commit),
    ("POST", rf"/datasets/{_NAME}\.git/info/lfs/objects/batch", _Handler.large_batch),
    ("PUT", r"/large/(?P<oid>[0-9a-f]{64})", _Handler.large_put),
    ("GET HEAD", r"/large/(?P<oid>[0-9a-f]{64})", _Handler.large_get),
    ("GET HEAD", rf"/datasets/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
]
