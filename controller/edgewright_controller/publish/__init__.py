"""The image repository: what may exist, signed. `image` is its face; `keys`, `roots` and `builder_signer` stand behind.

An artifact is signed by the delegated role `builder`, whose key only the signer's own process reads.
"""

from edgewright_controller.publish.errors import PublishError
from edgewright_controller.publish.image import ImageRepository

__all__ = ["ImageRepository", "PublishError"]
