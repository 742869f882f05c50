"""The same work by the standard library: one file over HTTPS with client certificates, hashed, written, synced.

Given, as JSON, in its argument: `host`, `port`, `path`, `sha256`, `size`, `device` (its PEM files), `file` (where to).
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import ssl
import sys
import time
from pathlib import Path

from tests.delivery_load.peak import peak_rss_mb


def main() -> None:
    """Fetch, and print seconds, seconds of processor time, and the peak of resident memory in MB."""
    given = json.loads(sys.argv[1])
    context = ssl.create_default_context(cafile=given["device"]["ca"])
    context.load_cert_chain(given["device"]["chain"], given["device"]["key"])
    began, used = time.monotonic(), time.process_time()
    connection = http.client.HTTPSConnection(given["host"], given["port"], context=context, timeout=120)
    connection.request("GET", given["path"])
    response, hashed, came = connection.getresponse(), hashlib.sha256(), 0
    buffer = memoryview(bytearray(1 << 20))
    with Path(given["file"]).open("wb", buffering=0) as file:
        while count := response.readinto(buffer):
            hashed.update(buffer[:count])
            file.write(buffer[:count])
            came += count
        os.fsync(file.fileno())
    if response.status != 200 or came != given["size"] or hashed.hexdigest() != given["sha256"]:
        raise SystemExit(f"status {response.status}, {came} bytes: not the file")
    seconds, cpu_s = time.monotonic() - began, time.process_time() - used
    rss_mb = peak_rss_mb()
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "rss_mb": rss_mb}))


if __name__ == "__main__":
    main()
