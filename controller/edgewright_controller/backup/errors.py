"""What can be wrong with a backup."""

from __future__ import annotations


class BackupRefused(Exception):
    """This cannot be backed up, or not restored; nothing was changed. The text says why and what to do."""
