"""boto3 and elasticsearch."""

import io
from typing import Any

import httpx
import pytest

from tests.integration.sdk.conftest import SDK
from tests.integration.sdk.stand_in import CALLER_TOKEN, StandIn

BOTH = pytest.mark.parametrize("door", ["uvicorn", "werkzeug"])
KEY = "a folder/\u00fc+%2F~.txt"


@BOTH
def test_s3_objects(sdk: SDK, apis: StandIn) -> None:
    """An object goes and comes byte for byte under a key of all sorts, signed anew with the stored keys."""
    s3 = sdk("boto3")["client"]("s3")
    content = bytes(range(256)) * 1000
    s3.put_object(Bucket="reports", Key=KEY, Body=content)
    assert s3.get_object(Bucket="reports", Key=KEY)["Body"].read() == content
    assert apis.asked[0].path == "/reports/a%20folder/%C3%BC%2B%252F~.txt"


def test_s3_chunks(sdk: SDK, apis: StandIn, url: str) -> None:
    """Over TLS boto3 uploads in chunks of its own, with a checksum behind them, which pass as they come."""

    def without_tls(request: Any, **_: object) -> None:
        request.url = url + request.url.partition("example.com")[2]

    s3 = sdk("boto3", "https://app.example.com")["client"]("s3")
    s3.meta.events.register("before-send", without_tls)
    s3.put_object(Bucket="reports", Key=KEY, Body=io.BytesIO(b"content" * 30_000))
    assert apis.asked[0].field(b"x-amz-content-sha256") == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    assert b"x-amz-checksum-crc32:" in apis.asked[0].sent.body
    assert s3.get_object(Bucket="reports", Key=KEY)["Body"].read() == b"content" * 30_000


def test_s3_presigned_urls(sdk: SDK, url: str) -> None:
    """A URL that boto3 signs itself is refused, as it bears the signature of keys that are none."""
    presigned = sdk("boto3")["client"]("s3").generate_presigned_url("get_object", {"Bucket": "reports", "Key": KEY})
    assert presigned.startswith(f"{url}/connections/s3/proxy/reports/")
    answer = httpx.get(presigned, headers={"Authorization": f"Bearer {CALLER_TOKEN}"}, trust_env=False)
    assert (answer.status_code, answer.json()["key"]) == (400, "invalid_request")


def test_s3_managed_upload(sdk: SDK) -> None:
    """A file object is uploaded and downloaded."""
    s3 = sdk("boto3")["client"]("s3")
    s3.upload_fileobj(io.BytesIO(b"content" * 100), "reports", "file")
    into = io.BytesIO()
    s3.download_fileobj("reports", "file", into)
    assert into.getvalue() == b"content" * 100


def test_s3_pages(sdk: SDK) -> None:
    """Listings are paged through by their tokens."""
    pages = sdk("boto3")["client"]("s3").get_paginator("list_objects_v2").paginate(Bucket="reports")
    assert [one["Key"] for page in pages for one in page["Contents"]] == ["k1", "k2", "k3"]


@BOTH
def test_dynamodb(sdk: SDK) -> None:
    """DynamoDB's requests, which all go to the same path, are signed with their bodies."""
    dynamodb = sdk("boto3")["client"]("dynamodb")
    dynamodb.put_item(TableName="t", Item={"k": {"S": "v"}})
    assert dynamodb.get_item(TableName="t", Key={"k": {"S": "v"}})["Item"] == {"k": {"S": "v"}}


def test_elasticsearch(sdk: SDK) -> None:
    """The client recognises the product, and indexes, searches and loads in bulk."""
    names = sdk("elasticsearch")
    with names["client"] as client:
        assert client.info()["version"]["number"] == "9.0.0"
        assert client.index(index="books", id="a/b", document={"t": 1})["result"] == "created"
        assert client.search(index="books", query={"match_all": {}})["hits"]["hits"][0]["_id"] == "a/b"
        loaded = client.bulk(operations=[{"index": {"_index": "books", "_id": "1"}}, {"t": 1}])
        assert loaded["items"][0]["index"]["status"] == 201
        with pytest.raises(names["elasticsearch"].NotFoundError):
            client.get(index="books", id="none")
