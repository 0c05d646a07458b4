"""Tests of proxy_middleware.upstream."""
