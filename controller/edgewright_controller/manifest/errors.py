"""What is wrong with a manifest, said so that an operator can mend it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
MAX_QUOTED = 80  # characters of the operator's own text that a message repeats


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `key` is the dotted TOML key, empty when the whole file is meant; `line` counts
    from 1, 0 when it is not known."""

    file: str
    key: str
    message: str
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}: {self.key}: " if self.key else f"{self.file}: "
        return place + self.message + (f" (line {self.line})" if self.line else "")


class ManifestError(ValueError):
    """The manifest cannot be used. `problems` has every fault that was found; the text is one line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def dotted(path: Iterable[str | int]) -> str:
    """A path into the manifest as TOML writes it: `devices."Jetson 01".labels`, `groups.all.devices[2]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        key = part if _BARE_KEY.fullmatch(part) else quoted(part)
        text += f".{key}" if text else key
    return text


def quoted(value: object) -> str:
    """The operator's own value, safe for a terminal and of bounded length."""
    text = value if isinstance(value, str) else str(value)
    return json.dumps(text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + "…", ensure_ascii=False)


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?`, or the list of what there is, or nothing when there is nothing."""
    near = nearest(wrong, known)
    if near:
        return f"; did you mean {quoted(near)}?"
    choices = sorted(known)
    if not choices:
        return ""
    shown = ", ".join(choices[:12]) + (", …" if len(choices) > 12 else "")
    return f"; there are {shown}" if len(choices) > 1 else f"; there is only {shown}"


def nearest(wrong: str, known: Iterable[str]) -> str:
    """The known word most like `wrong`, ignoring case; empty when none is near."""
    by_folded = {word.casefold(): word for word in known}
    found = get_close_matches(wrong[:MAX_QUOTED].casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else ""
