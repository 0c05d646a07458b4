"""Which `Proxy-Status` is the proxy's own."""

import pytest

from proxy_middleware.client._proxy_status import own_error

OURS = "proxy_middleware; error=dns_error"


@pytest.mark.parametrize(
    "values",
    [
        [OURS],
        ["proxy_middleware;error=dns_error"],
        ['"proxy_middleware"; error=dns_error'],
        ['proxy_middleware; details="a, b; error=x"; error=dns_error; next-hop=:YQ==:'],
        ["proxy_middleware; error=x; error=dns_error"],
        [f"cdn.example; received-status=404, {OURS}"],
        [f"{OURS} ,\tcdn; error=x; proxy_middleware"],
        ["cdn; error=connection_timeout", OURS],
        [f'"a \\" proxy_middleware; error=x"; fwd, (a "b" ?1);q=1.5, 7, @1659578233, %"f%c3%bc", {OURS}'],
    ],
)
def test_own_errors(values: list[str]) -> None:
    """Our member is found among others, whatever its parameters, its spelling and the number of fields."""
    assert own_error(values) == "dns_error"


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["proxy_middleware"],
        ["proxy_middleware; received-status=404"],
        ["proxy_middleware; x-error=dns_error"],
        ["cdn; error=dns_error"],
        ["proxy_middleware.example; error=dns_error"],
        ["Proxy_Middleware; error=dns_error"],
        ['cdn; details="proxy_middleware; error=dns_error"'],
        ["(proxy_middleware); error=dns_error"],
        ["cdn; a=proxy_middleware; error=dns_error"],
    ],
)
def test_errors_of_others(values: list[str]) -> None:
    """What is not our member, or says nothing of an error, is not ours."""
    assert own_error(values) is None


@pytest.mark.parametrize(
    "value",
    [f"{OURS},", f"{OURS}, ,x", f"{OURS} x", f'{OURS}; a="', f"{OURS}; =x", f"{OURS}; A", f"\xfc, {OURS}", f",{OURS}"],
)
def test_what_is_no_list(value: str) -> None:
    """A field that does not parse says nothing."""
    assert own_error([value]) is None


def test_long_fields() -> None:
    """A field that goes on for ever, and then breaks, is done with soon."""
    assert own_error(["a;b=" * 20000 + "\x00"]) is None
    assert own_error(["(" + "a " * 20000 + "\x00"]) is None
    assert own_error(['a;b="' + "\\\\" * 20000 + "\x00"]) is None
