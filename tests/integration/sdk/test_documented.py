"""What else examples/SDKS.md shows."""

import re
from contextlib import closing

import pytest

from proxy_middleware import EgressPolicy, Proxy, StaticCredentials, StaticResolver, anyone
from tests.integration.sdk.documented import TEXT, block, run
from tests.integration.sdk.stand_in import CREDENTIALS, StandIn


def test_every_client_has_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connections that the clients are pointed at are those that the page sets up, each with a credential."""
    source = block("proxy_middleware")
    for name in re.findall(r"environ\[[\"'](\w+)", source):
        monkeypatch.setenv(name, "x")
    names = run(source)
    connections = names["resolver"]._by_id
    named = set(re.findall(r"/connections/(\w+)/proxy", TEXT))
    assert named | {"s3", "dynamodb"} == set(connections)
    for connection in connections.values():
        names["credentials"].select(connection)
    Proxy(resolver=names["resolver"], credentials=names["credentials"], authenticate=anyone)


def test_in_the_same_process(apis: StandIn) -> None:
    """An SDK that is built on httpx reaches the API with the stored credential, and without a server in between."""
    pytest.importorskip("openai")
    proxy = Proxy(
        resolver=StaticResolver(apis.connections()),
        credentials=StaticCredentials(CREDENTIALS),
        authenticate=anyone,
        egress=EgressPolicy(allow=("127.0.0.0/8",)),
    )
    source = block("openai", 1).replace("https://api.openai.com/v1", f"{apis.url}/openai")
    with closing(proxy), run(source, proxy=proxy)["client"] as client:
        found = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
    assert found.choices[0].message.content == "you said hello"
