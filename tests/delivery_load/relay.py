"""A link that breaks: a TCP relay on the loopback that counts what goes down to the device, and cuts where told.

A cut takes nothing from the device that has reached it: what its system holds already it may still read.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

_PIECE: Final = 64 << 10


class Relay:
    """Between a device and `port`. Each time that so many bytes have gone down, all its connections are cut."""

    def __init__(self, port: int, cuts_at: Sequence[int]) -> None:
        """`cuts_at`: bytes since the beginning, rising."""
        self._to, self._cuts_at = ("127.0.0.1", port), list(cuts_at)
        self.came, self.cuts = 0, 0
        self._lock = threading.Lock()
        self._open: set[tuple[socket.socket, socket.socket]] = set()  # towards the device, and the other
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End the relay, and what goes over it."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._to)
                with self._lock:
                    self._open.add((near, far))
                for source, sink, down in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._pass, args=(source, sink, down), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, down: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_PIECE):
                if not down:
                    with suppress(OSError):  # after a cut, what the device says goes nowhere
                        sink.sendall(data)
                    continue
                sink.sendall(data)
                if self._counted(len(data)):
                    self._cut()
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        if not down:
            source.close()
            sink.close()

    def _counted(self, size: int) -> bool:
        """Whether the link breaks now."""
        with self._lock:
            self.came += size
            if not self._cuts_at or self.came < self._cuts_at[0]:
                return False
            self._cuts_at.pop(0)
            self.cuts += 1
            return True

    def _cut(self) -> None:
        with self._lock:
            cut, self._open = self._open, set()
        for near, far in cut:
            with suppress(OSError):
                near.shutdown(socket.SHUT_WR)  # closed with something unread, it would have the device's thrown away
            with suppress(OSError):
                far.shutdown(socket.SHUT_RDWR)
