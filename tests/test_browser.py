"""What browsers may do."""

import pytest

from proxy_middleware import AccessDenied, BrowserPolicy
from proxy_middleware._browser import check_browser
from proxy_middleware._fields import read_request
from proxy_middleware._response_fields import read_response
from tests.tables import words

HOST = "host: app.example.com"
POWERFUL = words(
    """
    document frame iframe fencedframe object embed script worker sharedworker serviceworker audioworklet paintworklet
    xslt
    """
)


def judge(*lines: str, policy: BrowserPolicy | None = None) -> bool:
    """Whether fields are withheld from a caller that sends these lines."""
    fields = [(name.encode(), value.encode()) for name, _, value in (line.partition(": ") for line in (HOST, *lines))]
    return check_browser(policy or BrowserPolicy(), read_request(fields), fields)


@pytest.mark.parametrize("lines", [(), ("accept: text/html", "user-agent: Mozilla/5.0"), ("sec-fetch-mode: cors",)])
def test_others_get_everything(lines: tuple[str, ...]) -> None:
    """A caller without a browser's marks gets the response unchanged; Node's fetch sends Sec-Fetch-Mode alone."""
    assert judge(*lines) is False


@pytest.mark.parametrize("line", ["cookie: a=b", "referer: https://app.example.com/page"])
def test_may_be_a_browser(line: str) -> None:
    """Who sends a Cookie or a Referer may be a browser: served, but without what acts on the whole origin."""
    assert judge(line) is True


@pytest.mark.parametrize(
    "lines",
    [
        ("sec-fetch-site: same-origin", "sec-fetch-mode: cors", "sec-fetch-dest: empty"),
        ("sec-fetch-site: same-origin", "origin: https://app.example.com", "sec-fetch-mode: cors"),
        ("sec-fetch-site: same-origin", "sec-fetch-mode: no-cors", "sec-fetch-dest: image"),
        ("sec-fetch-site: none", "sec-fetch-mode: cors"),
        ("origin: https://app.example.com",),
        ("origin: HTTPS://APP.example.com",),
        ("origin: http://app.example.com", "cookie: a=b"),
    ],
)
def test_own_pages_may_fetch(lines: tuple[str, ...]) -> None:
    """Pages of the host's own origin may fetch, and do not get what acts on the whole origin."""
    assert judge(*lines) is True


@pytest.mark.parametrize("site", ["same-origin", "same-site", "cross-site", "none"])
@pytest.mark.parametrize("line", ["sec-fetch-mode: navigate", *(f"sec-fetch-dest: {kind}" for kind in POWERFUL)])
def test_navigations_are_refused(line: str, site: str) -> None:
    """No upstream document or script gets onto the host's origin, wherever the request comes from."""
    with pytest.raises(AccessDenied):
        judge(f"sec-fetch-site: {site}", line)


@pytest.mark.parametrize(
    "lines",
    [
        ("sec-fetch-site: cross-site",),
        ("sec-fetch-site: same-site", "sec-fetch-mode: cors"),
        ("sec-fetch-site: cross-site", "origin: https://evil.example", "sec-fetch-mode: cors"),
        ("sec-fetch-site: cross-site", "origin: https://app.example.com"),
        ("origin: https://evil.example",),
        ("origin: https://app.example.com.evil.example",),
        ("origin: https://evil.example/app.example.com",),
        ("origin: https://app.example.com:8443",),
        ("origin: null",),
        ("origin: ",),
    ],
)
def test_other_origins_are_refused(lines: tuple[str, ...]) -> None:
    """Pages of any other origin, of the same site too, may not ride on the host's session."""
    with pytest.raises(AccessDenied):
        judge(*lines)


@pytest.mark.parametrize(
    ("listed", "origin"),
    [
        ("https://spa.example.com", "https://spa.example.com"),
        ("https://SPA.example.com", "https://spa.example.com"),
        ("https://spa.example.com:443", "https://spa.example.com"),
        ("http://localhost:3000", "http://localhost:3000"),
    ],
)
def test_listed_origins_may_call(listed: str, origin: str) -> None:
    """A page of a listed origin may call, as browsers spell that origin; what is withheld stays withheld."""
    policy = BrowserPolicy(allowed_origins=["https://other.example", listed])
    assert judge(f"origin: {origin}", policy=policy) is True
    assert judge("sec-fetch-site: cross-site", f"origin: {origin}", policy=policy) is True


@pytest.mark.parametrize(
    "origin", ["http://spa.example.com", "https://spa.example.com:8443", "https://x.spa.example.com", "null"]
)
def test_listed_origins_are_compared_whole(origin: str) -> None:
    """Scheme, host and port have to agree."""
    with pytest.raises(AccessDenied):
        judge(f"origin: {origin}", policy=BrowserPolicy(allowed_origins=["https://spa.example.com"]))


def test_guard_can_be_turned_off() -> None:
    """Without the guard nothing is refused and nothing withheld."""
    policy = BrowserPolicy(guard=False)
    assert judge("sec-fetch-site: cross-site", "sec-fetch-mode: navigate", "cookie: a=b", policy=policy) is False


def test_one_vary_for_browsers() -> None:
    """What the upstream's answer varies by and what ours does stand in one field, of which nothing can be lost."""
    found = read_response([b"Vary: accept-encoding", b"X-A: 1"], bodiless=False, withhold=True, cache_guard=True)
    ours = b"sec-fetch-dest, sec-fetch-mode, sec-fetch-site"
    assert found.kept == [(b"X-A", b"1"), (b"vary", b"accept-encoding, " + ours)]
