"""A device's process that downloads one artifact as the agent does, and says what that took, as JSON.

Given, as JSON, in its argument: `address`, `target`, `device` (its PEM files), `state` (its folder).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from edgewright_agent import memory
from edgewright_agent.cancellation import Cancellation
from edgewright_agent.device_key import FileKey
from edgewright_agent.download import pull
from edgewright_agent.fetch_plan import prepare
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.link import Credentials, Link
from edgewright_agent.slots import Slots
from edgewright_contract.targets import ImageTarget
from tests.delivery_load.peak import peak_rss_mb


def main() -> None:
    """Pull, and print seconds, seconds of processor time, and the peak of resident memory in MB."""
    given = json.loads(sys.argv[1])
    memory.begin_small()
    state = Path(given["state"])
    state.mkdir(parents=True, exist_ok=True)
    slots, journal = Slots(state), DownloadJournal(state / "agent.sqlite")
    key, chain, ca = (Path(given["device"][name]) for name in ("key", "chain", "ca"))
    link = Link(given["address"], Credentials(FileKey(key, key.read_bytes()), chain, ca))
    cancellation = Cancellation()
    began, used = time.monotonic(), time.process_time()
    target = ImageTarget(**given["target"])
    plan = prepare(target, link, slots, reuse=(), reserve=0, cancellation=cancellation)
    whole = pull(plan, link, slots, journal, progress=lambda done, total: None, cancellation=cancellation)
    seconds, cpu_s = time.monotonic() - began, time.process_time() - used
    link.close()
    rss_mb = peak_rss_mb()
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "rss_mb": rss_mb, "artifact": str(whole)}))


if __name__ == "__main__":
    main()
