"""What devices publish over MQTT, from the broker into the ledger, and hints the other way.

`Ingest` is the whole of it; `connections` decides who is connected, by what devices and their wills say.
"""

from edgewright_controller.reports.ingest import Counts, Ingest, Report, ReportStore, ReportWatcher

__all__ = ["Counts", "Ingest", "Report", "ReportStore", "ReportWatcher"]
