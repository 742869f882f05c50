"""A stream's messages, taken off gRPC in a thread of their own while those before them are hashed and written.

What gRPC has received and not yet handed over when a line breaks is lost, and must come once more; what was taken off
it is not.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final

# Of 256 KiB each.
MOST: Final = 8
_LOOK_S: Final = 0.05


def ahead(messages: Iterable[Any], end: Callable[[], object], most: int = MOST) -> Generator[Any, None, None]:
    """The messages in their order, and then what ended them: all that came before an error comes before it.

    `end` is called at last, also when the caller leaves early; it must make `messages` end. Raises what they raise.
    """
    taken: queue.Queue[tuple[bool, Any]] = queue.Queue(most)

    def take() -> None:
        try:
            for message in messages:
                taken.put((False, message))
            taken.put((True, None))
        except BaseException as error:  # whatever it is, it is raised where the messages are waited for
            taken.put((True, error))

    thread = threading.Thread(target=take, name="read ahead", daemon=True)
    thread.start()
    try:
        while True:
            ended, what = taken.get()
            if not ended:
                yield what
            elif what is None:
                return
            else:
                raise what
    finally:
        end()
        while thread.is_alive():  # it may wait for room for what nobody wants any more
            while not taken.empty():
                taken.get_nowait()
            thread.join(_LOOK_S)
