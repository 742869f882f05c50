"""Reading a small text that a person named: a configuration, a manifest.

The bound holds for what is read, not for what the file says of its size: a device such as /dev/zero has no size and
no end.
"""

from __future__ import annotations

from pathlib import Path


class TooLarge(ValueError):
    """The file has more bytes than such a file can have."""


def read_text(path: Path, max_bytes: int) -> str:
    """The UTF-8 text at `path`, without the mark that some editors put before it.

    Raises TooLarge beyond `max_bytes`, UnicodeDecodeError (a ValueError), OSError.
    """
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise TooLarge(f"larger than {max_bytes:,} bytes")
    return data.decode("utf-8-sig")
