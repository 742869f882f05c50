"""What every build stage does around its work: take the request, report in JSON lines, say why it failed.

A stage is a file run by its path under the toolchain's own interpreter. It reads one line of JSON from standard
input, which stays open: when it closes, the controller is gone, and the stage ends itself with all that it started.
It writes JSON lines to standard output:

    {"done": 0.4, "say": "quantising"}        any number of times; `done` rises from 0 to 1
    {"result": {…}}                            last, when it succeeded
    {"failed": "what is wrong and what to do"} last, when it did not; exit status 1

Everything that the toolchain itself prints goes to standard error, which the builder keeps as the log.
Only the standard library is imported here, and never Edgewright: the interpreter need not have it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Final, TextIO

MAX_REQUEST_BYTES: Final = 1 << 20

Say = Callable[[float, str], None]
Work = Callable[[dict[str, Any], Say], dict[str, Any]]


class StageError(Exception):
    """The stage cannot do what it was asked; the message goes to the operator."""


def run(work: Work) -> int:
    """Do `work(request, say)` as described above. Returns the exit status."""
    # A duplicate of the pipe is kept for the reports; whatever prints from now on, C++ too, writes the log.
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.loads(sys.stdin.buffer.readline(MAX_REQUEST_BYTES))
    threading.Thread(target=_end_with_controller, daemon=True).start()
    try:
        _write(reports, {"result": work(request, lambda done, say: _write(reports, {"done": done, "say": say}))})
    except StageError as error:
        _write(reports, {"failed": str(error)})
        return 1
    except Exception as error:
        traceback.print_exc()
        _write(reports, {"failed": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def _end_with_controller() -> None:
    # The file descriptor, not sys.stdin: a lock held by a waiting thread would make the interpreter's exit hang.
    while os.read(0, 1):
        pass
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _write(reports: TextIO, line: dict[str, Any]) -> None:
    reports.write(json.dumps(line) + "\n")
    reports.flush()
