"""Far places on loopback: a hub with its store beside it, a bucket as S3 speaks, and a web server. Real HTTP."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

Files = dict[str, bytes]


@dataclass
class Request:
    """What came in."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Place:
    """A server's files and its misbehaviour. `cuts`: file → after how many bytes the line is cut, once each time it
    stands there; `stalls`: after how many nothing more comes until the server ends. `trouble`: how many requests are
    answered by 503 first. `token`: what a request must carry. `elsewhere`: host:port to which all are sent on."""

    files: Files = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    stalls: dict[str, list[int]] = field(default_factory=dict)
    trouble: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    token: str = ""
    elsewhere: str = ""
    ranges: bool = True
    seen: list[Request] = field(default_factory=list)
    port: int = 0

    @property
    def host(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def gets(self, name: str) -> list[Request]:
        """The downloads of this file."""
        return [
            request for request in self.seen if request.method == "GET" and request.path.split("?")[0].endswith(name)
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    place: Place

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        place = self.place
        place.seen.append(Request(self.command, self.path, dict(self.headers.items())))
        if place.trouble:
            place.trouble -= 1
            self.say(503)
        elif place.token and place.token not in self.headers.get("authorization", ""):
            self.refuse()
        else:
            self.answer(unquote(urlsplit(self.path).path).removeprefix("/"))

    def refuse(self) -> None:
        self.say(401)

    def answer(self, path: str) -> None:
        if self.place.elsewhere:
            self.say(302, location=f"http://{self.place.elsewhere}{self.path}")
        elif path in self.place.files:
            self.file(path.rpartition("/")[2], self.place.files[path])
        else:
            self.say(404)

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def file(self, name: str, data: bytes, **headers: str) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", "")) if self.place.ranges else None
        start, end = (int(wanted[1]), int(wanted[2] or len(data) - 1) + 1) if wanted else (0, len(data))
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        if self.headers.get("if-match", etag).strip('"') != etag.strip('"'):
            self.say(412)
            return
        self.send_response(206 if wanted else 200)
        for key, value in ({"etag": etag, "last-modified": "Sat, 28 Nov 2026 10:00:00 GMT"} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        if wanted:
            self.send_header("content-range", f"bytes {start}-{min(end, len(data)) - 1}/{len(data)}")
        body = data[start:end]
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if cuts := self.place.cuts.get(name):
            self.wfile.write(body[: cuts.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        if stalls := self.place.stalls.get(name):
            self.wfile.write(body[: stalls.pop(0)])
            self.wfile.flush()
            self.place.ended.wait()
            return
        self.wfile.write(body)


@contextmanager
def _served(place: Place, handler: type[_Handler]) -> Iterator[Place]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (handler,), {"place": place}))
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    place.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield place
    finally:
        place.ended.set()
        server.shutdown()
        server.server_close()


@contextmanager
def web(files: Files) -> Iterator[Place]:
    """A web server with these files, by path."""
    with _served(Place(files), _Handler) as place:
        yield place


class _Bucket(_Handler):
    def refuse(self) -> None:
        self.say(403, b"<Error><Code>AccessDenied</Code></Error>")

    def answer(self, path: str) -> None:
        query = parse_qs(urlsplit(self.path).query)
        bucket, _, key = path.partition("/")
        if key or "list-type" not in query:
            super().answer(path)
            return
        prefix = query.get("prefix", [""])[0]
        found = {name.partition("/")[2]: data for name, data in self.place.files.items() if name.startswith(bucket)}
        entries = "".join(
            f"<Contents><Key>{escape(name)}</Key><LastModified>2026-11-28T10:00:00.000Z</LastModified>"
            f"<ETag>&quot;{hashlib.md5(data).hexdigest()}&quot;</ETag><Size>{len(data)}</Size></Contents>"
            for name, data in sorted(found.items())
            if name.startswith(prefix)
        )
        body = f"<ListBucketResult><Name>{bucket}</Name><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        self.say(200, body.encode(), content_type="application/xml")


@contextmanager
def bucket(files: Files) -> Iterator[Place]:
    """A store of objects, by bucket/key, asked as S3 is: path style."""
    with _served(Place(files), _Bucket) as place:
        yield place


@dataclass
class Hub(Place):
    """Repositories: files by (repository, commit). `refs`: (repository, name) → commit. `gated` need another token.
    Weights lie in `store`, another server, as signed addresses lead to."""

    repositories: dict[tuple[str, str], Files] = field(default_factory=dict)
    refs: dict[tuple[str, str], str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    store: Place = field(default_factory=Place)

    def push(self, repository: str, files: Files, *names: str) -> str:
        """A commit of these files, at which the names stand from now on."""
        state = hashlib.sha1(repr(sorted(files.items())).encode())
        commit = state.hexdigest()
        self.repositories[repository, commit] = dict(files)
        for name in names or ("main",):
            self.refs[repository, name] = commit
        return commit


SIGNATURE = "X-Signature=do-not-tell"


class _Hub(_Handler):
    place: Hub

    def answer(self, path: str) -> None:
        if found := re.fullmatch(r"api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self._info(found[1], found[2])
        elif found := re.fullmatch(r"([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], found[2], found[3])
        else:
            self.say(404)

    def _commit(self, repository: str, revision: str) -> str:
        """Empty when an answer was given instead."""
        known = {name for name, _ in self.place.repositories}
        allowed = "the-token" in self.headers.get("authorization", "")
        if repository not in known or (repository in self.place.private and not allowed):
            self.say(401 if repository in self.place.private else 404, x_error_code="RepoNotFound")
            return ""
        if repository in self.place.gated and not allowed:
            self.say(403, x_error_code="GatedRepo", x_error_message="ask for access")
            return ""
        commit = self.place.refs.get((repository, revision), revision)
        if (repository, commit) not in self.place.repositories:
            self.say(404, x_error_code="RevisionNotFound")
            return ""
        return commit

    def _info(self, repository: str, revision: str) -> None:
        if not (commit := self._commit(repository, revision)):
            return
        siblings = []
        for name, data in self.place.repositories[repository, commit].items():
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry = {"rfilename": name, "size": len(data), "blobId": blob}
            if name.endswith((".safetensors", ".bin")):
                lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
                entry |= {"lfs": lfs, "blobId": "0" * 40}
            siblings.append(entry)
        body = {"id": repository, "modelId": repository, "sha": commit, "siblings": siblings, "private": False}
        self.say(200, json.dumps(body).encode(), content_type="application/json")

    def _resolve(self, repository: str, revision: str, name: str) -> None:
        if not (commit := self._commit(repository, revision)):
            return
        data = self.place.repositories[repository, commit].get(name)
        if data is None:
            self.say(404, x_error_code="EntryNotFound", x_repo_commit=commit)
        elif name.endswith(".safetensors"):
            sha256 = hashlib.sha256(data).hexdigest()
            self.place.store.files[f"blobs/{name}"] = data
            self.say(
                302,
                location=f"http://localhost:{self.place.store.port}/blobs/{name}?{SIGNATURE}",
                x_repo_commit=commit,
                x_linked_etag=f'"{sha256}"',
                x_linked_size=str(len(data)),
                etag='"pointer"',
            )
        else:
            self.file(name, data, x_repo_commit=commit)


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub, and the store that keeps its large files."""
    with _served(Place(), _Handler) as store, _served(Hub(store=store), _Hub) as place:
        assert isinstance(place, Hub)
        yield place
