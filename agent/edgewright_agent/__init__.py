"""The agent: pulls what the controller signed for this device, proves it, serves it, reports.

It needs nobody once the blocks are there: a device without a network serves on.
"""

from __future__ import annotations

__version__ = "0.1.0"
