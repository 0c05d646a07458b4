"""Tests of proxy_middleware.client."""
