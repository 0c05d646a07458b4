"""A database with the connections of two tenants."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from tenant_connections import connections, metadata

ROWS: list[dict[str, str | None]] = [
    {"id": "a-crm", "tenant": "acme", "integration_key": "crm", "integration_id": "int-1"},
    {"id": "a-sales", "tenant": "acme", "integration_key": "mail", "integration_id": "int-2"},
    {"id": "a-support", "tenant": "acme", "integration_key": "mail", "integration_id": "chat"},
    {"id": "a-chat", "tenant": "acme", "integration_key": "chat", "integration_id": "int-2"},
    {"id": "int-1", "tenant": "acme", "integration_key": "odd", "integration_id": None},
    {"id": "u-crm", "tenant": "umbrella", "integration_key": "crm", "integration_id": "int-1"},
]


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that holds it; nobody writes to it."""
    path = tmp_path_factory.mktemp("database") / "connections.db"
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(
            sa.insert(connections), [{**row, "base_url": f"https://{row['id']}.example.com"} for row in ROWS]
        )
    engine.dispose()
    return path
