"""Manifests for simulated devices: a prebuilt file of a few bytes, so that no apply compiles anything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.model_files import gguf_of

FLEET: Final = "plant-7"

_TEXT: Final = """
[fleet]
name = "{fleet}"
[models.tiny]
source = "unused"
[profiles.box]
runtime = "gguf"
quantization = "prebuilt"
prebuilt = "{prebuilt}"
accelerator = "cpu"
memory = "8GB"
options = {{ context = {context} }}
[groups.all]
model = "tiny"
profile = "box"
devices = [{devices}]
probes = ["speaks"]
[probes.speaks]
prompt = "Say hello."
{tables}
[rollout]
{rollout}
"""


@dataclass(frozen=True)
class Wanted:
    """What a manifest says. Other `weights` are another artifact, another `context` is another release of it."""

    devices: tuple[str, ...]
    weights: str = "weights"
    context: int = 512
    rollout: dict[str, str | int] = field(default_factory=dict)

    def text(self, folder: Path) -> str:
        """The manifest; the file that it ships is written into `folder`, unless it is there."""
        file = folder / f"{self.weights}.gguf"
        if not file.exists():
            file.write_bytes(gguf_of([], [], self.weights.encode() * 100))
        return _TEXT.format(
            fleet=FLEET,
            prebuilt=file.name,
            context=self.context,
            devices=_quoted(self.devices),
            tables="\n".join(f"[devices.{device}]" for device in self.devices),
            rollout="\n".join(f"{key} = {value}" for key, value in self.rollout.items()),
        )


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
