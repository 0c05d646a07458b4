"""Benchmarks: what the proxy costs, measured beside bare host applications, Go, nginx and other proxies."""
