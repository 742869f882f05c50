"""What a source itself says: its tokens, its logits in float32, its chats. Made when first asked for, and kept.

Everything is named by the source's digest and by the packages that computed it, so builds of one source share it,
whatever they are built for and whenever. Logits are large and are made in parts, as far as a verdict needs them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgewright_controller.compile.backends.job import RunStage
from edgewright_controller.compile.intermediates import Intermediates
from edgewright_controller.quality import kept, mix, wording

# Raised when the stages compute something else from the same source.
CHUNKS: Final = 1
LOGITS: Final = 1
WORDS: Final = 1


@dataclass(frozen=True)
class Part:
    """Logits of some chunks of token ids: a file of float32, a row of `vocabulary` for each token."""

    path: Path
    chunks: Sequence[Sequence[int]]
    vocabulary: int


class Reference:
    """One source, asked through stages under an interpreter that has torch and transformers."""

    def __init__(
        self,
        digest: str,
        staged: Path,
        versions: Mapping[str, str],
        intermediates: Intermediates,
        threads: int,
    ) -> None:
        """`digest` names the source, `staged` is a folder with its files, `versions` are those of torch and
        transformers."""
        self.staged, self._intermediates, self._threads = staged, intermediates, threads
        self._shaped_by = {"source": digest, "versions": dict(versions)}

    @property
    def shaped_by(self) -> Mapping[str, Any]:
        """What everything here depends on."""
        return self._shaped_by

    async def chunks(self, run: RunStage) -> list[list[int]]:
        """The mix in chunks of the source's token ids, in the order in which they are measured."""

        async def make() -> dict[str, Any]:
            request = {"source": str(self.staged), "texts": dict(mix.texts()), "tokens": mix.CHUNK_TOKENS}
            return await run("source_chunks", request, 1.0)

        shaped_by = {"chunks": CHUNKS, "texts": mix.texts_digest(), **self._shaped_by}
        found = await kept.document(self._intermediates, kept.name("json", shaped_by), make, ("chunks",))
        return mix.ordered(found["chunks"])

    @contextlib.asynccontextmanager
    async def logits(self, chunks: Sequence[Sequence[int]], run: RunStage) -> AsyncIterator[Part]:
        """The source's logits for these chunks, held until the block ends."""

        async def make(path: Path) -> None:
            request = {"source": str(self.staged), "chunks": chunks, "out": str(path), "threads": self._threads}
            await run("reference_logits", request, 1.0)

        shaped_by = {"logits": LOGITS, "chunks": chunks, **self._shaped_by}
        async with self._intermediates.hold(kept.name("f32", shaped_by), make) as path:
            tokens = sum(map(len, chunks))
            yield Part(path, chunks, path.stat().st_size // (4 * tokens))

    async def words(self, run: RunStage) -> dict[str, Any]:
        """The source's token ids of raw texts, and its chats as rendered: {"ids": …, "chats": …}."""

        async def make() -> dict[str, Any]:
            request = {"source": str(self.staged), "texts": dict(wording.texts()), "chats": dict(wording.chats())}
            return await run("source_parity", request, 1.0)

        shaped_by = {"words": WORDS, "wording": wording.digest_of_all(), **self._shaped_by}
        return await kept.document(self._intermediates, kept.name("json", shaped_by), make, ("ids", "chats"))
