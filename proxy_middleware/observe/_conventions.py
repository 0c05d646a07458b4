"""What the metrics of both kinds have in common."""

# Those of RFC 9110, RFC 5789 and the QUERY draft. Anything else is a caller's invention, and would make a metric of its
# own each time: https://opentelemetry.io/docs/specs/semconv/registry/attributes/http/
METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
OTHER = "_OTHER"

# Seconds; advised in https://opentelemetry.io/docs/specs/semconv/http/http-metrics/
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
