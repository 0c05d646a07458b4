"""Real SDKs, as their users have them, pointed at the proxy."""
