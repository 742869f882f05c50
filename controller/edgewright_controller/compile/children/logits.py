"""Comparing next-token distributions, chunk by chunk, with bounded memory. Imported by the stages that measure.

A reference is one file of float32, little-endian: for each chunk in turn a row of the whole vocabulary for each token.
It is mapped, never read whole, and rows are compared a few at a time in float64: the divergence of two runtimes that
both compute in float32 is about 1e-11, which float32 arithmetic here would drown.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stage import StageError

ROWS_AT_ONCE = 32


class Reference:
    """The source's logits for `chunks` of token ids, as `reference_logits.py` wrote them."""

    def __init__(self, path: str, chunks: Sequence[Sequence[int]], vocabulary: int) -> None:
        rows = sum(map(len, chunks))
        size = Path(path).stat().st_size
        if size != rows * vocabulary * 4:
            raise StageError(f"{path}: {size:,} bytes are not {rows} rows of {vocabulary} logits")
        self._rows = np.memmap(path, "<f4", "r", shape=(rows, vocabulary))
        self._starts = np.cumsum([0, *map(len, chunks)])

    def of(self, chunk: int) -> Any:
        """The rows of this chunk, [tokens, vocabulary]."""
        return self._rows[self._starts[chunk] : self._starts[chunk + 1]]


def compare(source: Any, artifact: Any, tokens: Sequence[int]) -> dict[str, Any]:
    """One chunk as `quality.divergence.Chunk` has it. `source` and `artifact` are [tokens, vocabulary] of logits;
    the last row has no token after it and is left out.

    A runtime may pad the vocabulary: what lies beyond the source's is not a token, and is left out of both.
    """
    width = min(source.shape[1], artifact.shape[1])
    found: dict[str, Any] = {"kl": [], "source_log_p": [], "artifact_log_p": [], "same_top": 0}
    following = np.asarray(tokens[1:])
    for start in range(0, len(following), ROWS_AT_ONCE):
        rows = slice(start, min(start + ROWS_AT_ONCE, len(following)))
        log_p, p = _softmax(source[rows, :width])
        log_q, _ = _softmax(artifact[rows, :width])
        places = (np.arange(p.shape[0]), following[rows])
        found["source_log_p"] += log_p[places].tolist()
        found["artifact_log_p"] += log_q[places].tolist()
        found["same_top"] += int((log_p.argmax(axis=1) == log_q.argmax(axis=1)).sum())
        # Where the source gives no probability at all, the term is nothing, whatever the artifact says.
        log_p -= log_q
        log_p[p == 0.0] = 0.0
        found["kl"] += np.maximum(np.einsum("ij,ij->i", p, log_p), 0.0).tolist()
    return found


def _softmax(logits: Any) -> tuple[Any, Any]:
    """Logarithms of the probabilities, and the probabilities."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    weights = np.exp(wide)
    total = weights.sum(axis=1, keepdims=True)
    wide -= np.log(total)
    weights /= total
    return wide, weights


def peak_rss() -> int:
    """The most bytes that this process ever had resident."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10
