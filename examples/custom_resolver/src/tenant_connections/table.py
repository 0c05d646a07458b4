"""The table of connections, and what a selector means among the rows of one tenant."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from proxy_middleware import AmbiguousSelector, Connection, ConnectionNotFound

metadata = sa.MetaData()
connections = sa.Table(
    "connections",
    metadata,
    # Unique across tenants, since the proxy keeps credentials by it.
    sa.Column("id", sa.String(256), primary_key=True),
    sa.Column("tenant", sa.String(256), nullable=False),
    sa.Column("base_url", sa.String(2048), nullable=False),
    sa.Column("integration_key", sa.String(256)),
    sa.Column("integration_id", sa.String(256)),
    sa.Column("revision", sa.Integer, nullable=False, default=1),
    sa.Index("connections_by_key", "tenant", "integration_key"),
    sa.Index("connections_by_integration", "tenant", "integration_id"),
)
_HAS = connections.c


def candidates(tenant: str, selector: str) -> sa.Select[Any]:
    """The rows of this tenant that a selector may mean: two are enough to see that there is more than one."""
    named = sa.or_(_HAS.id == selector, _HAS.integration_key == selector, _HAS.integration_id == selector)
    by_id_first = sa.case((_HAS.id == selector, 0), else_=1)
    return sa.select(connections).where(_HAS.tenant == tenant, named).order_by(by_id_first).limit(2)


def choose(rows: Sequence[sa.Row[Any]], selector: str) -> Connection:
    """The connection that is meant: an id comes first, else a key or integration id that exactly one row has.

    Raises:
        ConnectionNotFound: There is no such row, or it is another tenant's: the caller cannot tell which.
        AmbiguousSelector: More than one connection of the tenant has this key or integration id.
    """
    if not rows:
        raise ConnectionNotFound
    row = rows[0]
    if row.id != selector and len(rows) > 1:
        raise AmbiguousSelector
    return Connection(
        row.id,
        row.base_url,
        integration_key=row.integration_key,
        integration_id=row.integration_id,
        revision=row.revision,
    )
