"""What a profile says of the quality of what is built for it: limits other than those of its class of precision."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgewright_controller.manifest.table import Table
from edgewright_controller.quality.limits import Overrides


class Quality(Table):
    """How far an artifact may be from its source, where the usual limits are not what is wanted.

    Usual limits go by the bits of a weight that the artifact was measured to have. What a toolchain gets wrong before
    anything is quantised, and tensors that are not the source's, are refused whatever stands here.
    """

    kl: Annotated[float, Field(gt=0, le=100)] | None = None
    """At most so much divergence (KL) of the next token's distribution, in nats, mean over a fixed mix of texts."""
    kl_p99: Annotated[float, Field(gt=0, le=1000)] | None = None
    """At most so much divergence in 99 of 100 places, in nats."""
    perplexity_ratio: Annotated[float, Field(ge=1, le=1000)] | None = None
    """At most so many times the source's perplexity."""
    same_top: Annotated[float, Field(ge=0, le=1)] | None = None
    """In at least this share of places the artifact's likeliest token is the source's."""
    tokens: Annotated[int, Field(ge=1, le=8192)] | None = None
    """Measure over at least so many tokens. Without it 1,024, and more while it is not clear."""
    parity_differences: Annotated[int, Field(ge=0, le=1000)] | None = None
    """So many test texts may become other tokens, or chats be rendered otherwise, than by the source; usually none."""
    allow_unproven: bool = False
    """Release it although something cannot be measured without the hardware that it is for."""

    @property
    def overrides(self) -> Overrides:
        """The same for the gate."""
        return Overrides(**self.model_dump())
