"""The whole of proxy_middleware on one screen, offline, on loopback.

Two servers run in this process: a stand-in for a third-party CRM, whose access tokens expire, and a FastAPI application
with the proxy mounted. The calls below go caller -> FastAPI application -> CRM; what each of them saw is printed and
checked.

    python examples/quickstart.py             run, check, exit
    python examples/quickstart.py --serve     keep it up afterwards, to try it with curl
"""

import argparse
import asyncio
import contextlib
import json
import secrets
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from proxy_middleware import (
    ASGIProxyMiddleware,
    Connection,
    Credential,
    EgressPolicy,
    StaticResolver,
    bearer_tokens,
)

CALLER_TOKEN = "alice-token"  # how a caller identifies itself to the FastAPI application; the CRM never sees it
REFRESH_TOKEN = "acme-refresh-token"  # what the user once granted; only the credential provider sees it
TOKEN_LIFETIME = 15.0  # seconds; the CRM does not announce it, so the proxy learns of the end from a 401
EVENT_INTERVAL = 0.4  # seconds between two events of the stream
OWNERS = {"owners": ["Ada", "Grace"]}


# --- the host application: this part is what you would write ----------------------------------------------------------


class CRMTokens:
    """A credential provider: gets access tokens from the CRM's token endpoint, and keeps the last one."""

    def __init__(self, token_url: str) -> None:
        self._token_url = token_url
        self._current: dict[str, Credential] = {}

    async def obtain(self, connection: Connection) -> Credential:
        """Gives the connection's credential; called before a request is forwarded."""
        return self._current.get(connection.id) or await self._new_token(connection)

    async def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """Gives a newer credential; called once when the CRM answered 401."""
        return await self._new_token(connection)

    async def _new_token(self, connection: Connection) -> Credential:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(self._token_url, json={"refresh_token": REFRESH_TOKEN})
        token = answer.raise_for_status().json()["access_token"]
        self._current[connection.id] = Credential.bearer(token)
        return self._current[connection.id]


def host_application(crm_url: str) -> FastAPI:
    """An ordinary FastAPI application with the proxy mounted under /connections."""
    app = FastAPI()
    app.add_middleware(
        ASGIProxyMiddleware,
        resolver=StaticResolver([Connection("acme-crm", f"{crm_url}/crm/v3", integration_key="crm")]),
        credentials=CRMTokens(f"{crm_url}/oauth/token"),
        authenticate=bearer_tokens({CALLER_TOKEN: "alice"}),
        egress=EgressPolicy(allow=("127.0.0.0/8",)),  # only because this CRM is on loopback
    )
    return app


# --- the stand-in CRM -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """A request as the CRM received it, and how it answered."""

    method: str
    target: str
    fields: dict[str, str]
    status: int

    @property
    def authorization(self) -> str:
        """The Authorization field with all but the end of the token masked."""
        scheme, _, token = self.fields.get("authorization", "").partition(" ")
        return f"{scheme} ********{token[-4:]}" if token else ""


