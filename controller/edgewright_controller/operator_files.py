"""The folder STATE/operator: certificate and address, all that an operator's commands need on this machine."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from edgewright_contract import durable
from edgewright_controller.config import Address
from edgewright_controller.pki import Authority


def write(folder: Path, authority: Authority, address: Address, now: datetime) -> Path:
    """Write the administrator's files and `client.toml`, which names them; its path. Raises AuthorityError, OSError."""
    files = authority.operator_certificate(folder=folder, now=now)
    text = (
        "# For edgewright's commands: --config this file, or copy the folder and set EDGEWRIGHT_CONFIG.\n"
        f'address = "{address}"\n'
        f'certificate = "{files.chain.name}"\n'
        f'key = "{files.key.name}"\n'
        f'ca = "{files.ca.name}"\n'
    )
    path = folder / "client.toml"
    durable.write(path, text.encode())
    return path
