"""A backup of what a controller cannot make again: one sealed file, and the way back from it."""

from edgewright_controller.backup.errors import BackupRefused

__all__ = ["BackupRefused"]
