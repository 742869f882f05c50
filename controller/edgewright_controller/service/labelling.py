"""Labels that operators give to devices; groups, profiles and waves choose by them as by those of the manifest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection

from edgewright_controller.ledger import Ledger, audit, labels
from edgewright_controller.manifest.profiles import LabelKey, Labels
from edgewright_controller.service.change import BadInput
from edgewright_controller.service.cordons import check_enrolled
from edgewright_controller.unix_time import unix_ms

MAX_LABELS: Final = 64  # of one device

_LABELS: Final[TypeAdapter[dict[str, str]]] = TypeAdapter(Labels)
_NAMES: Final[TypeAdapter[list[str]]] = TypeAdapter(list[LabelKey])


class Labelling:
    """Gives labels and takes them away."""

    def __init__(self, ledger: Ledger, clock: Callable[[], datetime], labelled: Callable[[], Awaitable[None]]) -> None:
        """`labelled` is awaited after a change."""
        self._ledger, self._clock, self._labelled = ledger, clock, labelled

    async def label(self, named: Sequence[str], given: Mapping[str, str], gone: Sequence[str], *, by: str) -> None:
        """Give all these devices the labels `given`, and take from them those named in `gone`.

        What rollouts that run do with a device does not change by it. Raises BadInput for a device that there is not,
        or a label that cannot be; LedgerError.
        """
        _check(given, gone)
        now_ms = unix_ms(self._clock())
        said = ", ".join(
            [*(f"{name}={value}" for name, value in sorted(given.items())), *(f"-{name}" for name in gone)]
        )

        def act(connection: Connection) -> None:
            check_enrolled(connection, named)
            for device in dict.fromkeys(named):
                labels.put(connection, device, given, by=by, now_ms=now_ms)
                labels.remove(connection, device, gone)
                entry = {"actor": f"operator {by}", "action": "device.label", "subject": device}
                audit.append(connection, **entry, detail=said, now_ms=now_ms)
            for device, has in labels.every(connection, named).items():
                if len(has) > MAX_LABELS:
                    raise BadInput(f"device {device} would have {len(has)} labels; it may have {MAX_LABELS}")

        await self._ledger.write(act)
        await self._labelled()


def _check(given: Mapping[str, str], gone: Sequence[str]) -> None:
    if not given and not gone:
        raise BadInput("no label is named; give NAME=VALUE, or the names of labels to remove")
    both = sorted(given.keys() & set(gone))
    if both:
        raise BadInput(f"label {both[0]!r} is both given and removed")
    try:
        _LABELS.validate_python(dict(given))
        _NAMES.validate_python(list(gone))
    except ValidationError as error:
        wrong = error.errors()[0]
        raise BadInput(
            f"label {wrong['input']!r}: a name has small letters, digits, '.', '_' and '-', and begins with a letter or"
            " digit, at most 63; a value has at most 128 characters"
        ) from error
