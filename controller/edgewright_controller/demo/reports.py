"""What the devices reported over MQTT since the demo began, added up."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, replace

from edgewright_controller.client import ClientError, Fleet


@dataclass(frozen=True)
class Heard:
    """The telemetry of one device: reports, requests and tokens of all of them, rates and memory of the newest."""

    reports: int = 0
    requests: int = 0
    output_tokens: int = 0
    tokens_per_s: float = 0.0
    engine_bytes: int = 0
    agent_bytes: int = 0


class Reports:
    """Listens to `edgewright tail` in the background."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._heard: dict[str, Heard] = {}
        self._news = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def heard(self) -> dict[str, Heard]:
        """What came so far, by device."""
        with self._news:
            return dict(self._heard)

    def wait_for_requests(self, devices: Collection[str], timeout_s: float) -> bool:
        """Wait until each device reported a request that it answered; False at the deadline."""
        deadline = time.monotonic() + timeout_s
        with self._news:
            return self._news.wait_for(
                lambda: all(self._heard.get(device, Heard()).requests for device in devices),
                timeout=max(0.0, deadline - time.monotonic()),
            )

    def _listen(self) -> None:
        try:
            for event in self._fleet.tail():
                if event.envelope.WhichOneof("body") == "telemetry":
                    told = event.envelope.telemetry
                    with self._news:
                        was = self._heard.get(event.envelope.device_id, Heard())
                        self._heard[event.envelope.device_id] = replace(
                            was,
                            reports=was.reports + 1,
                            requests=was.requests + told.requests,
                            output_tokens=was.output_tokens + told.output_tokens,
                            tokens_per_s=told.decode_tokens_per_s or was.tokens_per_s,
                            engine_bytes=told.engine_rss_bytes,
                            agent_bytes=told.agent_rss_bytes,
                        )
                        self._news.notify_all()
        except ClientError:
            # The controller ends with the demo. Before that, the missing reports fail the claim about them.
            return
