"""The default policy against the registries themselves.

Sources: the IANA IPv4 Special-Purpose Address Registry and the IANA IPv6 Special-Purpose Address Registry (RFC 6890),
the IPv4 Multicast Address Space Registry (RFC 5771), the Internet Protocol Version 6 Address Space registry (RFC 4291).
Rows that the registries call globally reachable (anycast of protocols, AS112, AMT, translators) are refused as well:
no API lives there. Worked out on packed addresses, not with `ipaddress`, whose predicates differ between releases.
"""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_middleware.models import EgressPolicy
from proxy_middleware.upstream.egress import permits

REGISTRIES = [
    # IANA IPv4 Special-Purpose Address Registry.
    ("0.0.0.0/8", "This network, RFC 791"),
    ("0.0.0.0/32", "This host on this network, RFC 1122"),
    ("10.0.0.0/8", "Private-Use, RFC 1918"),
    ("100.64.0.0/10", "Shared Address Space, RFC 6598"),
    ("127.0.0.0/8", "Loopback, RFC 1122"),
    ("169.254.0.0/16", "Link Local, RFC 3927"),
    ("172.16.0.0/12", "Private-Use, RFC 1918"),
    ("192.0.0.0/24", "IETF Protocol Assignments, RFC 6890"),
    ("192.0.0.0/29", "IPv4 Service Continuity Prefix, RFC 7335"),
    ("192.0.0.8/32", "IPv4 dummy address, RFC 7600"),
    ("192.0.0.9/32", "Port Control Protocol Anycast, RFC 7723"),
    ("192.0.0.10/32", "TURN Anycast, RFC 8155"),
    ("192.0.0.170/32", "NAT64/DNS64 Discovery, RFC 8880, RFC 7050"),
    ("192.0.0.171/32", "NAT64/DNS64 Discovery, RFC 8880, RFC 7050"),
    ("192.0.2.0/24", "Documentation (TEST-NET-1), RFC 5737"),
    ("192.31.196.0/24", "AS112-v4, RFC 7535"),
    ("192.52.193.0/24", "AMT, RFC 7450"),
    ("192.88.99.0/24", "Deprecated (6to4 Relay Anycast), RFC 7526"),
    ("192.88.99.2/32", "6a44-relay anycast address, RFC 6751"),
    ("192.168.0.0/16", "Private-Use, RFC 1918"),
    ("192.175.48.0/24", "Direct Delegation AS112 Service, RFC 7534"),
    ("198.18.0.0/15", "Benchmarking, RFC 2544"),
    ("198.51.100.0/24", "Documentation (TEST-NET-2), RFC 5737"),
    ("203.0.113.0/24", "Documentation (TEST-NET-3), RFC 5737"),
    ("240.0.0.0/4", "Reserved, RFC 1112"),
    ("255.255.255.255/32", "Limited Broadcast, RFC 8190, RFC 919"),
    ("224.0.0.0/4", "IPv4 Multicast Address Space Registry, RFC 5771"),
    ("168.63.129.16/32", "Microsoft's wire server, in no registry"),
    # IANA IPv6 Special-Purpose Address Registry.
    ("::1/128", "Loopback Address, RFC 4291"),
    ("::/128", "Unspecified Address, RFC 4291"),
    ("::/96", "IPv4-Compatible (deprecated), RFC 4291 section 2.5.5.1"),
    ("::ffff:0:0/96", "IPv4-mapped Address, RFC 4291"),
    ("64:ff9b::/96", "IPv4-IPv6 Translat., RFC 6052"),
    ("64:ff9b:1::/48", "IPv4-IPv6 Translat., RFC 8215"),
    ("100::/64", "Discard-Only Address Block, RFC 6666"),
    ("100:0:0:1::/64", "Dummy IPv6 Prefix, RFC 9780"),
    ("2001::/23", "IETF Protocol Assignments, RFC 2928"),
    ("2001::/32", "TEREDO, RFC 4380, RFC 8190"),
    ("2001:1::1/128", "Port Control Protocol Anycast, RFC 7723"),
    ("2001:1::2/128", "TURN Anycast, RFC 8155"),
    ("2001:1::3/128", "DNS-SD Service Registration Protocol Anycast, RFC 9665"),
    ("2001:2::/48", "Benchmarking, RFC 5180"),
    ("2001:3::/32", "AMT, RFC 7450"),
    ("2001:4:112::/48", "AS112-v6, RFC 7535"),
    ("2001:10::/28", "Deprecated (previously ORCHID), RFC 4843"),
    ("2001:20::/28", "ORCHIDv2, RFC 7343"),
    ("2001:30::/28", "Drone Remote ID Protocol Entity Tags, RFC 9374"),
    ("2001:db8::/32", "Documentation, RFC 3849"),
    ("2002::/16", "6to4, RFC 3056"),
    ("2620:4f:8000::/48", "Direct Delegation AS112 Service, RFC 7534"),
    ("3fff::/20", "Documentation, RFC 9637"),
    ("5f00::/16", "Segment Routing (SRv6) SIDs, RFC 9602"),
    ("fc00::/7", "Unique-Local, RFC 4193, RFC 8190"),
    ("fe80::/10", "Link-Local Unicast, RFC 4291"),
    # Internet Protocol Version 6 Address Space: what is not Global Unicast 2000::/3.
    ("::/3", "Reserved by IETF"),
    ("4000::/3", "Reserved by IETF"),
    ("6000::/3", "Reserved by IETF"),
    ("8000::/3", "Reserved by IETF"),
    ("a000::/3", "Reserved by IETF"),
    ("c000::/3", "Reserved by IETF"),
    ("e000::/3", "Reserved by IETF, Unique Local, Link-Scoped"),
    ("fec0::/10", "Site-local, deprecated, RFC 3879"),
    ("ff00::/8", "Multicast, RFC 4291"),
]


