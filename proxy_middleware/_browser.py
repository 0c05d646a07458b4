"""What a browser may do through a proxy that lives on the host application's own origin.

The request is judged instead of the response being rewritten: a page of the host's own may `fetch()`; whatever would
make an upstream's document or script run on the host's origin, or let another site ride on the host's session, may not.
"""

from collections.abc import Sequence

from proxy_middleware._fields import Field, RequestFields
from proxy_middleware.errors import AccessDenied
from proxy_middleware.models import BrowserPolicy, first_value

# Fetch Standard, "destination": the ones that give a response a document's or a script's powers.
_POWERFUL = frozenset(
    b"document frame iframe fencedframe object embed script worker sharedworker serviceworker audioworklet "
    b"paintworklet xslt".split()
)


def check_browser(policy: BrowserPolicy, found: RequestFields, fields: Sequence[Field]) -> bool:
    """Whether fields that act on the whole origin are withheld, because the caller is or may be a browser.

    Args:
        policy: The settings.
        found: What the pass over the fields found.
        fields: All of the caller's fields, for its Host.

    Raises:
        AccessDenied: The request is a navigation, asks for a document or script, or comes from another origin.
    """
    marks = found.browser
    if not policy.guard or not (marks or found.cookies):
        return False
    site, origin = marks.get(b"sec-fetch-site"), marks.get(b"origin")
    if site is None and origin is None:
        # Node's fetch sends Sec-Fetch-Mode alone, and is no browser.
        return bool(found.cookies) or b"referer" in marks
    if marks.get(b"sec-fetch-mode") == b"navigate" or marks.get(b"sec-fetch-dest") in _POWERFUL:
        raise AccessDenied("Browsers may not navigate to or embed a proxied response")
    foreign = site in (b"cross-site", b"same-site") if site is not None else not _is_own(origin or b"", fields)
    if foreign and (origin or b"").lower() not in policy.origins:
        raise AccessDenied("Pages of another origin may not call through the proxy")
    return True


def _is_own(origin: bytes, fields: Sequence[Field]) -> bool:
    """Whether an Origin names the Host that was asked for; the scheme is not known behind a front server."""
    host = first_value(fields, "host")
    return host is not None and origin.partition(b"://")[2].lower() == host.lower().encode("latin-1")
