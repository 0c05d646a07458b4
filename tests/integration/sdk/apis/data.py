"""S3, DynamoDB and Elasticsearch."""

import json
import re

from tests.integration.sdk.stand_in import Asked, answer

_OBJECTS: dict[str, bytes] = {}


def s3(asked: Asked) -> bytes:
    """One bucket: objects by the path as it was sent, and a list of them."""
    if asked.path.count("/") == 1:
        return _listing(asked)
    if asked.method == "PUT":
        _OBJECTS[asked.path] = _content(asked)
        return answer(b"", 200, (b"ETag", b'"1"'), kind=b"application/xml")
    return answer(_OBJECTS[asked.path], 200, (b"ETag", b'"1"'), kind=b"binary/octet-stream")


def _content(asked: Asked) -> bytes:
    """The object: of a body in AWS's own chunks, what is in them."""
    if "aws-chunked" not in asked.field(b"content-encoding"):
        return asked.sent.body
    return b"".join(re.findall(rb"[0-9a-f]+\r\n(.+?)\r\n(?=[0-9a-f]+\r\n)", asked.sent.body, re.DOTALL))


def _listing(asked: Asked) -> bytes:
    number = int(asked.query.get("continuation-token", "1"))
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{number + 1}</NextContinuationToken>"
    listed = f"<Contents><Key>k{number}</Key><Size>1</Size></Contents>{more if number < 3 else ''}"
    return answer(f"<ListBucketResult><Name>b</Name>{listed}</ListBucketResult>".encode(), kind=b"application/xml")


def dynamodb(asked: Asked) -> bytes:
    """One item, whatever its key."""
    content = (
        b"{}" if asked.field(b"x-amz-target").endswith(".PutItem") else json.dumps({"Item": {"k": {"S": "v"}}}).encode()
    )
    return answer(content, kind=b"application/x-amz-json-1.0")


def elasticsearch(asked: Asked) -> bytes:
    """The product's own mark on every answer, without which the client refuses to work."""
    mark = (b"X-Elastic-Product", b"Elasticsearch")
    match asked.method, asked.path:
        case "GET", "/":
            found: object = {"name": "n", "cluster_name": "c", "version": {"number": "9.0.0"}, "tagline": "t"}
        case "PUT", "/books/_doc/a%2Fb":
            found = {"_id": "a/b", "result": "created"}
        case "POST", "/books/_search":
            found = {"hits": {"total": {"value": 1}, "hits": [{"_id": "a/b", "_source": asked.json["query"]}]}}
        case "POST" | "PUT", "/_bulk":
            lines = asked.sent.body.decode().splitlines()
            items = [{"index": {"_id": json.loads(line)["index"]["_id"], "status": 201}} for line in lines[::2]]
            found = {"errors": False, "items": items}
        case _:
            return answer({"error": {"type": "resource_not_found_exception"}, "status": 404}, 404, mark)
    return answer(found, 200, mark)
