"""A repository of the Hugging Face hub: which files it has at a revision, or some of these files.

Request: {"repository": "org/name", "revision": "main", "secrets": {"token": "…"}, "credentials": "name",
          "wanted": ["config.json", "*.safetensors"], "index": "model.safetensors.index.json", "most": bytes}
      or {"repository", "revision": commit, "secrets", "credentials", "folder", "files": [{"path", "size", "git"}]}
"""

from __future__ import annotations

import io
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import downloads
from stage import Say, StageError, run

TIMEOUT_S = 30.0


def fetch(request: dict[str, Any], say: Say) -> dict[str, Any]:
    try:
        import huggingface_hub.errors
    except ImportError as error:
        raise StageError(f"{error.name} is missing; pip install 'edgewright[sources]'") from error
    with _told(request, huggingface_hub.errors):
        return _files(request, say) if "files" in request else _listing(request)


def _listing(request: dict[str, Any]) -> dict[str, Any]:
    from huggingface_hub import HfApi

    info = HfApi(token=_token(request)).model_info(
        request["repository"], revision=request["revision"], files_metadata=True, timeout=TIMEOUT_S
    )
    listed = {file.rfilename: file for file in info.siblings or []}
    names, other = downloads.sorted_out(listed, request["wanted"])
    files = []
    for name in names:
        file = listed[name]
        lfs = file.lfs
        files.append(
            {
                "path": name,
                "size": (lfs.size if lfs else file.size) or 0,
                "sha256": lfs.sha256 if lfs else "",
                "git": "" if lfs else file.blob_id or "",
            }
        )
    commit = info.sha
    if not isinstance(commit, str) or len(commit) != 40:
        raise StageError("the hub names no commit for it, so it cannot be told which files these are")
    return {
        "commit": commit,
        "files": files,
        "other": other,
        "indexed": _indexed(request | {"revision": commit}, files),
    }


def _indexed(request: dict[str, Any], files: list[dict[str, Any]]) -> list[str]:
    """The weights' files that the index names, if there is one."""
    found = [file["size"] for file in files if file["path"] == request["index"]]
    if not found:
        return []
    if found[0] > request["most"]:
        raise StageError(f"{request['index']}: {found[0]:,} bytes; at most {request['most']:,}")
    data = io.BytesIO()
    _get(request, request["index"], data, 0, found[0])
    try:
        return sorted({str(name) for name in json.loads(data.getvalue())["weight_map"].values()})
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise StageError(f"{request['index']}: no index of weights: {error!r}") from error


def _files(request: dict[str, Any], say: Say) -> dict[str, Any]:
    def one(file: dict[str, Any], growing: downloads.Growing) -> None:
        _get(request, file["path"], growing, growing.at, file["size"])

    downloads.Download(Path(request["folder"]), request["files"], say).run(one)
    return {}


def _get(request: dict[str, Any], name: str, out: Any, at: int, size: int) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    token = _token(request)
    url = hf_hub_url(request["repository"], name, revision=request["revision"])
    # The question before the answer: it is repeated while the hub has trouble, which the download itself is not.
    get_hf_file_metadata(url, token=token, timeout=TIMEOUT_S, retry_on_errors=True)
    # A redirect to another host is followed without the token.
    http_get(url, out, resume_size=at, headers=build_hf_headers(token=token), expected_size=size)


def _token(request: dict[str, Any]) -> str | bool:
    return request["secrets"].get("token") or False


@contextmanager
def _told(request: dict[str, Any], errors: Any) -> Any:
    """Says what the hub's refusals mean, without its addresses, which may carry a signature."""
    import httpx2

    what, name = f"hf://{request['repository']}", request["credentials"]
    access = f"the credentials {name!r} do not open it" if name else "name `credentials` that may read it"
    try:
        yield
    except errors.GatedRepoError as error:
        raise StageError(f"{what} is gated: ask for access on its page; {access}") from error
    except errors.RevisionNotFoundError as error:
        raise StageError(
            f"{what} has no revision {request['revision']!r}, or has it no more; name a branch, a tag or a commit"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise StageError(f"the hub has no {what}, or it is private: {access}") from error
    except errors.EntryNotFoundError as error:
        raise StageError(f"{what}: a file that is listed is not there; apply again") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise StageError(f"the hub refuses {what} ({status}): {access}") from error
        raise StageError(f"the hub answers {status} for {what}; apply again later") from error
    except httpx2.HTTPError as error:
        why = str(error) or type(error).__name__
        raise StageError(f"the hub cannot be reached for {what} ({why}); what came so far is kept") from error
    except OSError as error:
        if error.errno:
            raise StageError(f"{error.filename or request.get('folder', '')}: {error.strerror}") from error
        raise StageError(f"{what}: {str(error).splitlines()[0]}") from error


if __name__ == "__main__":
    sys.exit(run(fetch))
