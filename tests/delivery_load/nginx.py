"""nginx, the system's own or Debian's below `.tools`, serving one folder on the loopback with mutual TLS."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from edgewright_controller.demo.children import accepts, free_ports
from edgewright_controller.pki import KeyPair

_TOOLS: Final = Path(__file__).resolve().parents[2] / ".tools"

_CONFIGURATION: Final = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {chain};
    ssl_certificate_key {key};
    ssl_client_certificate {ca};
    ssl_verify_client on;
    ssl_verify_depth 3;
    ssl_protocols TLSv1.3;
    root {root};
  }}
}}
"""


class NoNginx(Exception):
    """nginx is neither here nor to be had."""


@contextmanager
def serving(root: Path, pair: KeyPair, ca: Path, folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Its port and its process while it serves the files below `root`. Raises NoNginx."""
    (port,) = free_ports(1)
    folder.mkdir()
    file = folder / "nginx.conf"
    file.write_text(_CONFIGURATION.format(folder=folder, port=port, chain=pair.chain, key=pair.key, ca=ca, root=root))
    command = [str(program()), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file)]
    # Started by root, its workers would be somebody else, who may not enter the folder.
    command += ["-g", "user root;"] if Path("/proc/self").owner() == "root" else []
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            while not accepts(port):
                if process.poll() is not None:
                    raise NoNginx(f"nginx ended with status {process.returncode}; see {folder}/error.log")
            yield port, psutil.Process(process.pid)
        finally:
            process.terminate()


def program() -> Path:
    """nginx, fetched with apt when there is none. Raises NoNginx."""
    if found := shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin"):
        return Path(found)
    home = _TOOLS / "nginx"
    if not (home / "usr/sbin/nginx").exists():
        _TOOLS.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="nginx-", dir=_TOOLS) as scratch:
            try:
                options = ["-o", "APT::Sandbox::User=root", "-qq"]
                subprocess.run(["apt-get", *options, "download", "nginx"], cwd=scratch, check=True, timeout=300)
                (package,) = Path(scratch).glob("*.deb")
                subprocess.run(["dpkg-deb", "--extract", str(package), f"{scratch}/unpacked"], check=True, timeout=60)
            except (OSError, subprocess.SubprocessError, ValueError) as error:
                raise NoNginx(f"nginx is not installed, and cannot be fetched with apt: {error}") from error
            Path(scratch, "unpacked").rename(home)
    return home / "usr/sbin/nginx"


def cpu_s(server: psutil.Process) -> float:
    """Seconds of processor time that nginx and its workers have used."""
    return sum(sum(one.cpu_times()[:2]) for one in (server, *server.children()))
