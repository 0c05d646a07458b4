"""Connections and credentials out of a TOML file.

    callers = { alice = "env:ALICE_TOKEN" }     # or "anyone"; for `python -m proxy_middleware serve`

    [connections.hubspot]                       # what `Connection` takes
    base_url = "https://api.hubapi.com"
    integration_key = "crm"

    [connections.hubspot.credential]            # by its `type`
    type = "bearer"
    token = "env:HUBSPOT_TOKEN"

    [store]                                     # where the tokens of `oauth2` are kept
    url = "sqlite:///tokens.db"
    keys = ["file:token.key"]

    [proxy.timeouts]                            # `prefix`, `limits`, `egress` and so on, for `serve`
    head = 600

Secrets do not stand in the file: `env:NAME` leads to an environment variable, `file:PATH` to a file, relative to the
TOML file's folder. Keys that are not known are errors.
"""

from proxy_middleware.toml.connections import TomlResolver
from proxy_middleware.toml.credentials import TomlCredentials
from proxy_middleware.toml.reader import TomlError

__all__ = ["TomlCredentials", "TomlError", "TomlResolver"]
