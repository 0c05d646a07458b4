"""OpenAI, Stripe and Slack."""

import json

from tests.integration.sdk.stand_in import Asked, answer
from tests.upstreams import Exchange

PARTS = ("one ", "chunk ", "at a time")


def openai(asked: Asked) -> bytes:
    """Chat completions, at once and as a stream, and files."""
    match asked.method, asked.path:
        case "POST", "/chat/completions" if asked.json.get("stream"):
            return _stream(asked.exchange)
        case "POST", "/chat/completions":
            said = asked.json["messages"][-1]["content"]
            return answer(
                {
                    "id": "chat-1",
                    "object": "chat.completion",
                    "created": 1,
                    "model": asked.json["model"],
                    "choices": [
                        {
                            "index": 0,
                            "finish_reason": "stop",
                            "message": {"role": "assistant", "content": f"you said {said}"},
                        }
                    ],
                }
            )
        case "POST", "/files":
            size = len(asked.sent.body)
            return answer(
                {"id": "file-1", "object": "file", "bytes": size, "created_at": 1, "filename": "a", "purpose": "batch"}
            )
        case "GET", "/files/file-1/content":
            return answer(bytes(range(256)) * 1000, kind=b"application/octet-stream")
    return answer({"error": {"message": "no such model", "code": "model_not_found"}}, 404)


def _stream(exchange: Exchange) -> bytes:
    """Server-sent events, one by one; the last is left to be sent."""
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for part in PARTS:
        chunk = {
            "id": "chat-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "delta": {"content": part}, "finish_reason": None}],
        }
        event = f"data: {json.dumps(chunk)}\n\n".encode()
        exchange.send(b"%x\r\n%b\r\n" % (len(event), event))
    return b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def stripe(asked: Asked) -> bytes:
    """Customers: made from a form, and listed one a page."""
    if asked.method == "POST" and asked.path == "/v1/customers":
        return answer({"id": "cus_1", "object": "customer", "email": asked.form["email"]})
    if asked.method == "GET" and asked.path == "/v1/customers":
        number = int(asked.query.get("starting_after", "cus_0").removeprefix("cus_")) + 1
        page = [{"id": f"cus_{number}", "object": "customer"}]
        return answer({"object": "list", "url": "/v1/customers", "has_more": number < 3, "data": page})
    return answer({"error": {"type": "invalid_request_error", "message": "No such customer"}}, 404)


def stripe_files(asked: Asked) -> bytes:
    """Stripe's host for files."""
    return answer({"id": "file_1", "object": "file", "size": len(asked.sent.body)})


def slack(asked: Asked) -> bytes:
    """Messages, and conversations one a page."""
    if asked.path == "/chat.postMessage":
        return answer({"ok": True, "channel": "C1", "message": {"text": asked.json["text"]}})
    if asked.path == "/conversations.list":
        number = int(asked.query.get("cursor") or asked.form.get("cursor") or 1)
        following = str(number + 1) if number < 3 else ""
        return answer({"ok": True, "channels": [{"id": f"C{number}"}], "response_metadata": {"next_cursor": following}})
    return answer({"ok": False, "error": "unknown_method"})
