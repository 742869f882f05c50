"""A length of time in words."""

from __future__ import annotations


def span(seconds: float) -> str:
    """A number of seconds in one unit, or in two where the second one says something: "45 s", "12 min", "1 h 30 min".
    Rounded up, so that nothing is said to be over before it is."""
    whole = -int(-seconds // 1)
    if whole < 100:
        return f"{whole} s"
    minutes = -(-whole // 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours + bool(minutes), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
