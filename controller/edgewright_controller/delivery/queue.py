"""Packs are made one after the other, beside everything else: in one thread, at a low priority, begun when wanted."""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from edgewright_controller import log
from edgewright_controller.compile.store import ArtifactStore, StoreError
from edgewright_controller.delivery import making
from edgewright_controller.delivery.making import Made
from edgewright_controller.delivery.packs import PackKey, Packs

# Beyond so many that wait, what a device would like to have is not even noted.
MAX_WAITING: Final = 64
_NICE: Final = 10

_log = log.of(__name__)


class _Ending(Exception):
    """The controller stops."""


class PackQueue:
    """Makes the packs of a store. Asked from one thread, the event loop's."""

    def __init__(self, store: ArtifactStore, packs: Packs) -> None:
        self._store, self._packs = store, packs
        self._ends = threading.Event()
        self._worker = ThreadPoolExecutor(1, "packs", initializer=_give_way)
        self._waiting: dict[PackKey, Future[Made | None]] = {}
        # Could not be made when it was last tried, which took reading the whole base: no device may ask for it again.
        self.failed: set[PackKey] = set()

    def want(self, key: PackKey, base_index: str = "") -> Future[Made | None]:
        """Have a pack made; what came of it, None when nothing did. `base_index`: by which devices hold the base.

        Whoever wants the same pack meanwhile waits for the same.
        """
        made = self._waiting.get(key)
        if made is None:
            if len(self._waiting) >= MAX_WAITING or self._ends.is_set():
                made = Future()
                made.set_result(None)
                return made
            made = self._waiting[key] = self._worker.submit(self._make, key, base_index)
            made.add_done_callback(lambda _: self._waiting.pop(key, None))
        return made

    def close(self) -> None:
        """End what runs, between two blocks; nothing of it is left. Blocks so long."""
        self._ends.set()
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _make(self, key: PackKey, base_index: str) -> Made | None:
        about = {"artifact": key.wanted, "base": key.base or "none"}
        began, cpu = time.monotonic(), time.thread_time()
        try:
            made = making.make(self._store, self._packs, key, base_index, self._checkpoint)
        except _Ending:
            return None
        except (StoreError, OSError) as error:
            self.failed.add(key)
            _log.warning("no pack made", why=str(error), **about)
            return None
        except Exception:
            # A fault of ours: devices get whole blocks, and the log has the rest.
            self.failed.add(key)
            _log.exception("a pack could not be made by a fault", **about)
            return None
        self.failed.discard(key)
        spent = {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(time.thread_time() - cpu, 1)}
        _log.info("pack made", lacking=made.lacking, sent=made.sent, **spent, **about)
        return made

    def _checkpoint(self) -> None:
        if self._ends.is_set():
            raise _Ending


def _give_way() -> None:
    """This thread gets what nobody else needs; on other systems than Linux a priority is a whole process's."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
