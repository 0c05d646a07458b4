"""The targets by name."""

from tests.fuzz import requests, responses, seeds, targets
from tests.fuzz.run import Target

TARGETS = (
    Target("http1", responses.check, seeds.RESPONSES, seeds.WORDS, b"\r\n"),
    Target("fields", requests.check_fields, requests.FIELD_SEEDS, requests.WORDS, requests.LINE),
    Target("framing", requests.check_framing, requests.FRAMING_SEEDS, requests.WORDS, requests.LINE),
    Target("target", targets.check, targets.SEEDS, targets.WORDS, b"/"),
)
