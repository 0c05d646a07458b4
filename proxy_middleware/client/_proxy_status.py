"""Whether a response is the proxy's own answer, by its `Proxy-Status` (RFC 9209), a list of RFC 9651."""

import re
from collections.abc import Iterable

# RFC 9651 section 3.3, in its order but for strings first: string, token, number, bytes, boolean, date, display string.
_BARE = (
    r'(?:"(?:[ !#-\[\]-~]|\\["\\])*+"'
    r"|[A-Za-z*][!#$%&'*+.^_`|~:/0-9A-Za-z-]*+"
    r"|-?[0-9]{1,15}(?:\.[0-9]{1,3})?"
    r"|:[A-Za-z0-9+/=]*+:"
    r"|\?[01]"
    r"|@-?[0-9]{1,15}"
    r'|%"(?:[ !#$&-~]|%[0-9a-f]{2})*+")'
)
_KEY = r"[a-z*][a-z0-9_.*-]*+"
_PARAMETERS = rf"(?:; *{_KEY}(?:={_BARE})?)*+"
_INNER_LIST = rf"\( *(?:{_BARE}{_PARAMETERS}(?: +{_BARE}{_PARAMETERS})*+)? *\)"
_MEMBER = re.compile(rf"({_BARE}|{_INNER_LIST})({_PARAMETERS})[ \t]*(?:,[ \t]*(?!\Z)|\Z)")
_PARAMETER = re.compile(rf"; *({_KEY})(?:=({_BARE}))?")
_OURS = ("proxy_middleware", '"proxy_middleware"')


def own_error(values: Iterable[str]) -> str | None:
    """The error type with which the proxy has answered by itself; None if the response is the upstream's.

    Args:
        values: Those of all Proxy-Status fields. Where they are no list, they say nothing (RFC 9651 section 4.2).
    """
    text, at, error = ", ".join(values).strip(" "), 0, None
    while at < len(text):
        member = _MEMBER.match(text, at)
        if member is None:
            return None
        if member[1] in _OURS:
            # Of parameters of the same name the last one counts (RFC 9651 section 4.2.3.2).
            error = dict(_PARAMETER.findall(member[2])).get("error") or error
        at = member.end()
    return error
