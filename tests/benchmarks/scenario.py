"""What every target is asked and what it has to answer: one GET, authenticated, answered by 1 KB of JSON."""

PAYLOAD = b'{"data":"' + b"x" * 1013 + b'"}'
CONTENT_TYPE = "application/json"

CALLER_TOKEN = "caller-token"
UPSTREAM_TOKEN = "upstream-token"

BARE_PATH = "/bare"
UPSTREAM_PATH = "/json"
PROXY_PREFIX = "/connections/crm/proxy"
PROXIED_PATH = PROXY_PREFIX + UPSTREAM_PATH

UPSTREAM_VARIABLE = "BENCHMARK_UPSTREAM"
"""The environment variable that tells the proxied hosts where the upstream listens."""
