"""Connections per tenant in a SQL table, and credentials from Vault's files: a plugin for proxy_middleware."""

from tenant_connections.resolvers import AsyncSQLResolver, Caller, SQLResolver
from tenant_connections.table import connections, metadata
from tenant_connections.vault import VaultFile

__all__ = ["AsyncSQLResolver", "Caller", "SQLResolver", "VaultFile", "connections", "metadata"]
