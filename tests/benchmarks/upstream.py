"""The upstream: one nginx worker on loopback that answers the payload to whoever brings the credential."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.processes import free_port, running
from tests.benchmarks.scenario import CONTENT_TYPE, PAYLOAD, UPSTREAM_PATH, UPSTREAM_TOKEN

# Keep-alive never ends during a run: reconnecting would be measured as a cost of the proxy.
# Without the injected credential the answer is a 401, which counts as a failure.
CONFIGURATION = """
worker_processes 1;
pid nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location = {path} {{
            default_type {content_type};
            if ($http_authorization != "Bearer {token}") {{ return 401; }}
            return 200 '{payload}';
        }}
    }}
}}
"""


@contextmanager
def nginx(directory: Path, core: int) -> Iterator[str]:
    """Run nginx in `directory` on one core; gives its base URL."""
    port = free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(
        CONFIGURATION.format(
            port=port, path=UPSTREAM_PATH, content_type=CONTENT_TYPE, token=UPSTREAM_TOKEN, payload=PAYLOAD.decode()
        )
    )
    command = ["nginx", "-c", str(configuration), "-p", str(directory), "-e", "stderr", "-g", "daemon off;"]
    with running(command, port=port, core=core, log=directory / "nginx.log", environment={}):
        yield f"http://127.0.0.1:{port}"
