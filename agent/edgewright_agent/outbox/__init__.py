"""What the device has to say, kept on its disk until the controller says that it is stored.

`Outbox` is what the rest of the agent sees. `delivery` is the thread behind it, `sending` decides what goes out
next, `spool` keeps envelopes in SQLite, `boot` reads the machine's clocks.
"""

from edgewright_agent.outbox.delivery import MqttIdentity, OutboxSettings
from edgewright_agent.outbox.outbox import Outbox

__all__ = ["MqttIdentity", "Outbox", "OutboxSettings"]
