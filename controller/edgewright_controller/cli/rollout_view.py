"""A rollout drawn for a terminal: values and a size in, lines of text out.

One row of cells for each wave, one cell for each device; where there are more devices than cells, the cells of a row
are shares. What fits least is left out first: devices under way, then reasons of failures, then waves are drawn
together. No line is wider than asked, and there are never more lines than asked.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.cli import printing
from edgewright_controller.cli.device_signs import BAD, ENDED, ORDER, Sign, sign
from edgewright_controller.cli.rollout_picture import Failure, Picture, Wave, merged
from edgewright_controller.span import span

_STATES: Final = {
    "running": "yellow",
    "waiting": "cyan",
    "paused": "bold magenta",
    "approval": "bold magenta",
    "reverting": "bold magenta",
    "succeeded": "bold green",
    "failed": "bold red",
    "aborted": "bold red",
    "superseded": "dim",
}
NARROW: Final = 60
MAX_LABEL: Final = 22
# A wave of many devices is looked at more easily as shares than as a field that fills the terminal.
MAX_ROWS: Final = 3
MAX_REASONS: Final = 5
MAX_UNDER_WAY: Final = 12


@dataclass(frozen=True)
class Size:
    """Of the terminal, in cells. `plain`: it has only ASCII."""

    width: int
    height: int
    plain: bool = False

    @property
    def narrow(self) -> bool:
        """Whether words are to be spared."""
        return self.width < NARROW


def frame(picture: Picture, size: Size, now: float) -> list[Text]:
    """The whole picture at `now`, by the clock that the picture was told with."""
    top = [_title(picture, size, now), _bar(picture, size)]
    bottom = [_legend(line, size) for line in _legend_lines(picture.counts(), size)]
    bottom += _waits(picture, size, now)
    failures = picture.failures()
    room = size.height - len(top) - len(bottom)
    waves = picture.waves()
    kept = min(len(failures), max(0, min(3, room - len(waves))))
    rows = _waves(waves, picture, size, max(1, room - kept))
    room -= len(rows)
    reasons = _reasons(failures, size, min(len(failures), max(0, room), MAX_REASONS))
    room -= len(reasons)
    under_way = _under_way(picture, size, max(0, min(room, MAX_UNDER_WAY)))
    lines = [*top, *rows, *bottom, *reasons, *under_way]
    for line in lines:
        line.no_wrap = True
        line.truncate(size.width, overflow="ellipsis" if not size.plain else "crop")
    if len(lines) > size.height:
        # A terminal of a few lines: where it stands, then the waves, then what it waits for.
        lines = [top[1], *rows, *bottom, top[0]][: max(1, size.height)]
    return lines


# ── Above ──


def _title(picture: Picture, size: Size, now: float) -> Text:
    rollout, view = picture.rollout, picture.rollout.view
    left = Text().append(rollout.rollout or "rollout", "bold")
    if view.what:
        left.append(f"  {view.what}")
    if view.by:
        left.append(f" by {view.by}", "dim")
    right = clock(picture.elapsed_s(now)) if view.created_unix_ms else ""
    room = size.width - len(right) - 1
    left.truncate(max(0, room), overflow="crop" if size.plain else "ellipsis")
    left.pad_right(max(0, room - left.cell_len))
    return left.append(f" {right}", "bold")


def _bar(picture: Picture, size: Size) -> Text:
    """How many devices have ended, and where the rollout stands."""
    rollout, counts = picture.rollout, picture.counts()
    total, ended = counts.total(), sum(counts[state] for state in ENDED)
    of, has = ("/", "") if size.narrow else (" of ", " ended")
    words = f" {ended}{of}{total}{has}  "
    wave = f", wave {rollout.wave}{of}{rollout.waves}" if rollout.wave else ""
    width = max(4, min(40, size.width // 3, size.width - len(words) - len(rollout.state) - len(wave)))
    full = round(ended / total * width) if total else 0
    if 0 < ended < total:
        full = min(max(full, 1), width - 1)  # neither nothing nor all, before it is
    done, rest = ("=", "-") if size.plain else ("━", "─")
    style = "red" if any(counts[state] for state in BAD) else "green"
    line = Text().append(done * full, style).append(rest * (width - full), "dim").append(words)
    line.append(rollout.state, _STATES.get(rollout.state, "")).append(wave)
    if rollout.reason and rollout.reason != f"wave {rollout.wave} of {rollout.waves}":
        line.append(f": {rollout.reason}")
    return line


# ── The waves ──


def _waves(waves: Sequence[Wave], picture: Picture, size: Size, rows: int) -> list[Text]:
    """At most `rows` rows, at least one for each wave if they fit; a wave gets several where each of its devices then
    has a cell."""
    if not waves:
        return []
    shown = folded(waves, picture.rollout.wave, rows)
    labels = [_label(wave, size) for wave in shown]
    label = min(MAX_LABEL, max(map(len, labels)), size.width // 3)
    tails = [_tail(wave, size) for wave in shown]
    tail = max(map(len, tails))
    cells = max(1, size.width - label - tail - 2)
    if not size.narrow and any(len(wave.names) > cells for wave in shown):
        cells = max(1, cells - len(", 9999 a cell"))
    spare = rows - len(shown)
    lines = []
    for wave, name, ended in zip(shown, labels, tails, strict=True):
        end = ended
        more = -(-len(wave.names) // cells) - 1  # rows, for a cell for each device
        if more <= min(spare, MAX_ROWS - 1):
            spare -= more
            drawn = [sign(picture.devices[device].state) for device in wave.names]
        else:
            drawn = shares(wave.counts, cells)
            if not size.narrow:
                end += f", {len(wave.names) / cells:.0f} a cell"
        for start in range(0, len(drawn), cells):
            row = Text()
            row.append(f"{name if not start else '':<{label}.{label}} ", _current(wave, picture))
            for one in drawn[start : start + cells]:
                row.append(one.plain if size.plain else one.sign, one.style)
            if not start:
                row.pad_right(max(0, label + 1 + cells - row.cell_len))
                row.append(end, "dim")
            lines.append(row)
    return lines


def _current(wave: Wave, picture: Picture) -> str:
    return "bold" if wave.number == picture.rollout.wave and picture.result is None else ""


def _label(wave: Wave, size: Size) -> str:
    if wave.last > wave.number:
        return f"waves {wave.number}–{wave.last}" if not size.plain else f"waves {wave.number}-{wave.last}"
    return f"{'' if size.narrow else 'wave '}{wave.number} {wave.what}".rstrip()


def _tail(wave: Wave, size: Size) -> str:
    """How many have ended; for a wave after which somebody is asked, that too."""
    ended = sum(wave.counts[state] for state in ENDED)
    then = f", then {wave.then}" if wave.then not in ("", "go on") and not size.narrow else ""
    return f" {ended}/{len(wave.names)}{then}"


def folded(waves: Sequence[Wave], current: int, rows: int) -> list[Wave]:
    """The waves in at most `rows` rows: those before the current one, then those after it, are drawn together."""
    if len(waves) <= rows or not waves:
        return list(waves)
    place = next((index for index, wave in enumerate(waves) if wave.number >= current), len(waves) - 1)
    if rows < 3:
        return [merged(waves)] if rows < 2 else _halves(waves, place)
    # One row holds what is before and one what is after; the current wave and its neighbours get the rest.
    kept = rows - 2
    start = place - (kept - 1) // 2
    if start <= 1:
        return [*waves[: rows - 1], merged(waves[rows - 1 :])]
    if start + kept >= len(waves) - 1:
        return [merged(waves[: len(waves) - rows + 1]), *waves[len(waves) - rows + 1 :]]
    return [merged(waves[:start]), *waves[start : start + kept], merged(waves[start + kept :])]


def _halves(waves: Sequence[Wave], place: int) -> list[Wave]:
    cut = place if place else 1
    return [merged(waves[:cut]), merged(waves[cut:])]


def shares(counts: Mapping[str, int], cells: int) -> list[Sign]:
    """So many cells, each state's in proportion; a state that one device has gets one, as long as there are cells."""
    states = sorted((state for state, count in counts.items() if count), key=lambda one: ORDER.get(one, len(ORDER)))
    total = sum(counts[state] for state in states)
    if not total:
        return []
    # Rare states are worth most: one device that failed must be seen among ten thousand.
    exact = {state: counts[state] * cells / total for state in states}
    given = {state: max(1, int(exact[state])) for state in states}
    while sum(given.values()) > cells and any(number > 1 for number in given.values()):
        given[max(given, key=lambda one: given[one] - exact[one] if given[one] > 1 else -cells)] -= 1
    while sum(given.values()) < cells:
        given[max(given, key=lambda one: exact[one] - given[one])] += 1
    drawn = [sign(state) for state in states for _ in range(given[state])]
    if len(drawn) > cells:  # fewer cells than states: what went wrong is shown before anything else
        drawn = sorted(drawn, key=lambda one: one.state not in BAD)[:cells]
    return drawn


