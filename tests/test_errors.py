"""The error tree, and how each error is answered."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_middleware import errors
from proxy_middleware._fields import clean_values, is_token
from proxy_middleware._problem import problem
from proxy_middleware.errors import (
    AccessDenied,
    CallerLeft,
    CredentialUnavailable,
    InvalidRequest,
    MethodRefused,
    NotAuthenticated,
    PoolExhausted,
    ProxyError,
    RefreshFailed,
    ResponseTruncated,
    StoreError,
)
from tests.tables import rows, words

TABLE = rows(
    """
    ProxyError             500  internal     internal                 proxy_internal_error
    InternalError          500  internal     internal                 proxy_internal_error
    NotAuthenticated       401  bad_request  not_authenticated        http_request_denied
    AccessDenied           403  bad_request  access_denied            http_request_denied
    AddressRefused         403  bad_request  access_denied            destination_ip_prohibited
    ConnectionNotFound     404  bad_request  not_found                http_request_error
    AmbiguousSelector      409  bad_request  ambiguous_selector       http_request_error
    InvalidRequest         400  bad_request  invalid_request          http_request_error
    InvalidTarget          400  bad_request  invalid_target           http_request_error
    MethodRefused          405  bad_request  invalid_request          http_request_error
    LengthRequired         411  bad_request  invalid_request          http_request_error
    TooManyRequests        429  bad_request  rate_limit_exceeded      http_request_denied
    PayloadTooLarge        413  bad_request  payload_too_large        http_request_error
    CredentialUnavailable  424  connection   access_token_expired     proxy_configuration_error
    RefreshFailed          424  connection   access_token_expired     proxy_configuration_error
    RefreshPending         424  connection   access_token_expired     proxy_configuration_error
    StoreError             424  connection   access_token_expired     proxy_configuration_error
    StoreUnavailable       424  connection   access_token_expired     proxy_configuration_error
    StoreCorrupted         424  connection   access_token_expired     proxy_configuration_error
    UpstreamError          502  connection   upstream_unreachable     connection_terminated
    DNSFailure             502  connection   upstream_unreachable     dns_error
    ConnectFailed          502  connection   upstream_unreachable     connection_refused
    TLSFailure             502  connection   upstream_unreachable     tls_protocol_error
    CertificateRefused     502  connection   upstream_unreachable     tls_certificate_error
    ConnectionTerminated   502  connection   upstream_unreachable     connection_terminated
    ProtocolViolation      502  connection   upstream_protocol_error  http_protocol_error
    PoolExhausted          503  concurrency  lock_timeout             connection_limit_reached
    UpstreamTimeout        504  connection   upstream_timeout         connection_read_timeout
    ConnectTimeout         504  connection   upstream_timeout         connection_timeout
    HeadTimeout            504  connection   upstream_timeout         http_response_timeout
    ReadTimeout            504  connection   upstream_timeout         connection_read_timeout
    WriteTimeout           504  connection   upstream_timeout         connection_write_timeout
    """
)
# Proxies, gateways and SDKs look them up: RFC 9209 section 2.3.
REGISTERED = words(
    """
    dns_timeout dns_error destination_not_found destination_unavailable destination_ip_prohibited
    destination_ip_unroutable connection_refused connection_terminated connection_timeout connection_read_timeout
    connection_write_timeout connection_limit_reached tls_protocol_error tls_certificate_error tls_alert_received
    http_request_error http_request_denied http_response_incomplete http_response_timeout http_protocol_error
    proxy_internal_response proxy_internal_error proxy_configuration_error proxy_loop_detected
    """
)


def answer(error: ProxyError) -> tuple[dict[bytes, bytes], dict[str, Any]]:
    """Fields and members of the answer to an error."""
    fields, content = problem(error)
    assert len(dict(fields)) == len(fields)
    assert dict(fields)[b"content-length"] == b"%d" % len(content)
    return dict(fields), json.loads(content)


@pytest.mark.parametrize(("name", "status", "type_", "key", "reason"), TABLE)
def test_answers(name: str, status: str, type_: str, key: str, reason: str) -> None:
    """Each error is answered with its status, type, key and Proxy-Status error."""
    error = getattr(errors, name)()
    fields, members = answer(error)
    assert (error.status, members["status"]) == (int(status), int(status))
    assert (members["type"], members["key"]) == (type_, key)
    assert fields[b"proxy-status"] == f"proxy_middleware; error={reason}".encode()


def test_table_is_complete() -> None:
    """Every error that can be answered has a row, and every reason is a registered one."""
    tree = {name for name in errors.__all__ if issubclass(getattr(errors, name), ProxyError)}
    assert tree == {row[0] for row in TABLE}
    assert {row[4] for row in TABLE} <= set(REGISTERED)


@pytest.mark.parametrize("name", [row[0] for row in TABLE])
def test_members_of_the_problem_document(name: str) -> None:
    """The document has the members that its readers look for; `message` repeats `detail`."""
    fields, members = answer(getattr(errors, name)("Because of that"))
    assert list(members) == ["type", "title", "status", "detail", "key", "message", "data"]
    hidden = issubclass(getattr(errors, name), StoreError)
    assert members["detail"] == members["message"] == (members["title"] if hidden else "Because of that")
    assert members["title"] == getattr(errors, name).title
    assert members["data"] == {}
    assert fields[b"content-type"] == b"application/problem+json"


@pytest.mark.parametrize("name", [row[0] for row in TABLE])
def test_detail_has_a_default(name: str) -> None:
    """Without a detail of its own an error is told by its title."""
    error = getattr(errors, name)()
    assert error.detail == error.title == str(error)
    assert answer(error)[1]["detail"] == error.title


def test_reason_of_a_store_is_for_the_host() -> None:
    """What is wrong with a token store is told to the host, not to the caller."""
    error = StoreError("its key is not in the ring")
    assert str(error) == "its key is not in the ring"
    assert error.detail == error.title


def test_answers_are_not_stored() -> None:
    """No cache stores an answer of the proxy's own, since one URL means many tenants."""
    assert answer(AccessDenied())[0][b"cache-control"] == b"no-store"


def test_further_fields() -> None:
    """A 401 challenges, a 405 says what is allowed, a 503 when to come again."""
    assert answer(NotAuthenticated())[0][b"www-authenticate"].startswith(b"Bearer")
    assert b"GET" in answer(MethodRefused())[0][b"allow"]
    assert int(answer(PoolExhausted())[0][b"retry-after"]) > 0


def test_kinds() -> None:
    """Errors can be caught by their kind; the two that are no answers stand outside of the tree."""
    assert issubclass(RefreshFailed, CredentialUnavailable)
    assert issubclass(errors.InvalidTarget, InvalidRequest)
    assert issubclass(errors.AddressRefused, AccessDenied)
    assert issubclass(ResponseTruncated, ConnectionError)
    assert not issubclass(ResponseTruncated, ProxyError)
    assert not issubclass(CallerLeft, ProxyError)


def test_all_is_sorted() -> None:
    """`__all__` names every class of the module, sorted."""
    classes = [name for name, value in vars(errors).items() if isinstance(value, type)]
    assert errors.__all__ == sorted(classes)


@given(st.text())
def test_any_detail_makes_a_well_formed_answer(detail: str) -> None:
    """Whatever text a plugin gives as detail reaches the caller in JSON, and no header field."""
    fields, content = problem(AccessDenied(detail))
    assert json.loads(content)["detail"] == (detail or AccessDenied.title)
    assert all(is_token(name) for name, _ in fields)
    assert clean_values(fields)
    assert content.isascii()
