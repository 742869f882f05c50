"""The whole of what an engine answered, up to a bound."""

from __future__ import annotations

import aiohttp


async def body(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, or its first `most` bytes. It may come in many pieces. Raises aiohttp.ClientError."""
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) >= most:
            break
    return bytes(data[:most])