# ── Below ──


def _legend_lines(counts: Counter[str], size: Size) -> list[list[tuple[Sign, int]]]:
    """The states that there are, in as many lines as the width needs."""
    lines: list[list[tuple[Sign, int]]] = [[]]
    used = 0
    for state in sorted(counts, key=lambda one: ORDER.get(one, len(ORDER))):
        if not counts[state]:
            continue
        entry = (sign(state), counts[state])
        width = len(_entry(*entry, size)) + 2
        if used and used + width - 2 > size.width:
            lines.append([])
            used = 0
        lines[-1].append(entry)
        used += width
    return lines if lines[0] else []


def _entry(one: Sign, count: int, size: Size) -> str:
    return f"{one.plain if size.plain else one.sign} {count} {one.word}"


def _legend(entries: Sequence[tuple[Sign, int]], size: Size) -> Text:
    return Text("  ").join(Text(_entry(one, count, size), one.style) for one, count in entries)


def _waits(picture: Picture, size: Size, now: float) -> list[Text]:
    """What comes next, in as many lines as that needs. A time that the words give runs on; one that they do not give,
    as with a date, stands before them."""
    view = picture.rollout.view
    if not view.waits_for or picture.result is not None:
        return []
    words, said, left = view.waits_for, span(view.waits_s), picture.waits_s(now)
    runs = clock(left) if left else "a moment"
    if view.waits_s and f" {said}" in words:
        words = words.replace(f" {said}", f" {runs}", 1)
    elif left:
        words = f"[{runs}] {words}"
    start = "" if size.narrow else "waits for "
    lines = [Text(line) for line in textwrap.wrap(f"{start}{words}", max(10, size.width))]
    lines[0].stylize("bold", 0, len(start))
    for line in lines:
        line.highlight_words([runs], "bold cyan")
    return lines


