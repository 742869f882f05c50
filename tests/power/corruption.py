"""Bytes that are not as they were: flipped, cut off, made longer; in all that a device reads before it loads a model.

Each subject makes one thing of that, damages it, and lets those functions have it with which a device reads it. What
comes of it must be what was there before, or a refusal that the agent knows; anything else is raised as AssertionError.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import struct
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from unittest import mock

from edgewright_agent.backoff import Backoff
from edgewright_agent.cancellation import Cancellation
from edgewright_agent.content import LocalFirst
from edgewright_agent.download import pull
from edgewright_agent.fetch_plan import ArtifactCorrupt, FetchPlan, prepare
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.link import BadAnswer, BlockSource, LinkDown
from edgewright_agent.slots import ArtifactDamaged, Slots
from edgewright_contract import block_index, bundle, digest
from edgewright_contract.block_index import BlockIndexError
from edgewright_contract.bundle import BundleError
from edgewright_contract.targets import ImageTarget
from edgewright_contract.v1 import agent_pb2

_HEAD: Final = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)
_BLOCK: Final = 2048
_ENCODINGS: Final = (
    agent_pb2.ENCODING_UNSPECIFIED,
    agent_pb2.ENCODING_RAW,
    agent_pb2.ENCODING_ZSTD,
    agent_pb2.ENCODING_DICT_ZSTD,
    agent_pb2.ENCODING_SUB_ZSTD,
)
_REFUSED: Final = (ArtifactCorrupt, BadAnswer, LinkDown)

Try = Callable[[random.Random], None]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The bytes, with one to eight bits flipped, cut off somewhere, or longer. Never the same."""
    kind = chance.random()
    if kind < 0.6 and data:
        flipped = bytearray(data)
        for _ in range(chance.randint(1, 8)):
            flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        if flipped != data:
            return bytes(flipped)
    if kind < 0.8 and data:
        return data[: chance.randrange(len(data))]
    return data + chance.randbytes(chance.randint(1, 600))


class Artifact:
    """A small artifact in small blocks; what another `mark` gives has a file and two blocks in common with it."""

    def __init__(self, folder: Path, mark: int) -> None:
        self.folder = folder
        (folder / "sub").mkdir(parents=True)
        same, own = random.Random(0).randbytes(2 * _BLOCK), random.Random(mark).randbytes(2 * _BLOCK + 77)
        (folder / "model.gguf").write_bytes(_HEAD + same[len(_HEAD) :] + own)
        (folder / "sub" / "config.json").write_bytes(b'{"vocab_size": %d}' % (49152 + mark))
        (folder / "tokenizer.json").write_bytes(b'{"version": "1.0", "model": {"type": "BPE"}}')
        listed = bundle.from_folder(folder)
        self.document = listed.encode()
        self.indexed = block_index.cut(listed, folder, lambda file: _sizes(file.size))
        self.blocks = block_index.parse(self.indexed, listed).blocks
        names = (listed.digest, len(self.document), digest.of_bytes(self.indexed), len(self.indexed))
        self.target = ImageTarget("model", "m", "gguf-cpu", "gguf", *names)

    def block(self, number: int) -> bytes:
        block = self.blocks[number]
        with (self.folder / block.path).open("rb") as file:
            file.seek(block.offset)
            return file.read(block.size)


def _sizes(size: int) -> Iterator[int]:
    for start in range(0, size, _BLOCK):
        yield min(_BLOCK, size - start)


