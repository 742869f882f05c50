"""What is known of artifacts at rest, and the way in which a command asks a running agent to see to them.

STATE/upkeep/wanted    a repair is asked for: the asker's mark
STATE/upkeep/report    how the last round ended, JSON; `asked` is the mark of the one who asked for it
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from edgewright_agent.inspection import Finding
from edgewright_contract import durable, small_file

FOLDER: Final = "upkeep"
_MAX_BYTES: Final = 4 << 20
_MAX_FINDINGS: Final = 1000


@dataclass(frozen=True)
class Report:
    """How a round ended. `ended`: seconds since 1970 by the device's clock, of the last whole look at all artifacts, 0:
    there was none yet. `findings` stand; `done` and `why` say what came of the others and why these do."""

    ended: float = 0.0
    artifacts: int = 0
    findings: tuple[Finding, ...] = ()
    done: tuple[str, ...] = ()
    why: tuple[str, ...] = ()
    asked: str = ""


class UpkeepFolder:
    """The folder of one agent's state. Both sides use it; each file is written whole."""

    def __init__(self, state: Path) -> None:
        self._folder = state / FOLDER

    def ask(self, mark: str) -> None:
        """Have a repair done by the agent that runs. Raises OSError."""
        durable.make_folder(self._folder, mode=0o700)
        durable.write(self._folder / "wanted", mark.encode())

    def take_back(self) -> None:
        """Nobody wants it any more. Raises OSError."""
        durable.unlink(self._folder / "wanted")

    def wanted(self) -> str:
        """The mark of whoever asks for a repair, empty: nobody does. Raises OSError."""
        try:
            return small_file.read_text(self._folder / "wanted", 1 << 10)
        except FileNotFoundError:
            return ""
        except (small_file.TooLarge, UnicodeDecodeError):
            self.take_back()
            return ""

    def keep(self, report: Report) -> None:
        """Remember how a round ended. Raises OSError."""
        durable.make_folder(self._folder, mode=0o700)
        document = asdict(report) | {"findings": [asdict(one) for one in report.findings[:_MAX_FINDINGS]]}
        durable.write(self._folder / "report", json.dumps(document).encode())

    def report(self) -> Report:
        """How the last round ended; an empty one where there was none, or what is there is illegible."""
        try:
            document = json.loads(small_file.read_text(self._folder / "report", _MAX_BYTES))
            findings = tuple(Finding(**one | {"blocks": tuple(one["blocks"])}) for one in document.pop("findings"))
            done, why = (tuple(map(str, document.pop(key))) for key in ("done", "why"))
            return Report(findings=findings, done=done, why=why, **document)
        except (OSError, small_file.TooLarge, ValueError, TypeError, KeyError, AttributeError):
            return Report()
