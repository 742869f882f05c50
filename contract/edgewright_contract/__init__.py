"""What the controller and the agents must agree on: names, digests, formats and the wire.

Both ends import this package; it imports neither. Only `mqtt_link` touches the network, because both ends keep the
same kind of line to the broker.
"""

__version__ = "0.1.0"
