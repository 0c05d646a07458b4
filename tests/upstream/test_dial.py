"""TLS settings, and what a failed look-up, connect or handshake is answered with."""

import errno
import socket
import ssl

import pytest

from proxy_middleware.errors import (
    CertificateRefused,
    ConnectFailed,
    ConnectTimeout,
    DNSFailure,
    ProxyError,
    TLSFailure,
)
from proxy_middleware.upstream.dial import connect_error, default_ssl_context


def certificate_error() -> ssl.SSLCertVerificationError:
    """What the ssl module raises for a certificate that it does not trust."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (certificate_error(), CertificateRefused),
        (ssl.SSLError(1, "wrong version number"), TLSFailure),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), TLSFailure),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), DNSFailure),
        (UnicodeEncodeError("idna", "a..b", 1, 2, "label empty"), DNSFailure),
        (TimeoutError(), ConnectTimeout),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), ConnectTimeout),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), ConnectFailed),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset"), ConnectFailed),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), ConnectFailed),
        (OSError("Multiple exceptions: ..."), ConnectFailed),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_kinds(error: OSError | UnicodeError, kind: type[ProxyError]) -> None:
    """Each failure is answered with its own kind."""
    assert type(connect_error(error)) is kind


def test_certificate_says_why() -> None:
    """The answer says what is wrong with the certificate."""
    assert "self-signed certificate" in connect_error(certificate_error()).detail


def test_others_say_nothing() -> None:
    """What the system says, with its addresses, is not shown to the caller."""
    error = ConnectFailed(), connect_error(OSError(errno.ECONNREFUSED, "Connect call failed ('10.0.0.7', 443)"))
    assert error[0].detail == error[1].detail


def test_tls_is_verified() -> None:
    """Certificate and name are verified, and old protocols refused."""
    context = default_ssl_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
