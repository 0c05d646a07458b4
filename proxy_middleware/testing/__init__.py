"""For the tests of plugins and of host applications: an upstream, credentials and a clock that do as they are told.

Everything but the contracts and the module `fixtures` works without pytest, in plain and in asynchronous code.
"""

from typing import TYPE_CHECKING

from proxy_middleware._lazy import lazily

if TYPE_CHECKING:
    from proxy_middleware.testing.clock import FakeClock
    from proxy_middleware.testing.credentials import ExpiringCredentials
    from proxy_middleware.testing.leaks import assert_no_credentials
    from proxy_middleware.testing.messages import ReceivedRequest, Reply
    from proxy_middleware.testing.provider_contract import CredentialProviderContract
    from proxy_middleware.testing.resolver_contract import ResolverContract
    from proxy_middleware.testing.upstream import FakeUpstream

__all__ = [
    "CredentialProviderContract",
    "ExpiringCredentials",
    "FakeClock",
    "FakeUpstream",
    "ReceivedRequest",
    "Reply",
    "ResolverContract",
    "assert_no_credentials",
]

# The contracts need pytest, which a test suite of another kind may do without.
__getattr__ = lazily(
    __name__,
    {
        "CredentialProviderContract": ".provider_contract",
        "ExpiringCredentials": ".credentials",
        "FakeClock": ".clock",
        "FakeUpstream": ".upstream",
        "ReceivedRequest": ".messages",
        "Reply": ".messages",
        "ResolverContract": ".resolver_contract",
        "assert_no_credentials": ".leaks",
    },
)
