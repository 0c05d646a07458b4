"""Tests of proxy_middleware, and the callers, upstreams and servers that they are made with."""
