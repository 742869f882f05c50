"""How a device's state in a rollout is drawn: a colour, and a sign that is told from the others without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Sign:
    """One state. `plain` is for a terminal that has only ASCII. `style` is rich's."""

    state: str
    sign: str
    plain: str
    style: str
    word: str


# In the order in which a row of shares shows them: what is done, what moves, what went wrong, what waits.
SIGNS: Final = {
    one.state: one
    for one in (
        Sign("succeeded", "■", "#", "green", "succeeded"),
        Sign("updating", "▸", ">", "bold yellow", "updating"),
        Sign("offered", "□", "o", "cyan", "offered"),
        Sign("reverting", "◂", "<", "bold magenta", "reverting"),
        Sign("reverted", "↶", "r", "magenta", "reverted"),
        Sign("failed", "✗", "X", "bold red", "failed"),
        Sign("timed_out", "!", "!", "bold red", "silent"),
        Sign("skipped", "-", "-", "dim", "skipped"),
        Sign("waiting", "·", ".", "dim", "waiting"),
    )
}
ORDER: Final = {state: place for place, state in enumerate(SIGNS)}
BAD: Final = frozenset({"failed", "timed_out"})
ENDED: Final = frozenset({"succeeded", "failed", "timed_out", "skipped", "reverted"})
UNDER_WAY: Final = frozenset({"offered", "updating", "reverting"})
UNKNOWN: Final = Sign("", "?", "?", "", "unknown")


def sign(state: str) -> Sign:
    """The sign of a state; a newer controller's may be unknown here."""
    return SIGNS.get(state, UNKNOWN)