def _reasons(failures: Sequence[Failure], size: Size, rows: int) -> list[Text]:
    lines = []
    for failure in failures[:rows]:
        one, others = sign(failure.state), len(failure.devices) - 1
        name = failure.devices[0] + (f" and {others} other{'s' if others > 1 else ''}" if others else "")
        line = Text().append(f"{one.plain if size.plain else one.sign} ", one.style).append(name, "bold")
        lines.append(line.append(f": {failure.reason or one.word}"))
    return lines


def _under_way(picture: Picture, size: Size, rows: int) -> list[Text]:
    """Devices under way, by their own account; only if there is a row for each."""
    devices = picture.under_way() if picture.result is None else []
    if len(devices) > rows:
        return []
    name = max((len(one.device) for one in devices), default=0)
    return [_one_under_way(one, name, size) for one in devices]


def _one_under_way(device: operator_pb2.DeviceProgress, name: int, size: Size) -> Text:
    one, status = sign(device.state), device.status
    line = Text().append(f"{one.plain if size.plain else one.sign} ", one.style)
    line.append(f"{device.device:<{name}}  {printing.standing(status):<18}")
    if status.total_bytes:
        width = max(0, min(24, size.width - line.cell_len))
        full = min(width, width * status.done_bytes // status.total_bytes)
        done, rest = ("=", "-") if size.plain else ("━", "─")
        line.append(done * full, "yellow").append(rest * (width - full), "dim")
        left = printing.left(status)
        if left and line.cell_len + 2 + len(left) <= size.width:
            line.append(f"  {left}", "dim")
    return line


def clock(seconds: float) -> str:
    """A time that runs, as a clock shows it: 0:09, 12:04, 1:30:00, 2 d 3:04:05."""
    whole = int(seconds)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"
    return f"{days} d {text}" if days else text
