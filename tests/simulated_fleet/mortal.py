"""A process that is killed and started again, and says in its log when it is up."""

from __future__ import annotations

import signal

from edgewright_controller.demo.children import Child, Children, DemoError


class Mortal:
    """`python -m module arguments`, which writes `sign` into its log when it is up. Its log is one, over all lives."""

    def __init__(self, children: Children, name: str, module: str, arguments: tuple[str, ...], sign: str) -> None:
        self.name = name
        self._children, self._module, self._arguments, self._sign = children, module, arguments, sign.encode()
        self._said = 0  # bytes of its log, before this life

    def start(self) -> None:
        """Begin its first life."""
        self._children.start(self.name, self._module, *self._arguments)

    def kill(self) -> bool:
        """SIGKILL."""
        self._child.kill()
        return True

    def start_again(self) -> None:
        """Begin another life, with the same command."""
        self._said = self._child.log.stat().st_size
        self._children.start_again(self.name)

    def up(self) -> bool:
        """Whether it has said so in this life. Raises DemoError when it ended by itself."""
        if self._child.ended() not in (None, -signal.SIGKILL):
            raise DemoError(f"{self.name} ended with status {self._child.ended()}:\n{self._child.last_words()}")
        with self._child.log.open("rb") as log:
            log.seek(self._said)
            return self._sign in log.read()

    def wait_until_up(self) -> None:
        """Raises DemoError when it ends before, or takes two minutes."""
        self._children.wait_for(self._child, self.up, "being up")

    @property
    def _child(self) -> Child:
        return self._children.named(self.name)
