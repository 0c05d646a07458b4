"""The targets that are not written in Python: built, installed or configured, and their commands."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.processes import BenchmarkError
from tests.benchmarks.scenario import CALLER_TOKEN, UPSTREAM_TOKEN, Settings
from tests.benchmarks.upstream import nginx_user

PEERS = Path(__file__).with_name("peers")
CACHE_VARIABLE = "XDG_CACHE_HOME"

NGINX = """
{user}
worker_processes 1;
worker_rlimit_nofile 16384;
pid nginx-target.pid;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_temp_path target-body;
    proxy_temp_path target-proxy;
    fastcgi_temp_path target-fastcgi;
    uwsgi_temp_path target-uwsgi;
    scgi_temp_path target-scgi;
    proxy_http_version 1.1;
    proxy_request_buffering off;
    proxy_max_temp_file_size 0;
    proxy_ssl_verify on;
    proxy_ssl_name localhost;
    proxy_ssl_trusted_certificate {authority};
    proxy_ssl_protocols TLSv1.2 TLSv1.3;
    {upstreams}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        if ($http_authorization != "Bearer {caller}") {{ return 401; }}
        {locations}
    }}
}}
"""
NGINX_UPSTREAM = "upstream {name} {{ server {address}; keepalive {kept}; keepalive_requests 1000000000; }}"
# Only streams of events do without buffering, as Go's ReverseProxy flushes only these at once.
NGINX_LOCATION = """
        location {prefix} {{
            proxy_pass {scheme}://{name}/;
            proxy_set_header Host {address};
            proxy_set_header Connection "";
            proxy_set_header Authorization "Bearer {token}";
        }}
        location {prefix}events {{
            proxy_pass {scheme}://{name}/events;
            proxy_set_header Host {address};
            proxy_set_header Connection "";
            proxy_set_header Authorization "Bearer {token}";
            proxy_buffering off;
        }}"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a target may write, where its settings are, and on which port of 127.0.0.1 it has to listen."""

    directory: Path
    settings: Path
    port: int


def go(place: Place) -> Sequence[str]:
    """Build Go's `httputil.ReverseProxy` once."""
    binary = place.directory.parent / "reverse_proxy"
    if not binary.exists():
        _run(["go", "build", "-o", str(binary), str(PEERS / "reverse_proxy.go")], place.directory)
    return [str(binary), f"127.0.0.1:{place.port}", str(place.settings), CALLER_TOKEN, UPSTREAM_TOKEN]


def nginx(place: Place) -> Sequence[str]:
    """Configure nginx: a `location` and an `upstream` with kept connections for each connection."""
    settings = Settings.load(place.settings)
    # nginx sets the room for all of them aside at once.
    kept = 1000 if len(settings.connections) == 1 else 8
    upstreams, locations = [], []
    for name, url in settings.connections.items():
        scheme, _, address = url.partition("://")
        prefix = f"/connections/{name}/proxy/"
        upstreams.append(NGINX_UPSTREAM.format(name=name, address=address, kept=kept))
        locations.append(
            NGINX_LOCATION.format(prefix=prefix, scheme=scheme, name=name, address=address, token=UPSTREAM_TOKEN)
        )
    configuration = place.directory / "nginx-target.conf"
    configuration.write_text(
        NGINX.format(
            user=nginx_user(),
            authority=settings.authority,
            upstreams="\n    ".join(upstreams),
            port=place.port,
            caller=CALLER_TOKEN,
            locations="".join(locations),
        )
    )
    directory = str(place.directory)
    return ["nginx", "-c", str(configuration), "-p", directory, "-e", "stderr", "-g", "daemon off;"]


def fastify(place: Place) -> Sequence[str]:
    """Install @fastify/http-proxy once, into the user's cache."""
    cache = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache") / "proxy_middleware-benchmarks"
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("fastify_proxy.js", "package.json"):
        shutil.copy(PEERS / name, cache)
    if not (cache / "node_modules" / "@fastify" / "http-proxy").exists():
        _run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], cache)
    return ["node", str(cache / "fastify_proxy.js"), str(place.port), str(place.settings), CALLER_TOKEN, UPSTREAM_TOKEN]


def _run(command: Sequence[str], directory: Path) -> None:
    run = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if run.returncode:
        raise BenchmarkError(f"{command[0]} failed:\n{run.stderr[-2000:]}")
