"""Releases and targets to sign, and a real ngclient that reads what was signed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone

from securesystemslib.signer import CryptoSigner, Key, Signature
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata, TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater

from edgewright_contract.release import Probe, Release
from edgewright_contract.targets import ImageTarget
from edgewright_controller.publish import PublishError

# ngclient judges expiry by the machine's clock.
NOW = datetime.now(timezone.utc)


def target(mark: str = "a", hw_class: str = "gguf-cpu", epoch: int = 0) -> ImageTarget:
    """An artifact's target; `mark` is a hex digit that makes its digest."""
    return ImageTarget("model", "smollm2", hw_class, "gguf", mark * 64, 321, "b" * 64, 77, epoch)


def release(mark: str = "a", prompt: str = "Say hello.") -> Release:
    """The release of `target(mark)`."""
    return Release("smollm2", "jetson", "gguf", mark * 64, "cpu", 1 << 30, {"context": 1024}, (Probe("hi", prompt),))


class KeyInHand:
    """A builder whose key is in this process: the seam without the process."""

    def __init__(self) -> None:
        self.signer = CryptoSigner.generate_ed25519()
        self.asked = 0
        self.refuses = False

    def public(self) -> Key:
        return self.signer.public_key

    def sign(self, targets: Targets) -> Signature:
        self.asked += 1
        if self.refuses:
            raise PublishError("the builder's signer is out of order")
        return Metadata(targets).sign(self.signer)

    def prepare(self) -> Key:
        raise AssertionError("no other key is asked for here")

    def check_has(self, keyids: Sequence[str]) -> None:
        pass

    def adopt(self, keyids: Sequence[str]) -> None:
        raise AssertionError("no other key is named here")


class Files(FetcherInterface):
    """Files by name, as a check-in's answer has them."""

    def __init__(self, files: Mapping[str, bytes]):
        self.files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rpartition("/")[2]
        if name not in self.files:
            raise DownloadHTTPError(f"no {name}", 404)
        return iter([self.files[name]])


def look_up(root: bytes, files: list[tuple[str, bytes]], path: str) -> TargetFile | None:
    """What a client that starts with `root` learns of `path` from these files."""
    with tempfile.TemporaryDirectory() as folder:
        client = Updater(folder, "https://repository.invalid", fetcher=Files(dict(files)), bootstrap=root)
        client.refresh()
        return client.get_targetinfo(path)
