"""What the controller says about its work: events with names and ids, for a person or as JSON lines.

A module asks for its logger with `of(__name__)` and names what it speaks of: device, release, rollout, operator. How
that is written is decided once, by `configure`. Until then events go where the standard library sends them.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import Any, Final, TextIO

import structlog
from structlog.types import EventDict, Processor

# Values under these names are never written, whoever passes them.
SECRETS: Final = frozenset({"token", "secret", "password", "key_pem", "private_key"})
# What it is worth knowing of these libraries.
_QUIET: Final = {"alembic": logging.WARNING, "asyncio": logging.WARNING}


class Format(Enum):
    """How a log is written."""

    HUMAN = "human"
    JSON = "json"


def of(module: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(module),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
    )
    return logger


def configure(style: Format, stream: TextIO) -> None:
    """Write events of INFO and above to `stream`, also those of libraries."""
    end: list[Processor]
    if style is Format.JSON:
        end = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # The renderer's own choice would show local variables, and there may be secrets among them.
        plain = structlog.dev.plain_traceback
        end = [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _on_one_line, *end],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)


def _without_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {name: "…" if name in SECRETS else value for name, value in event.items()}


def _on_one_line(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Much of what is logged was said by devices and tools; none of it may look like a line of ours."""
    return {name: _escaped(value) if isinstance(value, str) else value for name, value in event.items()}


def _escaped(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


_SHARED: Final[list[Processor]] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _without_secrets,
]