def packed(address: str) -> tuple[int, int]:
    """An address as a number, and its width in bits."""
    data = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    return int.from_bytes(data), 8 * len(data)


def written(number: int, width: int) -> str:
    """The address again as text."""
    return socket.inet_ntop(socket.AF_INET if width == 32 else socket.AF_INET6, number.to_bytes(width // 8))


def span(block: str) -> tuple[int, int, int]:
    """First and last address of a block, and the width."""
    address, _, prefix = block.partition("/")
    first, width = packed(address)
    return first, first | (1 << (width - int(prefix))) - 1, width


SPANS = [span(block) for block, _ in REGISTRIES]


def registered(number: int, width: int) -> bool:
    """Whether an address lies in any row."""
    return any(first <= number <= last for first, last, wide in SPANS if wide == width)


@pytest.mark.parametrize(("block", "name"), REGISTRIES)
def test_edges(block: str, name: str) -> None:
    """A block is refused from its first address to its last; the neighbours only where they are in another."""
    first, last, width = span(block)
    assert not any(permits(EgressPolicy(), written(each, width)) for each in (first, (first + last) // 2, last)), name
    for each in {max(first - 1, 0), min(last + 1, (1 << width) - 1)}:
        assert permits(EgressPolicy(), written(each, width)) != registered(each, width)


@given(st.sampled_from(SPANS), st.data())
def test_random_addresses(around: tuple[int, int, int], data: st.DataObject) -> None:
    """Any address within a block, within twice as much around it, or anywhere, is judged as the registries do."""
    first, last, width = around
    top = (1 << width) - 1
    near = st.integers(max(2 * first - last - 1, 0), min(2 * last - first + 1, top))
    number = data.draw(st.one_of(near, st.integers(first, last), st.integers(0, top)))
    assert permits(EgressPolicy(), written(number, width)) != registered(number, width)


@given(st.integers(0x2000 << 112, (0x4000 << 112) - 1))
def test_random_global_unicast(number: int) -> None:
    """Global unicast addresses are permitted unless the registries say otherwise."""
    assert permits(EgressPolicy(), written(number, 128)) != registered(number, 128)
