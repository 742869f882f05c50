"""The builder's side of publishing, as the controller sees it: a seam, and the process behind it.

The controller never reads the builder's key. It starts `builder_signer`, hands over what is to be signed, and
gets a signature back, so the key can belong to another user of the system, or to a hardware module.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from securesystemslib.signer import Key, Signature
from tuf.api.metadata import Targets

from edgewright_controller.publish.errors import PublishError

DEADLINE_S: Final = 60
# What a child needs to find Python and its packages. Nothing else of the controller's environment reaches it.
_ENVIRONMENT: Final = ("PATH", "LANG", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")


class Builder(Protocol):
    """Whoever holds the builder's key."""

    def public(self) -> Key:
        """The public key. Raises PublishError."""

    def sign(self, targets: Targets) -> Signature:
        """A signature over `targets`. Raises PublishError when it is refused."""

    def prepare(self) -> Key:
        """A new public key that is to follow, in place of one that was prepared before. Raises PublishError."""

    def check_has(self, keyids: Sequence[str]) -> None:
        """Raise PublishError unless it could sign with one of these keys. Changes nothing."""

    def adopt(self, keyids: Sequence[str]) -> None:
        """Sign from now on with the key that is one of these. Raises PublishError when none is at hand."""


class BuilderProcess:
    """The builder as a process of its own, one for each request."""

    def __init__(self, keys: Path, command: Sequence[str] = ()):
        """`command` stands before the default one, for example to become another user first."""
        module = "edgewright_controller.publish.builder_signer"
        # Isolated: whoever can write into the folder that the controller was started in must not get at the key.
        self._command = [*command, sys.executable, "-I", "-m", module, "--keys", os.path.abspath(keys)]

    def public(self) -> Key:
        """The public key. Raises PublishError."""
        return self._key({"op": "public"})

    def prepare(self) -> Key:
        """A new public key that is to follow, in place of one that was prepared before. Raises PublishError."""
        return self._key({"op": "prepare"})

    def check_has(self, keyids: Sequence[str]) -> None:
        """Raise PublishError unless it could sign with one of these keys. Changes nothing."""
        self._ask({"op": "has", "keyids": list(keyids)})

    def adopt(self, keyids: Sequence[str]) -> None:
        """Sign from now on with the key that is one of these. Raises PublishError when none is at hand."""
        self._key({"op": "adopt", "keyids": list(keyids)})

    def sign(self, targets: Targets) -> Signature:
        """A signature over `targets`. Raises PublishError when it is refused."""
        answer = self._ask({"op": "sign", "signed": targets.to_dict()})
        try:
            return Signature.from_dict(answer["signature"])
        except (KeyError, ValueError, TypeError) as error:
            raise PublishError(f"the builder's signer answered rubbish: {error!r}") from error

    def _key(self, request: dict[str, Any]) -> Key:
        answer = self._ask(request)
        try:
            return Key.from_dict(answer["keyid"], answer["key"])
        except (KeyError, ValueError, TypeError) as error:
            raise PublishError(f"the builder's signer answered rubbish: {error!r}") from error

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        line = json.dumps(request) + "\n"
        try:
            ended = subprocess.run(
                self._command,
                input=line,
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                timeout=DEADLINE_S,
                env=environment,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PublishError(f"the builder's signer did not answer: {error}") from error
        try:
            answer = json.loads(ended.stdout)
            refusal = answer.get("error")
        except (ValueError, AttributeError) as error:
            last = ended.stderr.strip().rpartition("\n")[2] or "no output"
            raise PublishError(f"the builder's signer ended with status {ended.returncode}: {last}") from error
        if refusal is not None:
            raise PublishError(f"the builder's signer refused: {refusal}")
        return dict(answer)