class CRM:
    """A third-party API that wants bearer tokens, and lets them expire."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.sent_at: list[float] = []
        self._clock_ahead = 0.0
        self._expiry: dict[str, float] = {}
        routes = [
            Route("/oauth/token", self._token, methods=["POST"]),
            Route("/crm/v3/owners", self._owners),
            Route("/crm/v3/changes", self._changes),
            Route("/files/report.csv", self._report),
        ]
        self.app = Starlette(routes=routes)

    def take_requests(self) -> list[Seen]:
        """What came in since the last call."""
        taken, self.requests = self.requests, []
        return taken

    def let_tokens_expire(self) -> None:
        """Puts the CRM's clock ahead by one token lifetime."""
        self._clock_ahead += TOKEN_LIFETIME

    def _now(self) -> float:
        return time.monotonic() + self._clock_ahead

    async def _token(self, request: Request) -> Response:
        if (await request.json()).get("refresh_token") != REFRESH_TOKEN:
            return self._record(request, JSONResponse({"message": "unknown refresh token"}, 400))
        token = f"crm-{secrets.token_hex(16)}"
        self._expiry[token] = self._now() + TOKEN_LIFETIME
        return self._record(request, JSONResponse({"access_token": token}))

    async def _owners(self, request: Request) -> Response:
        return self._protected(request, JSONResponse(OWNERS))

    async def _report(self, request: Request) -> Response:
        return self._protected(request, PlainTextResponse("owner,deals\nAda,3\n", media_type="text/csv"))

    async def _changes(self, request: Request) -> Response:
        return self._protected(request, StreamingResponse(self._events(), media_type="text/event-stream"))

    async def _events(self) -> AsyncIterator[str]:
        self.sent_at.clear()
        for number in range(1, 5):
            self.sent_at.append(time.monotonic())
            yield f"data: change {number}\n\n"
            await asyncio.sleep(EVENT_INTERVAL)

    def _protected(self, request: Request, response: Response) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._expiry.get(token, 0.0) <= self._now():
            response = JSONResponse({"message": "the access token is unknown or has expired"}, 401)
        return self._record(request, response)

    def _record(self, request: Request, response: Response) -> Response:
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self.requests.append(Seen(request.method, target, dict(request.headers), response.status_code))
        return response


# --- the calls --------------------------------------------------------------------------------------------------------


def plain_call(client: httpx.Client, crm: CRM) -> None:
    """One GET: base URL put in front, fields passed on, the caller's identity replaced by the CRM's credential."""
    title(1, "What the caller sends, and what the CRM gets (credential masked)")
    response = client.get("/connections/crm/proxy/owners?limit=2", headers={"X-Request-Id": "42", "X-Team": "sales"})
    requests = crm.take_requests()
    expect("requests at the CRM", [r.target for r in requests], ["/oauth/token", "/crm/v3/owners?limit=2"])
    sent, seen = response.request.headers, requests[-1]
    two_columns(f"GET {target_of(response)}", f"GET {seen.target}")
    for name, value in sent.items():
        masked = seen.authorization if name == "authorization" else seen.fields.get(name)
        two_columns(f"{name}: {value}", f"{name}: {masked}" if masked else "(dropped)")
    show_answer(response)
    expect("fields at the CRM", sorted(seen.fields), sorted(set(sent) - {"connection", "x-request-id"}))
    expect("answer", response.json(), OWNERS)


def expired_call(client: httpx.Client, crm: CRM) -> None:
    """The token expires between two calls; the second call succeeds all the same."""
    title(2, "The CRM's token expires; the caller does not notice")
    crm.let_tokens_expire()
    response = client.get("/connections/crm/proxy/owners")
    requests = crm.take_requests()
    show_call(response)
    show_requests(requests)
    show_answer(response)
    expect("answers of the CRM", [r.status for r in requests], [401, 200, 200])
    expect("answer", (response.status_code, response.json()), (200, OWNERS))


def streamed_call(client: httpx.Client, crm: CRM) -> None:
    """Server-sent events: each one is passed on when it comes."""
    title(3, "A streamed response arrives piece by piece")
    events: list[tuple[str, float]] = []
    with client.stream("GET", "/connections/crm/proxy/changes") as response:
        show_call(response)
        events.extend((line, time.monotonic()) for line in response.iter_lines() if line)
    show_requests(crm.take_requests())
    start = crm.sent_at[0]
    for (line, arrived), sent in zip(events, crm.sent_at, strict=True):
        print(f"   answer   {line}   sent at {sent - start:.3f} s, received at {arrived - start:.3f} s")
    expect("events", [line for line, _ in events], [f"data: change {number}" for number in range(1, 5)])
    expect("first event arrives before the last is sent", events[0][1] < crm.sent_at[-1], True)


def full_url_call(client: httpx.Client, crm: CRM, crm_url: str) -> None:
    """A full URL in place of a path: the base URL is not used, its origin still has to be allowed."""
    title(4, "A full URL instead of a path")
    response = client.get(f"/connections/crm/proxy/{crm_url}/files/report.csv")
    requests = crm.take_requests()
    show_call(response)
    show_requests(requests)
    show_answer(response)
    expect("targets at the CRM", [r.target for r in requests], ["/files/report.csv"])
    expect("answer", (response.status_code, response.text), (200, "owner,deals\nAda,3\n"))


