"""Benchmarks: what the proxy costs, measured beside the bare host application and Go's `ReverseProxy`."""
