"""Builds as operators see them: what became of each, and the end of its log."""

from __future__ import annotations

import asyncio
from typing import Final

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.compile.build_records import BuildRecord, BuildRecords
from edgewright_controller.service.change import BadInput

USUAL: Final = 20
MOST: Final = 1000
USUAL_LINES: Final = 100


class Builds:
    """Answers `builds`."""

    def __init__(self, records: BuildRecords) -> None:
        self._records = records

    def listed(self, limit: int) -> operator_pb2.ListBuildsResponse:
        """The newest first."""
        newest = self._records.newest_first()[: min(limit or USUAL, MOST)]
        return operator_pb2.ListBuildsResponse(builds=[_view(record) for record in newest])

    async def log(self, prefix: str, lines: int) -> operator_pb2.BuildLogResponse:
        """The build whose key begins so, and the last lines of its log. Raises BadInput."""
        found = [record for record in self._records.newest_first() if prefix and record.key.startswith(prefix)]
        if len(found) != 1:
            what = (
                f"{len(found)} builds begin with {prefix!r}; give more of the key"
                if found
                else (f"no build begins with {prefix!r}; `edgewright builds list` shows those that are kept")
            )
            raise BadInput(what)
        (record,) = found
        try:
            kept = await asyncio.to_thread(self._records.log_tail, record.key, lines or USUAL_LINES)
        except FileNotFoundError as error:
            raise BadInput(f"build {record.key[:12]}: it left no log, or the log is not kept any more") from error
        return operator_pb2.BuildLogResponse(build=_view(record), lines=kept)


def _view(record: BuildRecord) -> operator_pb2.BuildRecord:
    return operator_pb2.BuildRecord(
        build_key=record.key,
        model=record.model,
        recipe=record.recipe,
        state=record.state,
        reason=record.reason,
        artifact=record.artifact,
        began_ms=record.began_ms,
        ended_ms=record.ended_ms,
        stages=[operator_pb2.BuildStage(name=name, seconds=seconds) for name, seconds in record.stages],
    )
