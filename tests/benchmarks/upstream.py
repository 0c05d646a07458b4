"""The upstream: one nginx worker on loopback that answers whoever brings the credential, and a service beside it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.benchmarks.processes import free_port, running
from tests.benchmarks.scenario import BODIES, JSON, UPSTREAM_TOKEN

ADDRESSES = 1000

# Keep-alive never ends during a run: reconnecting would be measured as a cost of the proxy.
# Without the injected credential the answer is a 401, which counts as a failure.
CONFIGURATION = """
{user}
worker_processes 1;
worker_rlimit_nofile 16384;
pid nginx.pid;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=100;
    default_type application/octet-stream;
    ssl_certificate server.pem;
    ssl_certificate_key server.pem;
    server {{
        {listen}
        root {directory}/files;
        location / {{
            if ($http_authorization != "Bearer {token}") {{ return 401; }}
        }}
        location = /json {{
            default_type application/json;
            if ($http_authorization != "Bearer {token}") {{ return 401; }}
            return 200 '{payload}';
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the upstreams listen.

    Attributes:
        authority: The file with the certificate authority that has signed for the one on https.
    """

    plain_port: int
    tls_port: int
    service_port: int
    authority: Path

    def base_url(self, kind: str, number: int) -> str:
        """Return the base URL of the connection of this number; `kind` is one of `workloads.Upstreams`."""
        if kind == "addresses":
            return f"http://{address(number)}:{self.plain_port}"
        if kind == "tls":
            return f"https://127.0.0.1:{self.tls_port}"
        return f"http://127.0.0.1:{self.service_port if kind == 'service' else self.plain_port}"


def address(number: int) -> str:
    """Return one of the `ADDRESSES` loopback addresses: to a proxy, each is an origin of its own."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


@contextmanager
def upstreams(directory: Path, core: int) -> Iterator[Upstream]:
    """Run nginx and the service on one core, with their files in `directory`."""
    ports = Upstream(free_port(), free_port(), free_port(), directory / "authority.pem")
    directory.mkdir()
    _write_certificate(directory, ports.authority)
    _write_files(directory / "files")
    configuration = directory / "upstream.conf"
    configuration.write_text(_configuration(directory, ports))
    nginx = ["nginx", "-c", str(configuration), "-p", str(directory), "-e", "stderr", "-g", "daemon off;"]
    service = [sys.executable, "-m", "tests.benchmarks.service", str(ports.service_port)]
    with (
        running(nginx, port=ports.plain_port, core=core, log=directory / "upstream.log", environment={}),
        running(service, port=ports.service_port, core=core, log=directory / "service.log", environment={}),
    ):
        yield ports


def nginx_user() -> str:
    """Return the line without which nginx, started by root, would give up the right to read what is in `directory`."""
    return "user root;" if os.geteuid() == 0 else ""


def _configuration(directory: Path, ports: Upstream) -> str:
    listen = [f"listen 127.0.0.1:{ports.plain_port} backlog=4096;", f"listen 127.0.0.1:{ports.tls_port} ssl;"]
    listen += [f"listen {address(number)}:{ports.plain_port};" for number in range(ADDRESSES)]
    return CONFIGURATION.format(
        user=nginx_user(), listen="\n".join(listen), directory=directory, token=UPSTREAM_TOKEN, payload=JSON.decode()
    )


def _write_certificate(directory: Path, authority: Path) -> None:
    maker = trustme.CA()
    maker.cert_pem.write_to_path(authority)
    maker.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")


def _write_files(directory: Path) -> None:
    directory.mkdir()
    for path, (piece, times) in BODIES.items():
        with (directory / path.lstrip("/")).open("wb") as file:
            for _ in range(times):
                file.write(piece)
