"""openai, stripe and slack_sdk."""

import io
from typing import Any

import pytest

from tests.integration.sdk.apis.services import PARTS
from tests.integration.sdk.conftest import SDK
from tests.integration.sdk.stand_in import StandIn

MESSAGES = [{"role": "user", "content": "hello, \u4e16\u754c"}]
BOTH = pytest.mark.parametrize("door", ["uvicorn", "werkzeug"])


@BOTH
def test_openai_completion(sdk: SDK) -> None:
    """A completion comes as a model of the SDK's own."""
    with sdk("openai")["client"] as client:
        found = client.chat.completions.create(model="m", messages=MESSAGES)
    assert (found.model, found.choices[0].message.content) == ("m", "you said hello, \u4e16\u754c")


@BOTH
def test_openai_stream(sdk: SDK) -> None:
    """A streamed completion comes event by event."""
    with sdk("openai")["client"] as client:
        events = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert [event.choices[0].delta.content for event in events] == list(PARTS)


@BOTH
def test_openai_files(sdk: SDK, apis: StandIn) -> None:
    """A file is uploaded as a form, byte for byte, and downloaded."""
    content = bytes(range(256)) * 1000
    with sdk("openai")["client"] as client:
        sent = client.files.create(file=("a.jsonl", content), purpose="batch")
        assert client.files.content("file-1").read() == content
    assert sent.bytes == len(apis.asked[0].sent.body)
    assert content in apis.asked[0].sent.body
    assert apis.asked[0].field(b"content-type").startswith("multipart/form-data; boundary=")


def test_openai_errors(sdk: SDK, url: str) -> None:
    """The API's errors and the proxy's own are the SDK's errors."""
    names = sdk("openai")
    openai = names["openai"]
    with names["client"] as client:
        with pytest.raises(openai.NotFoundError, match="no such model"):
            client.models.retrieve("unknown")
        with client.with_options(api_key="nobody") as nobody, pytest.raises(openai.AuthenticationError) as refused:
            nobody.models.list()
    assert refused.value.body["key"] == "not_authenticated"


def test_openai_in_asyncio(sdk: SDK, url: str) -> None:
    """The asynchronous client takes the same arguments."""
    import anyio

    names = sdk("openai")
    kept = names["client"]

    async def complete() -> Any:
        async with names["openai"].AsyncOpenAI(base_url=kept.base_url, api_key=kept.api_key) as client:
            return await client.chat.completions.create(model="m", messages=MESSAGES)

    assert anyio.run(complete).model == "m"
    kept.close()


def test_stripe(sdk: SDK, apis: StandIn) -> None:
    """A customer is made once, by its idempotency key, and customers are paged through."""
    client = sdk("stripe")["client"]
    made = client.v1.customers.create({"email": "a+b@example.com"}, {"idempotency_key": "key-1"})
    assert (made.id, made.email) == ("cus_1", "a+b@example.com")
    assert apis.asked[0].field(b"idempotency-key") == "key-1"
    assert [one.id for one in client.v1.customers.list().auto_paging_iter()] == ["cus_1", "cus_2", "cus_3"]


def test_stripe_files(sdk: SDK, apis: StandIn) -> None:
    """A file goes to the second host, which is named by its full URL."""
    content = bytes(range(256)) * 100
    made = sdk("stripe")["client"].v1.files.create({"purpose": "dispute_evidence", "file": io.BytesIO(content)})
    (asked,) = apis.asked
    assert (asked.url, asked.path) == (f"{apis.url}/files.stripe.com", "/v1/files")
    assert made.size == len(asked.sent.body)
    assert content in asked.sent.body


def test_slack(sdk: SDK) -> None:
    """A message is sent, and conversations are paged through by their cursors."""
    client = sdk("slack_sdk")["client"]
    sent = client.chat_postMessage(channel="C1", text="hello, \u4e16\u754c")
    assert sent["message"]["text"] == "hello, \u4e16\u754c"
    pages = [page["channels"][0]["id"] for page in client.conversations_list(limit=1)]
    assert pages == ["C1", "C2", "C3"]
