"""A small server that speaks the Hub's protocol as the installed huggingface_hub uses it; everything lies on disk.

Create, preupload, LFS (batch, storage, verify), commit, info, tree, paths-info, resolve with redirects and ranges,
whoami; of models, and of data sets, which are `datasets/org/name` here. LFS storage has an address of its own
(localhost), as the real one has: a token that is sent there is a mistake. Left out: Xet (clients set
HF_HUB_DISABLE_XET=1), branches, pull requests, Spaces. Followed from huggingface_hub 2.4.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from hub_answers import Answer, Refused, Repository, Request, StoredFile, described

LFS_SUFFIXES = (".safetensors", ".parquet", ".png", ".bin", ".pt", ".pth", ".onnx")  # in a new repository's rules
LFS_LEAST_BYTES = 10 << 20
LICENSES = (
    "apache-2.0",
    "mit",
    "openrail++",
    "cc-by-nc-4.0",
    "llama3.1",
    "other",
    "unknown",
)  # some of those the Hub takes
WRITE_TOKEN, READ_TOKEN = "hf_write", "hf_read"


class HubServer(ThreadingHTTPServer):
    """
    Args:
        folder: where the bytes of all files lie, by their hashes.
        fail_at: by repository, the number of the request about it (from 1) that finds no space left, once.
    """

    daemon_threads = True

    def __init__(self, folder: Path, fail_at: Mapping[str, int] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.fail_at = dict(fail_at or {})
        self.cut_next_download = False  # the next LFS download ends after half of its bytes
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.unknown: list[str] = []
        self.lock = threading.RLock()

    @property
    def endpoint(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def storage(self) -> str:
        """Where LFS files go to and come from."""
        return f"http://localhost:{self.server_port}"

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Variables for a client that knows this Hub only, with an empty home."""
        known = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
        known |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        return known | {"HF_TOKEN": token or ""}

    def files(self, repo_id: str) -> dict[str, bytes]:
        """The files of the last commit, by path."""
        _, files = self.repositories[repo_id].commits[-1]
        return {path: self.place(repo_id, file.oid).read_bytes() for path, file in files.items()}

    def place(self, repo_id: str, oid: str) -> Path:
        """Where the bytes of this hash lie; each repository has its own."""
        return self.folder / repo_id / oid

    def store(self, repo_id: str, content: bytes, is_lfs: bool) -> StoredFile:
        """Write bytes under their hash."""
        digest = hashlib.sha256(content) if is_lfs else hashlib.sha1(b"blob %d\0" % len(content) + content)
        self.place(repo_id, digest.hexdigest()).write_bytes(content)
        return StoredFile(digest.hexdigest(), len(content), is_lfs)

    def create(self, repo_id: str, private: bool) -> None:
        """A repository with its first commit, which holds the LFS rules."""
        rules = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        (self.folder / repo_id).mkdir(parents=True)
        self.repositories[repo_id] = Repository(private, [])
        rules_file = self.store(repo_id, rules.encode(), is_lfs=False)
        self.commit(repo_id, {".gitattributes": rules_file}, set(), "initial commit")

    def fill(self, repo_id: str, contents: Mapping[str, bytes]) -> None:
        """A new public repository to which somebody has pushed these files."""
        self.create(repo_id, private=False)
        stored = {path: self.store(repo_id, content, is_lfs=False) for path, content in contents.items()}
        self.commit(repo_id, stored, set(), "by hand")

    def commit(self, repo_id: str, added: Mapping[str, StoredFile], deleted: set[str], summary: str) -> str:
        """All of it or nothing; returns the commit's id."""
        commits = self.repositories[repo_id].commits
        parent, files = commits[-1] if commits else ("", {})
        files = {path: file for path, file in {**files, **added}.items() if path not in deleted}
        listing = json.dumps([parent, summary, sorted((path, file.oid) for path, file in files.items())])
        commits.append((hashlib.sha1(listing.encode()).hexdigest(), files))
        return commits[-1][0]

    def count(self, repo_id: str | None) -> None:
        """Raise at the request that `fail_at` names."""
        if repo_id not in self.fail_at:
            return
        self.fail_at[repo_id] -= 1
        if self.fail_at[repo_id] == 0:
            del self.fail_at[repo_id]
            raise Refused(507, "No space left on this Hub.")  # huggingface_hub tries others again, for half a minute


