"""The tables of `SQLStore`."""

import sqlalchemy as sa

SCHEMA = 1

metadata = sa.MetaData()

meta = sa.Table(
    "proxy_middleware_meta",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

# A row outlives its record, so that the version goes on growing after a delete; it also comes with a first lease.
tokens = sa.Table(
    "proxy_middleware_tokens",
    metadata,
    sa.Column("connection_id", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("present", sa.Boolean, nullable=False),
    sa.Column("dead", sa.Boolean, nullable=False),
    sa.Column("expires_at", sa.Double),
    sa.Column("access_token", sa.LargeBinary),
    sa.Column("refresh_token", sa.LargeBinary),
    sa.Column("scope", sa.LargeBinary),
    sa.Column("extra", sa.LargeBinary),
    sa.Column("lease_owner", sa.Text),
    sa.Column("lease_until", sa.Double),
)
