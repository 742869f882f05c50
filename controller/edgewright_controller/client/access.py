"""How to reach a controller: a TOML file that names an address and three PEM files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomli

from edgewright_contract import small_file
from edgewright_controller.client.errors import AccessError

MAX_ACCESS_BYTES: Final = 64 << 10
_KEYS: Final = ("address", "certificate", "key", "ca")


@dataclass(frozen=True)
class Access:
    """How to reach a controller: `host:port`, and three PEM files."""

    address: str
    certificate: Path
    key: Path
    ca: Path


def read_access(file: Path, address: str | None = None) -> Access:
    """The access in a TOML file of keys address, certificate, key, ca; paths are relative to the file.

    `address` overrides the file's. Raises AccessError.
    """
    try:
        document: Mapping[str, Any] = tomli.loads(small_file.read_text(file, MAX_ACCESS_BYTES))
    except OSError as error:
        raise AccessError(
            f"{file}: {error.strerror}; `edgewright serve` writes one to operator/client.toml in its state folder, "
            "name it with --config or EDGEWRIGHT_CONFIG"
        ) from error
    except small_file.TooLarge as error:
        raise AccessError(f"{file}: {error}; that is no access file") from error
    except ValueError as error:
        raise AccessError(f"{file}: not TOML: {error}") from error
    for key in document:
        if key not in _KEYS:
            raise AccessError(f"{file}: {key}: unknown key; there are {', '.join(_KEYS)}")
    for key in _KEYS:
        if not isinstance(document.get(key), str):
            raise AccessError(f"{file}: {key}: missing, or not text")
    certificate, private, ca = (file.parent / Path(document[name]).expanduser() for name in _KEYS[1:])
    return Access(address or document["address"], certificate, private, ca)
