"""Sources as a controller has them, in a folder of a test."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewright_controller.compile.executor import LocalExecutor
from edgewright_controller.compile.source import Source
from edgewright_controller.compile.sources import credentials, reference
from edgewright_controller.compile.sources.sources import Asked, Look, Resolved, Sources

PYTHON = {"gguf": sys.executable}


def sources(
    state: Path, named: Mapping[str, Any] | None = None, *, budget_bytes: int = 1 << 30, plain_http: bool = False
) -> Sources:
    """Sources with these credentials in their settings."""
    return Sources(
        state / "sources",
        credentials.parse(named or {}),
        interpreters=PYTHON,
        executor=LocalExecutor(PYTHON, 1),
        toolchains=state / "toolchains",
        hashes=state / "hashes.json",
        budget_bytes=budget_bytes,
        plain_http=plain_http,
    )


def asked(source: str | Path, adapter: str | Path | None = None, credentials: str = "") -> Asked:
    """As a manifest has it."""
    change = reference.parse(str(adapter)) if adapter is not None else None
    return Asked(reference.parse(str(source)), change, credentials)


async def looked(sources: Sources, asked: Asked) -> Look:
    """One look, without a memory of others."""
    return await sources.look(asked, Resolved())


async def prepared(sources: Sources, asked: Asked) -> Source:
    """It, brought here."""
    return await sources.prepare(asked, Resolved(), lambda _step, _done, _what: None)


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder, for a place that is to have them."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def everything_written(state: Path) -> bytes:
    """Every byte below a folder, for a search."""
    return b"\0".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
