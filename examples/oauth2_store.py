"""OAuth 2 with a token store that several processes share, offline, on loopback.

This process is a stand-in for a third-party CRM. Its refresh tokens work once: one that is used a second time costs the
user's consent. The host application runs in two worker processes, which share one SQLite file. The calls below go
caller -> worker -> CRM; what the CRM saw of them is printed and checked.

    pip install -e '.[examples,oauth2,sql]'
    python examples/oauth2_store.py
"""

import argparse
import asyncio
import base64
import contextlib
import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from proxy_middleware import Connection, EgressPolicy, Limits, Proxy, StaticResolver, bearer_tokens
from proxy_middleware.asgi import ASGIProxyMiddleware
from proxy_middleware.credentials import OAuth2
from proxy_middleware.stores import SQLStore, Tokens, generate_key

CALLER_TOKEN = "alice-token"  # how a caller identifies itself to the host application; the CRM never sees it
CLIENT = ("our-application", "client-secret")  # how the host application identifies itself to the CRM
TOKEN_LIFETIME = 3600.0  # seconds, as the CRM announces; it ends access tokens earlier when told to
CREDENTIAL_TTL = 1.0  # seconds; 60 by default, here short enough to be waited for
CALLERS = 50
OWNERS = {"owners": ["Ada", "Grace"]}

# What the CRM gets.
API = "GET  /api/owners"
CODE = "POST /oauth/token  authorization_code"
REFRESH = "POST /oauth/token  refresh_token"


# --- the host application: this part is what you would write ----------------------------------------------------------


def host_application(crm_url: str, database: str, key: str) -> ASGIProxyMiddleware:
    """A FastAPI application that connects accounts, with the proxy mounted under /connections."""
    token_url = f"{crm_url}/oauth/token"
    store = SQLStore(f"sqlite:///{database}", keys=[key])
    store.create()
    proxy = Proxy(
        resolver=StaticResolver([Connection("acme-crm", f"{crm_url}/api", integration_key="crm")]),
        credentials=OAuth2(token_url, *CLIENT, store=store),
        authenticate=bearer_tokens({CALLER_TOKEN: "alice"}),
        egress=EgressPolicy(allow=("127.0.0.0/8",)),  # only because this CRM is on loopback
        limits=Limits(credential_ttl=CREDENTIAL_TTL),
    )
    app = FastAPI()

    @app.get("/callback")
    def connect(code: str) -> dict[str, str]:
        """Where the CRM sends users who have consented."""
        # A real one also checks `state` (RFC 6749 section 10.12), and connects the account of whoever is signed in.
        form = {"grant_type": "authorization_code", "code": code}
        given = httpx.post(token_url, data=form, auth=CLIENT, trust_env=False).raise_for_status().json()
        expires_at = time.time() + given["expires_in"]
        store.put("acme-crm", Tokens(given["access_token"], given["refresh_token"], expires_at))
        proxy.forget("acme-crm")
        return {"connected": "acme-crm"}

    return proxy.asgi(app)


# --- the stand-in CRM -------------------------------------------------------------------------------------------------


class CRM:
    """A third-party API, and its token endpoint, which rotates refresh tokens (RFC 9700 section 4.14.2)."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.reused = 0
        self._seen: Counter[tuple[str, int]] = Counter()
        self._codes: set[str] = set()
        self._access_token: str | None = None
        self._refresh_token: str | None = None
        self._spent: set[str] = set()
        self._together = asyncio.Barrier(1)
        routes = [Route("/oauth/token", self._token, methods=["POST"]), Route("/api/owners", self._owners)]
        self.app = Starlette(routes=routes)

    def consent(self) -> str:
        """A user's consent, as the code that the callback gets."""
        code = self._secret("code")
        self._codes.add(code)
        return code

    def let_token_expire(self, callers: int = 1) -> None:
        """Ends the access token; the next so many who come with it are told so at the same moment."""
        self._access_token, self._together = None, asyncio.Barrier(callers)

    def revoke(self) -> None:
        """Ends all that the user has consented to."""
        self.let_token_expire()
        self._refresh_token = None

    def take_seen(self) -> dict[tuple[str, int], int]:
        """What came in since the last call, with which status it was answered, and how often."""
        taken, self._seen = self._seen, Counter()
        return dict(taken)

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        granted = self._grants(request, form)
        response = JSONResponse(self._tokens()) if granted else JSONResponse({"error": "invalid_grant"}, 400)
        return self._record(f"POST /oauth/token  {form['grant_type']}", response)

    def _grants(self, request: Request, form: dict[str, str]) -> bool:
        basic = base64.b64encode(":".join(CLIENT).encode()).decode()
        if request.headers.get("authorization") != f"Basic {basic}":
            return False
        if form["grant_type"] == "authorization_code":
            return form["code"] in self._codes
        if form["refresh_token"] in self._spent:
            self.reused += 1
            self.revoke()
        return form["refresh_token"] == self._refresh_token

    def _tokens(self) -> dict[str, object]:
        if self._refresh_token is not None:
            self._spent.add(self._refresh_token)
        self._access_token, self._refresh_token = self._secret("access"), self._secret("refresh")
        return {
            "access_token": self._access_token,
            "refresh_token": self._refresh_token,
            "token_type": "Bearer",
            "expires_in": TOKEN_LIFETIME,
        }

    async def _owners(self, request: Request) -> Response:
        response = JSONResponse(OWNERS)
        if self._access_token is None or request.headers.get("authorization") != f"Bearer {self._access_token}":
            await self._together.wait()
            response = JSONResponse({"message": "the access token is unknown or has expired"}, 401)
        return self._record(API, response)

    def _record(self, what: str, response: Response) -> Response:
        self._seen[what, response.status_code] += 1
        return response

    def _secret(self, kind: str) -> str:
        self.given.append(f"crm-{kind}-{secrets.token_hex(16)}")
        return self.given[-1]


