"""What an engine's process is not kept from, on this platform. The device's status says it, so that nobody assumes it.

An engine is a child in its own process group, with an environment that holds no credentials (`environment.py`), bound
to 127.0.0.1 and to the agent's life. Nothing else confines it. Who adds a confinement takes its word out here, for the
platforms that have it.
"""

from __future__ import annotations

from typing import Final

UNCONFINED: Final = (
    "own user",  # it runs as the agent's, and so reads what the agent reads: the device's key too
    "network",
    "system calls",
    "memory limit",
)