class Honest:
    """A source that has one artifact; `spoil` gets each part of its first call before it leaves."""

    name = "controller"

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self.spoil: Callable[[agent_pb2.BlockPart], agent_pb2.BlockPart] | None = None

    def fetch_object(self, sha256: str, length: int, cancellation: Cancellation) -> bytes:
        return {self._artifact.target.bundle: self._artifact.document}.get(sha256, self._artifact.indexed)

    def fetch_blocks(
        self,
        bundle: str,
        block_index: str,
        ranges: Sequence[tuple[int, int]],
        max_bytes: int,
        cancellation: Cancellation,
        *,
        accepted: Sequence[agent_pb2.Encoding] = (agent_pb2.ENCODING_RAW,),
        bases: Sequence[str] = (),
    ) -> Generator[agent_pb2.BlockPart, None, None]:
        spoil, self.spoil = self.spoil, None
        for first, count in ranges:
            for number in range(first, first + count):
                data = self._artifact.block(number)
                for start in range(0, len(data), 700):
                    part = agent_pb2.BlockPart(
                        index=number, encoding=agent_pb2.ENCODING_RAW, data=data[start : start + 700]
                    )
                    yield part if spoil is None else spoil(part)


class _Gone(Honest):
    """A line that is down."""

    def fetch_object(self, sha256: str, length: int, cancellation: Cancellation) -> bytes:
        raise LinkDown("the line is down")