# --- the calls --------------------------------------------------------------------------------------------------------


def connecting(worker: httpx.Client, crm: CRM) -> None:
    """The host application stores what the CRM gives for a user's consent; calls work from then on."""
    title(1, "An account is connected: the host application stores its tokens")
    answer = call(worker, "/connections/crm/proxy/owners")
    expect("answer before", (answer.status_code, answer.json()["key"]), (424, "access_token_expired"))
    answer = call(worker, "/callback", code=crm.consent())
    expect("callback", answer.status_code, 200)
    answer = call(worker, "/connections/crm/proxy/owners")
    expect("answer", (answer.status_code, answer.json()), (200, OWNERS))
    show_seen(crm, {(CODE, 200): 1, (API, 200): 1})


def one_caller(worker: httpx.Client, crm: CRM) -> None:
    """The token expires between two calls; the second call succeeds all the same."""
    title(2, "The access token expires; the caller does not notice")
    crm.let_token_expire()
    answer = call(worker, "/connections/crm/proxy/owners")
    expect("answer", (answer.status_code, answer.json()), (200, OWNERS))
    show_seen(crm, {(API, 401): 1, (REFRESH, 200): 1, (API, 200): 1})


def crowd(number: int, text: str, urls: list[str], crm: CRM) -> None:
    """Many callers are rejected at the same moment: the refresh token is used once, and all get their answer."""
    title(number, text)
    crm.let_token_expire(CALLERS)
    answers = asyncio.run(call_together(urls))
    print(f"   callers  {CALLERS} x GET  /connections/crm/proxy/owners")
    for status, count in Counter(answers).items():
        print(f"   answers  {count} x {status}")
    expect("answers", dict(Counter(answers)), {200: CALLERS})
    show_seen(crm, {(API, 401): CALLERS, (REFRESH, 200): 1, (API, 200): CALLERS})
    expect("refresh tokens used twice", crm.reused, 0)


def file_content(directory: Path, crm: CRM) -> None:
    """Whoever gets hold of the file gets no token."""
    title(5, "What the file gives away")
    content = b"".join(file.read_bytes() for file in directory.iterdir())
    found = [secret for secret in (*crm.given, CLIENT[1]) if secret.encode() in content]
    print(f"   file     {len(content)} bytes; has the connection's name: {b'acme-crm' in content}")
    print(f"   secrets  {len(crm.given)} codes and tokens given out so far; in the file: {len(found)}")
    expect("the connection's name is in the file", b"acme-crm" in content, True)
    expect("secrets in the file", len(found), 0)


def dead_grant(worker: httpx.Client, crm: CRM) -> None:
    """The user withdraws the consent: that is found out once, and then said without asking again."""
    title(6, "The user withdraws the consent at the CRM")
    crm.revoke()
    answer = call(worker, "/connections/crm/proxy/owners")
    expect("first answer, the CRM's own", answer.status_code, 401)
    show_seen(crm, {(API, 401): 1, (REFRESH, 400): 1})
    time.sleep(CREDENTIAL_TTL + 0.1)
    answer = call(worker, "/connections/crm/proxy/owners")
    expect("answer", (answer.status_code, answer.headers["content-type"]), (424, "application/problem+json"))
    expect("key", answer.json()["key"], "access_token_expired")
    show_seen(crm, {})


def connecting_again(worker: httpx.Client, crm: CRM) -> None:
    """New tokens bring the connection back to life."""
    title(7, "The user connects the account again")
    answer = call(worker, "/callback", code=crm.consent())
    expect("callback", answer.status_code, 200)
    answer = call(worker, "/connections/crm/proxy/owners")
    expect("answer", (answer.status_code, answer.json()), (200, OWNERS))
    show_seen(crm, {(CODE, 200): 1, (API, 200): 1})


