"""The upstream side: the HTTP/1.1 engine with its two drivers, the egress policy, and httpx transports."""
