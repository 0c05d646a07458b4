"""A token store, and the tokens that it could not take yet.

A refresh token that an endpoint has rotated is in one place only until it is saved. While the store is down it stays
here: this process goes on with it, and saves it as soon as the store is back. A process that ends before loses it.
"""

import logging
import threading
import time

from proxy_middleware.stores.protocol import Stored, Tokens, TokenStore

__all__ = ["Vault"]

_log = logging.getLogger("proxy_middleware")

# Seconds between two tries to save.
PAUSE = 0.2
LONG_PAUSE = 1.0


class Vault:
    """Loads and saves the tokens of one provider.

    Attributes:
        store: Where they are kept.
    """

    def __init__(self, store: TokenStore) -> None:
        self.store = store
        # By connection; each with the version that its save has to name.
        self._unsaved: dict[str, Stored] = {}

    def load(self, connection_id: str) -> Stored | None:
        """The record; while the store is down, what could not be saved. Raises what the store raises."""
        unsaved = self._unsaved.get(connection_id)
        if unsaved is not None and not self._settle(connection_id, unsaved):
            return unsaved
        return self.store.load(connection_id)

    def save(self, connection_id: str, tokens: Tokens, expected: int, until: float) -> bool:
        """Replaces the record if its version is still `expected`; whether nothing newer is stored.

        A store that fails is asked again until then, by `time.monotonic()`. After that the tokens are kept here.
        """
        unsaved = Stored(tokens, expected)
        while True:
            try:
                return self.store.save(connection_id, tokens, expected) is not None
            except Exception as error:
                if time.monotonic() + PAUSE > until:
                    self._keep(connection_id, unsaved, error)
                    return True
            time.sleep(PAUSE)

    def _keep(self, connection_id: str, unsaved: Stored, error: Exception) -> None:
        _log.error(
            "new tokens of connection %r could not be stored (%s): this process keeps them in memory until they are",
            connection_id,
            type(error).__name__,
        )
        self._unsaved[connection_id] = unsaved
        # Other processes still find the old refresh token, so that nothing should wait for the next request here.
        threading.Thread(
            target=self._save_later, args=(connection_id, unsaved), name="proxy-tokens", daemon=True
        ).start()

    def _save_later(self, connection_id: str, unsaved: Stored) -> None:
        while self._unsaved.get(connection_id) is unsaved and not self._settle(connection_id, unsaved):
            time.sleep(LONG_PAUSE)

    def _settle(self, connection_id: str, unsaved: Stored) -> bool:
        """Whether it is saved now, or something newer was. It is harmless if two threads do this at once."""
        try:
            version = self.store.save(connection_id, unsaved.tokens, unsaved.version)
        except Exception as error:
            _log.debug("tokens of connection %r still cannot be stored: %s", connection_id, type(error).__name__)
            return False
        if self._unsaved.get(connection_id) is unsaved:
            del self._unsaved[connection_id]
            _log.warning("tokens of connection %r are %s", connection_id, "stored now" if version else "outdated")
        return True