def call(worker: httpx.Client, path: str, **parameters: str) -> httpx.Response:
    """A GET, printed with its answer; values of parameters are secrets."""
    # Flushed, since the workers write to the same screen.
    print(f"   caller   GET  {path}" + "".join(f"?{name}=********" for name in parameters), flush=True)
    answer = worker.get(path, params=parameters)
    kind, body = answer.headers["content-type"], answer.json()
    if kind == "application/problem+json":
        print(f"   answer   {answer.status_code}  {kind}  {body['key']}\n            {body['detail']}")
    else:
        print(f"   answer   {answer.status_code}  {json.dumps(body)}")
    return answer


async def call_together(urls: list[str]) -> list[int]:
    """The statuses that so many callers get, by turns at each of the workers."""
    identity = {"Authorization": f"Bearer {CALLER_TOKEN}"}
    async with httpx.AsyncClient(headers=identity, trust_env=False, timeout=10) as client:
        targets = [f"{urls[number % len(urls)]}/connections/crm/proxy/owners" for number in range(CALLERS)]
        return [answer.status_code for answer in await asyncio.gather(*map(client.get, targets))]


# --- showing and checking ---------------------------------------------------------------------------------------------


def title(number: int, text: str) -> None:
    """A heading."""
    print(f"\n{number}  {text}\n", flush=True)


def show_seen(crm: CRM, wanted: dict[tuple[str, int], int]) -> None:
    """What the CRM got since the last time, which has to be just this."""
    seen = crm.take_seen()
    for (what, status), count in seen.items():
        print(f"   CRM got  {count:>2} x {what:<36} -> {status}")
    if not seen:
        print("   CRM got  nothing")
    expect("requests at the CRM", seen, wanted)


def expect(what: str, got: object, wanted: object) -> None:
    """Ends the program with a message when something is not as it should be."""
    if got != wanted:
        sys.exit(f"oauth2_store failed: {what}: expected {wanted!r}, got {got!r}")


# --- the processes ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(crm: CRM) -> Iterator[str]:
    """Serves the CRM on a free loopback port, in a thread of this process; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(crm.app, log_level="warning", ws="none", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield url_of(listener)
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def working(crm_url: str, database: Path, key: str) -> Iterator[str]:
    """A worker process, on a free loopback port; gives its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        url, descriptor = url_of(listener), listener.fileno()
        command = [sys.executable, __file__, "--worker", str(descriptor), crm_url, str(database)]
        # Other users of the machine can see a command line, but not this environment.
        process = subprocess.Popen(command, env={**os.environ, "TOKEN_KEY": key}, pass_fds=[descriptor])  # noqa: S603
    try:
        yield url
    finally:
        process.terminate()
        process.wait()


def work(descriptor: int, crm_url: str, database: str) -> None:
    """A worker process: serves the host application on a socket that it has inherited."""
    logging.basicConfig(level=logging.WARNING, format="   worker   %(message)s", stream=sys.stdout)
    app = host_application(crm_url, database, os.environ["TOKEN_KEY"])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=2))
    server.run([socket.socket(fileno=descriptor)])


def url_of(listener: socket.socket) -> str:
    """Where it listens."""
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def show() -> None:
    """Runs the CRM and two workers, makes the calls, and checks what was seen."""
    crm, key = CRM(), generate_key()
    with tempfile.TemporaryDirectory() as name, serving(crm) as crm_url, contextlib.ExitStack() as workers:
        urls = [workers.enter_context(working(crm_url, Path(name, "tokens.db"), key)) for _ in range(2)]
        identity = {"Authorization": f"Bearer {CALLER_TOKEN}"}
        # trust_env=False: a proxy named in the environment has no business on loopback.
        with httpx.Client(base_url=urls[0], headers=identity, trust_env=False, timeout=10) as client:
            connecting(client, crm)
            one_caller(client, crm)
            crowd(3, f"{CALLERS} callers are rejected together: one refresh", urls[:1], crm)
            crowd(4, "The same, half of them at each of two worker processes: still one", urls, crm)
            file_content(Path(name), crm)
            dead_grant(client, crm)
            connecting_again(client, crm)
    print("\nEverything was as expected.")


def main() -> None:
    """Is started by the user, and by itself as a worker."""
    parser = argparse.ArgumentParser(description="OAuth 2 with a shared token store, offline, on loopback")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        descriptor, crm_url, database = arguments.worker
        work(int(descriptor), crm_url, database)
    else:
        show()


if __name__ == "__main__":
    main()
