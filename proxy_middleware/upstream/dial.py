"""What both drivers share when they open a connection: TLS settings, and what went wrong."""

import socket
import ssl
from contextlib import suppress

from proxy_middleware.errors import (
    CertificateRefused,
    ConnectFailed,
    ConnectTimeout,
    DNSFailure,
    ProxyError,
    TLSFailure,
)


def default_ssl_context() -> ssl.SSLContext:
    """Verifies certificate and name against the system's authorities; offers HTTP/1.1 only (RFC 7301).

    Raises:
        OSError: The file of the authorities is there, but cannot be read now.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    file = ssl.get_default_verify_paths().cafile
    if file is not None and not context.cert_store_stats()["x509"]:
        # OpenSSL passes over a file that it cannot open, such as where no descriptor is left. For as long as it were
        # used, the context would refuse every certificate then.
        with suppress(ssl.SSLError):  # It is empty.
            context.load_verify_locations(file)
    return context


def connect_error(error: OSError | UnicodeError) -> ProxyError:
    """What a failed look-up, connect or handshake is answered with."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return CertificateRefused(f"The upstream's certificate was refused: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return TLSFailure()
    # A host name that IDNA cannot encode (RFC 5891) has no address either.
    if isinstance(error, socket.gaierror | UnicodeError):
        return DNSFailure()
    return ConnectTimeout() if isinstance(error, TimeoutError) else ConnectFailed()
