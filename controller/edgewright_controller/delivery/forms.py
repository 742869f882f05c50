"""In what form a block is sent: as it is, compressed, or against what the device holds, whichever is smallest.

Nothing is encoded for a request: what no pack has goes as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edgewright_contract import block_coding, digest
from edgewright_contract.v1 import agent_pb2
from edgewright_controller.delivery.packs import Kept, Pack, PackDamaged, PackKey, Packs
from edgewright_controller.delivery.part import Part

MAX_BASES: Final = 8
PART_BYTES: Final = 256 << 10


class BadAsk(ValueError):
    """The request is not one that a device of ours would make."""


@dataclass(frozen=True)
class Ask:
    """What a device says of the blocks it wants: whose they are, which encodings it knows, which bundles it holds."""

    wanted: str
    block_index: str
    accepted: frozenset[int]
    bases: tuple[str, ...]

    @property
    def keys(self) -> Iterator[PackKey]:
        """The packs that would do, in the order of `bases`, last what is against nothing."""
        if not self.accepted <= {agent_pb2.ENCODING_RAW}:
            for base in (*self.bases, ""):
                yield PackKey(self.wanted, self.block_index, base)


@dataclass(frozen=True)
class Form:
    """A block as it is sent. `base`: position in the request's bases, and what is meant of that bundle."""

    kept: Kept
    base: int = 0


def read(request: agent_pb2.FetchBlocksRequest) -> Ask:
    """What a request asks for. Raises BadAsk."""
    accepted = frozenset(request.accepted) or {agent_pb2.ENCODING_RAW}
    if agent_pb2.ENCODING_RAW not in accepted:
        raise BadAsk("any block may have to be sent as it is; list ENCODING_RAW among the accepted")
    if not (digest.is_sha256(request.bundle) and digest.is_sha256(request.block_index)):
        raise BadAsk("bundle and block_index must be sha256 digests")
    if len(request.bases) > MAX_BASES:
        raise BadAsk(f"{len(request.bases)} bases; a request has at most {MAX_BASES}")
    if not all(digest.is_sha256(base) for base in request.bases):
        raise BadAsk("bases must be sha256 digests of bundles")
    return Ask(request.bundle, request.block_index, frozenset(accepted), tuple(request.bases))


def raw(number: int, data: bytes) -> Part:
    """A piece of a block as it is, at most 256 KiB."""
    return Part(agent_pb2.BlockPart(index=number, encoding=agent_pb2.ENCODING_RAW), data)


def parts(number: int, form: Form) -> Iterator[Part]:
    """A block in `form`, in pieces of at most 256 KiB."""
    kept = form.kept
    for start in range(0, len(kept.data), PART_BYTES):
        head = agent_pb2.BlockPart(index=number)
        head.encoding = kept.encoding  # type: ignore[assignment]  # a number of the wire's, as packs keep it
        if start == 0:
            head.encoded_size = len(kept.data)
            if kept.base is not None:
                said = agent_pb2.BlockBase(
                    bundle=form.base, file=kept.base.file, offset=kept.base.offset, size=kept.base.size
                )
                head.base.CopyFrom(said)
        yield Part(head, memoryview(kept.data)[start : start + PART_BYTES])


class Forms:
    """Finds blocks in packs. Safe for many threads."""

    def __init__(self, packs: Packs) -> None:
        self._packs = packs

    def find(self, ask: Ask, number: int) -> Form | None:
        """The smallest form of a block that the device understands; None: as it is. Reads no more than that."""
        found: list[tuple[int, int, Pack]] = []
        for position, key in enumerate(ask.keys):
            pack = self._packs.get(key)
            entry = pack.find(number) if pack is not None else None
            if pack is not None and entry is not None and entry[0] in ask.accepted:
                found.append((entry[1], position, pack))
        for _, position, pack in sorted(found, key=lambda one: one[:2]):
            try:
                return Form(pack.read(number), position)
            except (PackDamaged, OSError) as error:
                self._packs.damaged(pack.key, str(error))
        return None

    def any(self, ask: Ask) -> bool:
        """Whether there is a pack that may have something for the device."""
        return any(self._packs.get(key) is not None for key in ask.keys)

    def lacks(self, ask: Ask) -> bool:
        """Whether the device could use a pack against what it holds, and there is none."""
        usable = bool(ask.bases) and not ask.accepted.isdisjoint(block_coding.BASED)
        return usable and not any(key.base and self._packs.get(key) is not None for key in ask.keys)