def refused_call(client: httpx.Client, crm: CRM) -> None:
    """A full URL of somebody else: the credential goes nowhere but to the connection's own origins."""
    title(5, "A foreign origin is refused")
    response = client.get("/connections/crm/proxy/https://elsewhere.example/collect")
    show_call(response)
    expect("answer", (response.status_code, response.headers["content-type"]), (403, "application/problem+json"))
    show_problem(response)
    expect("key", response.json()["key"], "access_denied")
    expect("requests at the CRM", crm.take_requests(), [])


# --- showing and checking ---------------------------------------------------------------------------------------------


def title(number: int, text: str) -> None:
    """A heading."""
    print(f"\n{number}  {text}\n")


def two_columns(left: str, right: str) -> None:
    """A line of the comparison: the caller's side, the CRM's side."""
    print(f"   {left:<46}{right}")


def show_call(response: httpx.Response) -> None:
    """What the caller asked for."""
    print(f"   caller   {response.request.method:<4} {target_of(response)}")


def show_requests(requests: list[Seen]) -> None:
    """What the CRM got, and how it answered."""
    for seen in requests:
        print(f"   CRM got  {seen.method:<4} {seen.target:<18} {seen.authorization:<20} -> {seen.status}", flush=True)


def show_answer(response: httpx.Response) -> None:
    """What came back to the caller."""
    body = (
        json.dumps(response.json()) if response.headers["content-type"] == "application/json" else repr(response.text)
    )
    print(f"   answer   {response.status_code}  {body}")


def show_problem(response: httpx.Response) -> None:
    """An answer of the proxy's own."""
    print(f"   answer   {response.status_code}  {response.headers['content-type']}")
    print(f"            proxy-status  {response.headers['proxy-status']}")
    for member in ("type", "key", "detail"):
        print(f"            {member:<12}  {response.json()[member]}")


def target_of(response: httpx.Response) -> str:
    """The request target, as the caller sent it."""
    return response.request.url.raw_path.decode()


def expect(what: str, got: object, wanted: object) -> None:
    """Ends the program with a message when something is not as it should be."""
    if got != wanted:
        sys.exit(f"quickstart failed: {what}: expected {wanted!r}, got {got!r}")


@contextlib.contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serves an application on a free loopback port, in a thread of its own; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def keep_serving(crm: CRM, host_url: str, crm_url: str) -> None:
    """Prints commands to try, then what the CRM gets, until Ctrl-C."""
    print(f"\nTo try by hand (tokens expire after {TOKEN_LIFETIME:.0f} s; Ctrl-C ends it):\n")
    for target in ("owners", "changes", f"{crm_url}/files/report.csv", "https://elsewhere.example/collect"):
        print(f"   curl -iN -H 'Authorization: Bearer {CALLER_TOKEN}' {host_url}/connections/crm/proxy/{target}")
    print(flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            show_requests(crm.take_requests())
            time.sleep(0.1)


def main() -> None:
    """Runs both servers, makes the calls, and checks what was seen."""
    parser = argparse.ArgumentParser(description="proxy_middleware, offline, on loopback")
    parser.add_argument("--serve", action="store_true", help="keep the servers up afterwards and print curl commands")
    arguments = parser.parse_args()
    crm = CRM()
    identity = {"Authorization": f"Bearer {CALLER_TOKEN}"}
    with serving(crm.app) as crm_url, serving(host_application(crm_url)) as host_url:
        # trust_env=False: a proxy named in the environment has no business on loopback.
        with httpx.Client(base_url=host_url, headers=identity, trust_env=False) as client:
            plain_call(client, crm)
            expired_call(client, crm)
            streamed_call(client, crm)
            full_url_call(client, crm, crm_url)
            refused_call(client, crm)
        print("\nEverything was as expected.")
        if arguments.serve:
            keep_serving(crm, host_url, crm_url)


if __name__ == "__main__":
    main()
