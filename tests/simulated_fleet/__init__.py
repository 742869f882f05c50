"""Many devices in few processes: real certificates, trust, state, downloads, check-ins and reports; no engine.

`SimulatedFleet` (fleet.py) starts them for a test, `ServedController` (controller.py) the controller that they know.
In a process of devices (process.py) each one is a `SimulatedDevice` (device.py): the agent's own parts but for the
acts of an engine, which take as long and fail as `Orders` (orders.py) say.
"""