@contextmanager
def running(server: HubServer) -> Iterator[HubServer]:
    """Serve in a thread until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_ID = r"(?:models/)?(?P<repo_id>(?:datasets/)?[\w.-]+/[\w.-]+)"
_REV, _OID = r"(?P<revision>[\w.-]+)", r"(?P<oid>[0-9a-f]{64})"
_ROUTES = [
    (methods.split(), re.compile(pattern), name)
    for methods, pattern, name in (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("POST", rf"/api/{_ID}/preupload/main", "preupload"),
        ("POST", rf"/{_ID}\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", rf"/lfs/{_ID}/{_OID}", "lfs_put"),
        ("POST", rf"/lfs/{_ID}/verify", "lfs_verify"),
        ("GET HEAD", rf"/lfs/{_ID}/{_OID}", "lfs_get"),
        ("POST", rf"/api/{_ID}/commit/main", "commit"),
        ("GET", rf"/api/{_ID}(/revision/{_REV})?", "info"),
        ("GET", rf"/api/{_ID}/tree/{_REV}(/(?P<folder>.+))?", "tree"),
        ("POST", rf"/api/{_ID}/paths-info/{_REV}", "paths_info"),
        ("GET HEAD", rf"/{_ID}/resolve/{_REV}/(?P<path>.+)", "resolve"),
        ("GET HEAD", rf"/api/resolve-cache/{_ID}/{_REV}/(?P<path>.+)", "resolve_cache"),
    )
]


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Silent; `HubServer.requests` is the log."""

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def answer(self) -> None:
        self.content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        path = unquote(urlsplit(self.path).path)
        host = self.headers["Host"].partition(":")[0]
        with self.server.lock:
            self.server.requests.append(Request(self.command, path, host, self.token, self.headers.get("Range")))
            try:
                answer = self.route(path)
            except Refused as refused:
                answer = Answer({"error": str(refused)}, refused.status, refused.headers)
        self.send(answer)

    def route(self, path: str) -> Answer:
        for methods, pattern, name in _ROUTES:
            match = pattern.fullmatch(path)
            if match and self.command in methods:
                known = {key: value for key, value in match.groupdict().items() if value is not None}
                if self.token not in (None, WRITE_TOKEN, READ_TOKEN):
                    raise Refused(401, "Invalid credentials in Authorization header")
                if "repo_id" in known:
                    self.require_readable(known["repo_id"], is_storage=name.startswith("lfs_"))
                    self.server.count(known["repo_id"])
                return getattr(self, name)(**known)
        self.server.unknown.append(f"{self.command} {path}")
        raise Refused(404, "Not Found")

    def send(self, answer: Answer) -> None:
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        length = {"Content-Length": str(len(body))} if answer.status < 300 or answer.status >= 400 else {}
        for name, value in {"Content-Length": "0", **length, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD" or not length:
            return
        if self.server.cut_next_download and "/lfs/" in self.path:
            self.server.cut_next_download, self.close_connection = False, True
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def require_readable(self, repo_id: str, is_storage: bool) -> None:
        """Storage addresses are signed, so that whoever has one may use it."""
        repository = self.server.repositories.get(repo_id)
        if repository is None or (repository.private and not self.token and not is_storage):
            raise Refused(404 if self.token else 401, "Repository not found", "RepoNotFound")

    def require_write_token(self) -> None:
        if self.token is None:
            raise Refused(401, "Invalid username or password.")
        if self.token != WRITE_TOKEN:
            raise Refused(403, "Forbidden: you must use a write token to upload to a repository.")

    def revision(self, repo_id: str, revision: str = "main") -> tuple[str, dict[str, StoredFile]]:
        commits = self.server.repositories[repo_id].commits
        found = [commit for commit in commits if commit[0] == revision or revision == "main"]
        if not found:
            raise Refused(404, "Invalid rev id", "RevisionNotFound")
        return found[-1]

    # --- Reading

    def whoami(self) -> Answer:
        if self.token is None:
            raise Refused(401, "Invalid username or password.")
        role = "write" if self.token == WRITE_TOKEN else "read"
        return Answer({"type": "user", "name": "someone", "auth": {"accessToken": {"role": role}}})

    def info(self, repo_id: str, revision: str = "main") -> Answer:
        commit, files = self.revision(repo_id, revision)
        siblings = [{"rfilename": path} for path in files]
        private = self.server.repositories[repo_id].private
        known = {"id": repo_id.removeprefix("datasets/"), "sha": commit, "private": private}
        return Answer({**known, "tags": [], "siblings": siblings})

    def tree(self, repo_id: str, revision: str, folder: str = "") -> Answer:
        """The files and folders in a folder, or with `recursive` all files below it."""
        _, files = self.revision(repo_id, revision)
        below, is_deep = f"{folder}/" if folder else "", "recursive=true" in self.path.lower()
        inner = {path.removeprefix(below): path for path in files if path.startswith(below)}
        folders = {below + name.partition("/")[0] for name in inner if "/" in name}
        found = [described(path, files[path]) for name, path in inner.items() if is_deep or "/" not in name]
        return Answer([*found, *({"type": "directory", "path": name, "oid": "0" * 40} for name in sorted(folders))])

    def paths_info(self, repo_id: str, revision: str) -> Answer:
        _, files = self.revision(repo_id, revision)
        wanted = parse_qs(self.content.decode()).get("paths", [])
        return Answer([described(path, files[path]) for path in wanted if path in files])

    def resolve(self, repo_id: str, revision: str, path: str) -> Answer:
        """Small files lie at a relative address, which clients follow; LFS files in storage."""
        commit, file = self.find(repo_id, revision, path)
        headers = {"X-Repo-Commit": commit}
        if file.is_lfs:
            headers |= {"X-Linked-Etag": f'"{file.oid}"', "X-Linked-Size": str(file.size)}
            return Answer(b"", 302, headers | {"Location": f"{self.server.storage}/lfs/{repo_id}/{file.oid}"})
        return Answer(b"", 307, headers | {"Location": f"/api/resolve-cache/{repo_id}/{commit}/{path}"})

    def resolve_cache(self, repo_id: str, revision: str, path: str) -> Answer:
        commit, file = self.find(repo_id, revision, path)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file.oid}"'}
        return Answer(self.server.place(repo_id, file.oid).read_bytes(), headers=headers)

    def find(self, repo_id: str, revision: str, path: str) -> tuple[str, StoredFile]:
        commit, files = self.revision(repo_id, revision)
        if path not in files:
            raise Refused(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit})
        return commit, files[path]

    def lfs_get(self, repo_id: str, oid: str) -> Answer:
        content = self.server.place(repo_id, oid).read_bytes()
        headers = {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not match:
            return Answer(content, headers=headers)
        start, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
        return Answer(content[start : last + 1], 206, headers)

    # --- Writing

    def create(self) -> Answer:
        self.require_write_token()
        asked = json.loads(self.content)
        repo_id = f"{asked['organization'] or 'someone'}/{asked['name']}"
        repo_id = f"datasets/{repo_id}" if asked.get("type") == "dataset" else repo_id
        address = {"url": f"{self.server.endpoint}/{repo_id}"}
        if repo_id in self.server.repositories:
            return Answer({"error": "You already created this repo", **address}, 409)
        self.server.create(repo_id, private=asked.get("visibility") == "private")
        return Answer(address)

    def validate_yaml(self) -> Answer:
        """What is wrong with a card's front matter; as plain text for whoever asks for that."""
        _, *front_matter = json.loads(self.content)["content"].split("---\n", 2)
        metadata = yaml.safe_load(front_matter[0]) if front_matter else {}
        if metadata.get("license", "other") in LICENSES:
            return Answer({"errors": [], "warnings": [] if front_matter else [{"message": "empty metadata"}]})
        message = f'"license" must be one of [{", ".join(LICENSES)}]'
        is_text = self.headers["Accept"] == "text/plain"
        return Answer(f"- Error: {message}\n".encode() if is_text else {"errors": [{"message": message}]}, 400)

    def preupload(self, repo_id: str) -> Answer:
        self.require_write_token()
        _, files = self.revision(repo_id)
        answers = []
        for file in json.loads(self.content)["files"]:
            is_binary = b"\0" in base64.b64decode(file["sample"])
            is_lfs = is_binary or file["path"].endswith(LFS_SUFFIXES) or file["size"] >= LFS_LEAST_BYTES
            known = {"oid": files[file["path"]].oid} if file["path"] in files else {}
            mode = "lfs" if is_lfs else "regular"
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **known})
        return Answer({"files": answers})

    def lfs_batch(self, repo_id: str) -> Answer:
        """Where to put each object; one that lies there already needs no action."""
        self.require_write_token()
        objects = []
        for wanted in json.loads(self.content)["objects"]:
            put = {"upload": {"href": f"{self.server.storage}/lfs/{repo_id}/{wanted['oid']}"}}
            put["verify"] = {"href": f"{self.server.endpoint}/lfs/{repo_id}/verify"}
            there = self.server.place(repo_id, wanted["oid"]).is_file()
            objects.append(wanted if there else {**wanted, "actions": put})
        return Answer({"transfer": "basic", "objects": objects})

    def lfs_put(self, repo_id: str, oid: str) -> Answer:
        if hashlib.sha256(self.content).hexdigest() != oid:
            raise Refused(400, "The content does not have this SHA-256.")
        self.server.store(repo_id, self.content, is_lfs=True)
        return Answer()

    def lfs_verify(self, repo_id: str) -> Answer:
        self.require_write_token()
        self.stored(repo_id, **json.loads(self.content))
        return Answer()

    def stored(self, repo_id: str, oid: str, size: int) -> StoredFile:
        path = self.server.place(repo_id, oid)
        if not path.is_file() or path.stat().st_size != size:
            raise Refused(400, f"LFS object {oid} of {size} bytes was not uploaded.")
        return StoredFile(oid, size, is_lfs=True)

    def commit(self, repo_id: str) -> Answer:
        self.require_write_token()
        added, deleted, summary = {}, set(), ""
        for line in self.content.splitlines():
            key, value = (entry := json.loads(line))["key"], entry["value"]
            if key == "header":
                summary = value["summary"]
            elif key == "file":
                added[value["path"]] = self.server.store(repo_id, base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                added[value["path"]] = self.stored(repo_id, value["oid"], value["size"])
            else:
                deleted.add(value["path"])
        commit = self.server.commit(repo_id, added, deleted, summary)
        address = f"{self.server.endpoint}/{repo_id}/commit/{commit}"
        return Answer({"success": True, "commitOid": commit, "commitUrl": address})