class Downloads:
    """A device that has one artifact and downloads another, again and again."""

    def __init__(self, folder: Path) -> None:
        self.old, self.new = Artifact(folder / "old", 1), Artifact(folder / "new", 2)
        self.state = folder / "state"
        self.state.mkdir()
        self.slots, self.journal = Slots(self.state), DownloadJournal(self.state / "agent.sqlite")
        self.download(self.old, Honest(self.old))
        self._kept = {path: path.read_bytes() for path in (self.state / "artifacts").rglob("*") if path.is_file()}
        self._stick = folder / "stick"
        (self._stick / "objects").mkdir(parents=True)

    def subjects(self) -> Mapping[str, Try]:
        return {
            "parts of blocks": self._parts,
            "documents from a folder": self._documents,
            "documents of a download": self._partial_documents,
            "files of a download": self._partial_files,
            "journal of a download": self._journal,
            "what blocks are copied from": self._held,
            "artifacts at rest": self._at_rest,
            "documents, parsed": self._parsed,
        }

    def plan(self, artifact: Artifact, source: BlockSource) -> FetchPlan:
        return prepare(
            artifact.target, source, self.slots, reuse=[self.old.target.bundle], reserve=0, cancellation=Cancellation()
        )

    def download(self, artifact: Artifact, source: BlockSource, between: Callable[[], None] = lambda: None) -> None:
        """Raises what `prepare` and `pull` raise."""
        with mock.patch.object(Backoff, "pause", return_value=0.0):
            plan = self.plan(artifact, source)
            between()
            pull(
                plan,
                source,
                self.slots,
                self.journal,
                progress=lambda done, total: None,
                cancellation=Cancellation(),
            )

    def _comes_right(self, source: BlockSource, between: Callable[[], None] = lambda: None) -> None:
        """Right, or refused; and right at the next try, from an honest source."""
        name = self.new.target.bundle
        try:
            with contextlib.suppress(*_REFUSED):
                self.download(self.new, source, between)
            if self.slots.has(name):
                self._is_right(name)
            self.download(self.new, Honest(self.new))
            self._is_right(name)
        finally:
            self.slots.remove(name)
            shutil.rmtree(self.slots.partial(name), ignore_errors=True)
            self.journal.clear(name)

    def _is_right(self, name: str) -> None:
        assert bundle.from_folder(self.slots.artifact(name)).digest == name, "what was adopted is not what was signed"

    def _parts(self, chance: random.Random) -> None:
        source, when = Honest(self.new), chance.randrange(8)

        def spoil(part: agent_pb2.BlockPart) -> agent_pb2.BlockPart:
            nonlocal when
            when -= 1
            if when:
                return part
            if chance.random() < 0.5:
                part.data = damaged(part.data, chance)
                return part
            part.index = chance.choice([part.index, part.index + 1, 0, 1 << 31])
            part.encoding = chance.choice(_ENCODINGS)
            part.encoded_size = chance.choice([0, 1, len(part.data), _BLOCK, 1 << 30])
            part.base.bundle, part.base.file = chance.randrange(3), chance.randrange(4)
            part.base.offset, part.base.size = chance.randrange(9999), chance.choice([0, 1, _BLOCK, 1 << 20, 1 << 31])
            return part

        source.spoil = spoil
        self._comes_right(source)

    def _documents(self, chance: random.Random) -> None:
        new = self.new.target
        spoilt = chance.choice([new.bundle, new.block_index])
        for sha256, document in ((new.bundle, self.new.document), (new.block_index, self.new.indexed)):
            data = damaged(document, chance) if sha256 == spoilt else document
            (self._stick / "objects" / sha256).write_bytes(data)
        source = LocalFirst(_Gone(self.new))
        source.look_in(self._stick)
        try:
            plan = self.plan(self.new, source)
        except LinkDown:
            return
        finally:
            shutil.rmtree(self.slots.partial(new.bundle), ignore_errors=True)
        raise AssertionError(f"a document that is not the signed one was taken: {plan.document!r}")

    def _partial_documents(self, chance: random.Random) -> None:
        name, new = self.new.target.bundle, self.new
        folder = self.slots.make_partial(name)
        which = chance.choice(["bundle", "block_index"])
        (folder / "bundle").write_bytes(new.document)
        (folder / "block_index").write_bytes(new.indexed)
        (folder / which).write_bytes(damaged((folder / which).read_bytes(), chance))
        plan = self.plan(new, Honest(new))
        assert (plan.document, plan.indexed) == (new.document, new.indexed), "a damaged document was kept"
        shutil.rmtree(folder)

    def _partial_files(self, chance: random.Random) -> None:
        """Interrupted, with all blocks in the journal, and then damaged."""
        name = self.new.target.bundle

        def interrupted() -> None:
            folder = self.slots.partial(name) / "files"
            shutil.copytree(self.new.folder, folder)
            path = folder / chance.choice(["model.gguf", "sub/config.json"])
            path.write_bytes(damaged(path.read_bytes(), chance))
            numbers = range(len(self.new.blocks))
            self.journal.record(name, self.new.target.block_index, numbers)

        self._comes_right(Honest(self.new), interrupted)

    def _journal(self, chance: random.Random) -> None:
        """It names blocks that were never written."""
        name = self.new.target.bundle

        def interrupted() -> None:
            folder = self.slots.partial(name) / "files" / "sub"
            folder.mkdir(parents=True)
            (folder.parent / "model.gguf").write_bytes(bytes((self.new.folder / "model.gguf").stat().st_size))
            self.journal.record(name, self.new.target.block_index, chance.sample(range(200), chance.randint(1, 60)))

        self._comes_right(Honest(self.new), interrupted)

    def _held(self, chance: random.Random) -> None:
        """The artifact here that blocks and files are taken from, or its documents."""
        path = chance.choice(list(self._kept))
        with self._spoilt(path, chance):
            self._comes_right(Honest(self.new))

    def _at_rest(self, chance: random.Random) -> None:
        path = chance.choice([path for path in self._kept if path.suffix != ".index"])
        with self._spoilt(path, chance):
            try:
                self.slots.verify(self.old.target.bundle)
            except ArtifactDamaged:
                return
            raise AssertionError(f"{path.name}: its damage was not found")

    def _parsed(self, chance: random.Random) -> None:
        """As if the damage had been signed: what is no document is refused, and nothing else happens."""
        with contextlib.suppress(BundleError):
            bundle.parse(damaged(self.new.document, chance))
        with contextlib.suppress(BlockIndexError):
            block_index.parse(damaged(self.new.indexed, chance), bundle.parse(self.new.document))

    @contextlib.contextmanager
    def _spoilt(self, path: Path, chance: random.Random) -> Iterator[None]:
        path.chmod(0o644)
        path.write_bytes(damaged(self._kept[path], chance))
        try:
            yield
        finally:
            path.write_bytes(self._kept[path])
            path.chmod(0o444)
