"""The device's OpenAI-compatible HTTP interface, in front of whichever engine serves now."""

from edgewright_agent.gateway.app import Gateway, PortTaken
from edgewright_agent.gateway.meter import Meter, Snapshot
from edgewright_agent.gateway.routes import Health, NoRoute, Routes, Upstream

__all__ = ["Gateway", "Health", "Meter", "NoRoute", "PortTaken", "Routes", "Snapshot", "Upstream"]
