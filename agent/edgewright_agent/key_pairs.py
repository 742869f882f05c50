"""The device's key and certificate on disk: pairs in numbered folders, and a small file that names the one in use.

    identity/key.pem, certificate.pem      pair 0, from the enrolment
    identity/3/key.pem, certificate.pem    pair 3, from the third renewal
    identity/current                       "3"; absent: 0

The next pair grows beside the one in use, key first. Naming it is one rename, so a power cut anywhere leaves a pair
that is whole; what the cut left over is finished or removed by the next renewal.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgewright_agent.device_key import AGAIN, IdentityError, KeyStore
from edgewright_contract import durable

POINTER: Final = "current"
CERTIFICATE_FILE: Final = "certificate.pem"


@dataclass(frozen=True)
class Pair:
    """A place for one key with its certificate chain (PEM)."""

    number: int
    folder: Path

    @property
    def certificate(self) -> Path:
        """The file of the chain."""
        return self.folder / CERTIFICATE_FILE


class Pairs:
    """The pairs in the folder `identity`."""

    def __init__(self, folder: Path, keys: KeyStore) -> None:
        self._folder, self._keys = folder, keys

    def current(self) -> Pair:
        """The pair in use. Raises IdentityError when the file that names it is damaged, OSError."""
        path = self._folder / POINTER
        try:
            text = path.read_text("ascii")
        except FileNotFoundError:
            return self._pair(0)
        except ValueError:
            text = ""
        if not text.isdecimal() or len(text) > 9:
            raise IdentityError(f"{path} is damaged; remove it and {AGAIN}")
        return self._pair(int(text))

    def next(self) -> Pair:
        """The place of the pair that comes after the one in use. Raises IdentityError, OSError."""
        return self._pair(self.current().number + 1)

    def use(self, pair: Pair) -> None:
        """From now on, and after any power cut, `pair` is the one in use. Raises OSError."""
        durable.write(self._folder / POINTER, str(pair.number).encode())

    def forget(self, pair: Pair) -> None:
        """Remove a pair that is not in use. Raises OSError."""
        self._keys.drop(pair.folder)
        durable.unlink(pair.certificate)
        if pair.folder != self._folder:
            shutil.rmtree(pair.folder, ignore_errors=True)  # what held its key is gone

    def forget_former(self) -> None:
        """Remove every pair before the one in use. Raises IdentityError, OSError."""
        current = self.current().number
        numbers = [int(each.name) for each in self._folder.iterdir() if each.name.isdecimal() and each.is_dir()]
        for number in sorted({0, *numbers}):
            if number < current:
                self.forget(self._pair(number))

    def _pair(self, number: int) -> Pair:
        return Pair(number, self._folder / str(number) if number else self._folder)
