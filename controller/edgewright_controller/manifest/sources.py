"""How a manifest names where a model comes from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from edgewright_controller.compile.sources import reference


def _names_a_source(value: str) -> str:
    try:
        reference.parse(value)
    except reference.NoReference as error:
        raise PydanticCustomError("source", "{text}", {"text": str(error)}) from error
    return value


SourceText = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_names_a_source)]


def below(folder: Path, source: str) -> str:
    """The source with a path from `folder` on, where it is a path; anything else as it is."""
    return os.path.normpath(folder / source) if reference.is_local(source) else source
