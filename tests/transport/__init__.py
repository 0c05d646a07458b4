"""Tests of proxy_middleware.transport."""
