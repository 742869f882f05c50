"""What the controller and the agents must agree on: names, digests, formats and the wire.

Nothing here touches the network. Both ends import this package; it imports neither.
"""

__version__ = "0.1.0"
