"""The process that holds the builder's key: JSON lines in, JSON lines out, nothing else.

    python -m edgewright_controller.publish.builder_signer --keys STATE/keys/builder

    {"op": "public"}                      → {"keyid": "…", "key": {…}}
    {"op": "prepare"}                     → the same, of the key that is to follow; it signs nothing yet
    {"op": "has", "keyids": ["…"]}        → {} when one of these is here; nothing changes
    {"op": "adopt", "keyids": ["…"]}      → the same, of the key that signs from now on: the one of these that is here
    {"op": "sign", "signed": {targets}}   → {"signature": {"keyid": "…", "sig": "…"}}
    anything it will not do               → {"error": "why"}

It signs only what the role `builder` may say: artifacts in Edgewright's own form, for a bounded time, and never a
version below one that it signed already. So whoever takes over the controller gains no more than that.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, Any, Final

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Targets

from edgewright_contract import durable
from edgewright_contract import targets as contract
from edgewright_controller.publish import keys
from edgewright_controller.publish.errors import PublishError

MAX_LINE_CHARACTERS: Final = 16 << 20
MAX_LIFE: Final = timedelta(days=100)


def answer(request: Any, folder: Path, now: datetime) -> dict[str, Any]:
    """What to say to one request. Raises PublishError when it is refused, OSError."""
    last, path = folder / "last_version", folder / "builder.pem"
    operation = request.get("op") if isinstance(request, dict) else None
    if operation == "adopt":
        return _public(keys.named(path, [str(keyid) for keyid in request.get("keyids", ())], of=last))
    if operation == "has":
        keys.check_at_hand(path, [str(keyid) for keyid in request.get("keyids", ())])
        return {}
    signer = keys.signer(path, of=last)
    if operation == "public":
        return _public(signer)
    if operation == "prepare":
        return _public(keys.prepare(path))
    if operation != "sign":
        raise PublishError(f"unknown operation {operation!r}")
    targets = _checked(request.get("signed"), now)
    signed_before = int(last.read_text()) if last.exists() else 0
    if targets.version < signed_before:
        raise PublishError(
            f"version {targets.version} is below {signed_before}, which was signed already;"
            " if the image repository came from a backup, restore a newer one"
        )
    durable.write(last, str(targets.version).encode(), mode=0o600)
    signature = Metadata(targets).sign(signer)
    return {"signature": signature.to_dict()}


def _public(signer: CryptoSigner) -> dict[str, Any]:
    return {"keyid": signer.public_key.keyid, "key": signer.public_key.to_dict()}


def _checked(document: Any, now: datetime) -> Targets:
    try:
        targets = Targets.from_dict(document)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise PublishError(f"not targets metadata: {error!r}") from error
    if targets.delegations is not None or targets.unrecognized_fields:
        raise PublishError("the builder delegates to nobody and says nothing but targets")
    if targets.expires > now + MAX_LIFE:
        raise PublishError(f"it would be valid until {targets.expires}; at most {MAX_LIFE.days} days are signed")
    for path, target in targets.targets.items():
        try:
            contract.parse(path, target.length, target.hashes, target.custom)
        except contract.TargetError as error:
            raise PublishError(str(error)) from error
    return targets


def serve(source: IO[str], sink: IO[str], folder: Path) -> None:
    """Answer each line of `source` with one line on `sink`, until it ends. Raises OSError."""
    while line := source.readline(MAX_LINE_CHARACTERS):
        try:
            said = answer(json.loads(line), folder, datetime.now(timezone.utc))
        except (PublishError, ValueError, RecursionError) as error:
            said = {"error": str(error)}
        sink.write(json.dumps(said) + "\n")
        sink.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the process; its status is 0 when the input ended."""
    parser = argparse.ArgumentParser(prog="builder_signer", description="Signs artifacts in the builder's name.")
    parser.add_argument("--keys", type=Path, required=True, help="folder of the builder's key")
    serve(sys.stdin, sys.stdout, parser.parse_args(arguments).keys)
    return 0


if __name__ == "__main__":
    sys.exit(main())
