"""What can go wrong between an operator and a controller, by what the caller does next."""

from __future__ import annotations


class ClientError(Exception):
    """The controller could not be asked, or said no."""


class ControllerUnreachable(ClientError):
    """Nobody answered, or not with this fleet's certificate."""


class Refused(ClientError):
    """The controller answered, and refused; the message is the controller's. `bad_input` tells whether
    what was sent is at fault (a manifest, an id) rather than the state of the fleet."""

    def __init__(self, message: str, *, bad_input: bool) -> None:
        super().__init__(message)
        self.bad_input = bad_input


class AccessError(ClientError):
    """The file that says how to reach the controller, or one that it names, cannot be used."""
