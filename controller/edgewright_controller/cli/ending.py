"""How a command ends when it cannot go on: one line and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

FAILED: Final = 1
BAD_INPUT: Final = 2
INTERRUPTED: Final = 130


class Ending(Exception):
    """The command ends here; the message is for the operator."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def client_errors() -> Iterator[None]:
    """Turn what the client raises into an Ending."""
    from edgewright_controller.client import AccessError, ClientError, Refused

    try:
        yield
    except ClientError as error:
        bad_input = isinstance(error, AccessError) or (isinstance(error, Refused) and error.bad_input)
        raise Ending(str(error), BAD_INPUT if bad_input else FAILED) from error
