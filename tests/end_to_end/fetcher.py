"""The agent's own download without an agent around it: its folders, its line, and what comes over it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from edgewright_agent.cancellation import Cancellation
from edgewright_agent.device_key import FileKey
from edgewright_agent.download import pull
from edgewright_agent.fetch_plan import prepare
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.link import Credentials, Link
from edgewright_agent.slots import Slots
from edgewright_contract.targets import ImageTarget
from edgewright_contract.v1 import agent_pb2
from edgewright_controller.compile.store import Stored
from tests.controller.service_rig import Device


class Counting:
    """The agent's line, and how many bytes of blocks and of documents came over it."""

    def __init__(self, link: Link) -> None:
        self._link, self.name = link, link.name
        self.blocks = self.documents = 0

    def fetch_object(self, sha256: str, length: int, cancellation: Cancellation) -> bytes:
        """As Link has it."""
        data = self._link.fetch_object(sha256, length, cancellation)
        self.documents += len(data)
        return data

    def fetch_blocks(self, *asked: Any, **also: Any) -> Generator[agent_pb2.BlockPart, None, None]:
        """As Link has it."""
        for part in self._link.fetch_blocks(*asked, **also):
            self.blocks += len(part.data)
            yield part


class Fetcher:
    """A device that downloads what it is told to."""

    def __init__(self, state: Path, device: Device) -> None:
        state.mkdir()
        welcome = device.welcome
        named = {"key": device.key_pem, "chain": welcome.certificate_chain_pem, "ca": welcome.ca_pem}
        for name, data in named.items():
            (state / name).write_bytes(data)
        credentials = Credentials(FileKey(state / "key", device.key_pem), state / "chain", state / "ca")
        self._link = Link(welcome.controller_address, credentials)
        self.slots, self._journal = Slots(state), DownloadJournal(state / "agent.sqlite")

    def pull(self, runtime: str, wanted: Stored, *reuse: str) -> Counting:
        """Get an artifact, whole and verified, with those of `reuse` at hand; what came."""
        target = ImageTarget(
            kind="model",
            name="tiny",
            hw_class=f"{runtime}-cpu",
            runtime=runtime,
            bundle=wanted.bundle,
            bundle_length=wanted.bundle_length,
            block_index=wanted.block_index,
            block_index_length=wanted.block_index_length,
        )
        source, cancellation = Counting(self._link), Cancellation()
        plan = prepare(target, source, self.slots, reuse=reuse, reserve=0, cancellation=cancellation)
        pull(plan, source, self.slots, self._journal, progress=lambda *_: None, cancellation=cancellation)
        self.slots.verify(wanted.bundle)
        return source

    def close(self) -> None:
        """Close the line."""
        self._link.close()
        self._journal.close()
