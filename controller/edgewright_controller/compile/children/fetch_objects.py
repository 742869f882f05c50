"""Files below a prefix of a bucket, a container or a web server: which there are, or some of them.

Request: {"scheme": "s3", "place": "bucket", "prefix": "models/x", "secrets": {…}, "options": {"region": "…"},
          "credentials": "name", "plain_http": false,
          "wanted": ["config.json", "*.safetensors"], "index": "model.safetensors.index.json", "most": bytes}
      or the same with "folder" and "files": [{"path", "size", "etag"}] instead of "wanted"
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import downloads
from stage import Say, StageError, run

# One request brings this much, so that a slow line is no reason to end it, and little comes twice after a cut.
PIECE_BYTES = 16 << 20
MAX_LISTED = 10_000
CLIENT = {"timeout": "10 minutes", "connect_timeout": "20 seconds", "read_timeout": "60 seconds"}
RETRIES = {
    "max_retries": 6,
    "retry_timeout": timedelta(minutes=3),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=15), "base": 2},
}


def fetch(request: dict[str, Any], say: Say) -> dict[str, Any]:
    try:
        import obstore
    except ImportError as error:
        raise StageError(f"{error.name} is missing; pip install 'edgewright[sources]'") from error
    with _told(request, obstore):
        store = _store(request, obstore.store)
        return _files(store, request, say, obstore) if "files" in request else _listing(store, request, obstore)


def _store(request: dict[str, Any], stores: Any) -> Any:
    scheme, place, prefix = request["scheme"], request["place"], request["prefix"] or None
    secrets, options = request["secrets"], dict(request["options"])
    client: dict[str, Any] = dict(CLIENT)
    if request["plain_http"] or options.get("endpoint", "").startswith("http://"):
        client["allow_http"] = True
    # Whatever the machine itself could prove elsewhere stays here: without credentials, requests carry none.
    config = {**options, **secrets} | ({} if secrets else {"skip_signature": True})
    common = {"client_options": client, "retry_config": RETRIES}
    if scheme == "s3":
        return stores.S3Store(place, prefix=prefix, **({"region": "us-east-1"} | config), **common)
    if scheme == "gs":
        if "endpoint" in config:
            config["base_url"] = config.pop("endpoint")
        return stores.GCSStore(place, prefix=prefix, **config, **common)
    if scheme == "az":
        names = {"account": "account_name", "access_key": "account_key", "sas_token": "sas_key"}
        config = {names.get(key, key): value for key, value in config.items()}
        return stores.AzureStore(place, prefix=prefix, **config, **common)
    if "token" in secrets:
        client["default_headers"] = {"authorization": f"Bearer {secrets['token']}"}
    protocol = "http" if request["plain_http"] else "https"
    return stores.HTTPStore(f"{protocol}://{place}/{request['prefix']}", **common)


def _listing(store: Any, request: dict[str, Any], obstore: Any) -> dict[str, Any]:
    if request["scheme"] == "https":
        return _asked_one_by_one(store, request, obstore)
    listed: dict[str, Any] = {}
    for page in obstore.list(store):
        listed |= {entry["path"]: entry for entry in page}
        if len(listed) > MAX_LISTED:
            raise StageError(f"more than {MAX_LISTED:,} objects below its prefix; name the model's own")
    if not listed:
        raise StageError("no object below this prefix")
    names, other = downloads.sorted_out(sorted(listed), request["wanted"])
    files = [_file(name, listed[name]) for name in names]
    return {"files": files, "other": other, "indexed": _indexed(store, request, files, obstore)}


def _asked_one_by_one(store: Any, request: dict[str, Any], obstore: Any) -> dict[str, Any]:
    """A web server lists nothing: the known names are asked for, then the weights that the index names."""
    exact = [name for name in request["wanted"] if not name.startswith("*")]
    files = [file for name in exact if (file := _head(store, name, obstore))]
    indexed = _indexed(store, request, files, obstore)
    if len(indexed) > MAX_LISTED:
        raise StageError(f"{request['index']} names more than {MAX_LISTED:,} files")
    weights = indexed or (["model.safetensors"] if len(exact) < len(request["wanted"]) else [])
    # A name from the index is only asked for when it is no path.
    files += [file for name in weights if "/" not in name and (file := _head(store, name, obstore))]
    return {"files": files, "other": [], "indexed": indexed}


def _head(store: Any, name: str, obstore: Any) -> dict[str, Any] | None:
    try:
        return _file(name, obstore.head(store, name))
    except (FileNotFoundError, obstore.exceptions.NotFoundError):
        return None


def _file(name: str, entry: Any) -> dict[str, Any]:
    # Without a mark of its own, when it was changed has to do.
    return {"path": name, "size": entry["size"], "etag": entry["e_tag"] or f"changed {entry['last_modified']}"}


def _indexed(store: Any, request: dict[str, Any], files: list[dict[str, Any]], obstore: Any) -> list[str]:
    found = [file["size"] for file in files if file["path"] == request["index"]]
    if not found:
        return []
    if found[0] > request["most"]:
        raise StageError(f"{request['index']}: {found[0]:,} bytes; at most {request['most']:,}")
    try:
        document = json.loads(bytes(obstore.get(store, request["index"]).bytes()))
        return sorted({str(name) for name in document["weight_map"].values()})
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise StageError(f"{request['index']}: no index of weights: {error!r}") from error


def _files(store: Any, request: dict[str, Any], say: Say, obstore: Any) -> dict[str, Any]:
    def one(file: dict[str, Any], growing: downloads.Growing) -> None:
        same = {} if file["etag"].startswith("changed ") else {"if_match": file["etag"]}
        while growing.at < file["size"]:
            until = min(growing.at + PIECE_BYTES, file["size"])
            whole = growing.at == 0 and until == file["size"]  # so that a server without ranges serves small files
            part = same | ({} if whole else {"range": (growing.at, until)})
            for piece in obstore.get(store, file["path"], options=part).stream(min_chunk_size=1 << 20):
                growing.write(bytes(piece))

    downloads.Download(Path(request["folder"]), request["files"], say).run(one)
    return {}


@contextmanager
def _told(request: dict[str, Any], obstore: Any) -> Any:
    """Says what a store's refusals mean."""
    errors = obstore.exceptions
    what = f"{request['scheme']}://{request['place']}/{request['prefix']}"
    name = request["credentials"]
    access = f"the credentials {name!r} do not open it" if name else "name `credentials` that may read it"
    try:
        yield
    except (errors.UnauthenticatedError, errors.PermissionDeniedError, PermissionError) as error:
        raise StageError(f"{what} is refused: {access}") from error
    except errors.PreconditionError as error:
        raise StageError(f"{what} was changed while it was fetched; apply again") from error
    except (errors.NotFoundError, FileNotFoundError) as error:
        raise StageError(f"{what}: a file of it is not there") from error
    except errors.NotSupportedError as error:
        raise StageError(f"{what}: the server gives no parts of files, which large ones need") from error
    except errors.BaseError as error:
        # A refusal to list comes as any other trouble.
        if re.search(r"status code: 40[13]\b", str(error)):
            raise StageError(f"{what} is refused: {access}") from error
        raise StageError(f"{what} cannot be fetched: {_plain(error)}; what came so far is kept") from error
    except ValueError as error:
        raise StageError(f"{what} cannot be asked for: {_plain(error)}") from error
    except OSError as error:
        raise StageError(f"{error.filename or request.get('folder', '')}: {error.strerror}") from error


def _plain(error: Exception) -> str:
    """Its first line: the rest is the library's own structure."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


if __name__ == "__main__":
    sys.exit(run(fetch))
