"""What `LoggingObserver` writes: levels, messages, further attributes."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from proxy_middleware import Observer
from proxy_middleware.observe import LoggingObserver
from tests.observe.events import STEP, Told, broken, good, left, refreshed, unknown, unreachable

Story = Callable[..., Told]


class Records(logging.Handler):
    """Keeps what is written to the three loggers."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the record."""
        self.all.append(record)

    def of(self, logger: str) -> list[Any]:
        """The records of one logger."""
        return [record for record in self.all if record.name == f"proxy_middleware.{logger}"]


@pytest.fixture
def records() -> Iterator[Records]:
    """What is written, at every level."""
    handler, logger = Records(), logging.getLogger("proxy_middleware")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
def observer() -> LoggingObserver:
    """The observer."""
    return LoggingObserver()


def test_good_request(records: Records, observer: Observer) -> None:
    """A request makes one access record, with all that is known of it."""
    good(observer, method="POST")
    (record,) = records.of("access")
    assert (record.levelno, record.getMessage()) == (
        logging.INFO,
        'POST "crm" https://api.example.com/items 200 - attempts=1 received=3 sent=5 seconds=1.000',
    )
    told = {name: value for name, value in vars(record).items() if name.startswith("proxy_")}
    assert told == {
        "proxy_event": "finished",
        "proxy_request": 1,
        "proxy_method": "POST",
        "proxy_selector": "crm",
        "proxy_connection_id": "crm",
        "proxy_origin": "https://api.example.com",
        "proxy_path": "/items",
        "proxy_attempts": 1,
        "proxy_status": 200,
        "proxy_error": None,
        "proxy_denied": False,
        "proxy_received": 3,
        "proxy_sent": 5,
        "proxy_seconds": 4 * STEP,
        "proxy_seconds_resolve": STEP,
        "proxy_seconds_credential": STEP,
        "proxy_seconds_upstream": STEP,
        "proxy_seconds_relay": STEP,
    }


def test_denied(records: Records, observer: Observer) -> None:
    """A request that is refused is no fault of the application's, and has no path: it might be anything."""
    unknown(observer, selector="other")
    (record,) = records.all
    assert (record.levelno, record.getMessage()) == (
        logging.INFO,
        'GET "other" denied 404 http_request_error attempts=0 received=0 sent=0 seconds=0.500',
    )
    assert (record.proxy_denied, record.proxy_path, record.proxy_connection_id) == (True, None, None)


@pytest.mark.parametrize(
    ("story", "level"),
    [
        (good, logging.INFO),
        (refreshed, logging.INFO),
        (unknown, logging.INFO),
        (left, logging.INFO),
        (unreachable, logging.WARNING),
        (broken, logging.WARNING),
    ],
)
def test_levels(records: Records, observer: Observer, story: Story, level: int) -> None:
    """What is wrong here or at the upstream is a warning; what a caller does is not."""
    story(observer)
    assert [record.levelno for record in records.of("access")] == [level]


@pytest.mark.parametrize(
    ("status", "error", "level"),
    [
        (503, None, logging.WARNING),
        (404, None, logging.INFO),
        (403, "destination_ip_prohibited", logging.WARNING),
        (424, "proxy_configuration_error", logging.WARNING),
        (413, "http_request_error", logging.INFO),
    ],
)
def test_levels_of_answers(records: Records, observer: Observer, status: int, error: str | None, level: int) -> None:
    """Statuses of 500 and above are warnings, and so are the errors that the application can do something about."""
    Told(observer).resolved().attempt().finished(status, error)
    assert [record.levelno for record in records.of("access")] == [level]


def test_refresh(records: Records, observer: Observer) -> None:
    """A refresh is written when it starts and when it has been made, with its time."""
    refreshed(observer)
    started, finished = records.of("refresh")
    assert (started.levelno, started.getMessage()) == (logging.DEBUG, 'The credential of "crm" is refreshed')
    assert (finished.levelno, finished.getMessage()) == (
        logging.INFO,
        'The credential of "crm" was refreshed in 0.250 s',
    )
    assert (finished.proxy_seconds, finished.proxy_error, finished.proxy_status) == (STEP, None, None)
    assert records.of("access")[0].proxy_attempts == 2


def test_failed_refresh(records: Records, observer: Observer) -> None:
    """A refresh that fails is a warning that says why."""
    Told(observer).resolved().refreshed("proxy_configuration_error").denied(424, "proxy_configuration_error")
    finished = records.of("refresh")[-1]
    assert (finished.levelno, finished.getMessage()) == (
        logging.WARNING,
        'The credential of "crm" was not refreshed in 0.250 s: proxy_configuration_error',
    )
    assert records.of("upstream") == []


def test_upstream(records: Records, observer: Observer) -> None:
    """Each attempt is written when it is sent and when it is answered."""
    refreshed(observer)
    assert [(record.levelname, record.getMessage()) for record in records.of("upstream")] == [
        ("DEBUG", "GET https://api.example.com/items is sent, attempt 1"),
        ("DEBUG", "GET https://api.example.com/items answered 401 after 0.250 s"),
        ("DEBUG", "GET https://api.example.com/items is sent, attempt 2"),
        ("DEBUG", "GET https://api.example.com/items answered 200 after 0.250 s"),
    ]


@pytest.mark.parametrize(
    ("story", "error"), [(unreachable, "connection_refused"), (broken, "http_response_incomplete")]
)
def test_failing_upstream(records: Records, observer: Observer, story: Story, error: str) -> None:
    """An upstream that cannot be reached, or breaks off, is a warning of its own."""
    story(observer)
    failure = records.of("upstream")[-1]
    assert failure.levelno == logging.WARNING
    assert failure.getMessage().startswith("GET https://api.example.com/items failed after 0.")
    assert failure.getMessage().endswith(f" s: {error}")


@pytest.mark.parametrize(
    "error", [None, "caller_left", "http_request_error", "proxy_configuration_error", "proxy_internal_error"]
)
def test_upstream_that_does_not_fail(records: Records, observer: Observer, error: str | None) -> None:
    """What a caller does, or the application itself, is not held against the upstream."""
    Told(observer).resolved().attempt().answered().finished(500 if error else 200, error)
    assert [record.levelname for record in records.of("upstream")] == ["DEBUG", "DEBUG"]
    assert records.of("access")[0].proxy_error == error


def test_upstream_that_was_not_asked(records: Records, observer: Observer) -> None:
    """An error without an attempt, as a resolver may raise one, is no failure of an upstream."""
    Told(observer)("matched").finished(502, "connection_terminated")
    assert records.of("upstream") == []
    assert records.of("access")[0].getMessage().startswith('GET "crm" - 502 connection_terminated attempts=0')


def test_no_forged_lines(records: Records, observer: Observer) -> None:
    """Control characters of a caller, or of a stored id, are escaped in messages and in attributes."""
    forged = "x\r\n2026 INFO \x1b[2J\u202e\u2028"
    told = Told(observer, method=f"GET{forged}", selector=forged).resolved(forged)
    told.attempt(path=f"/{forged}").answered().refreshed().finished(502, "connection_refused")
    assert len(records.all) == 6
    shown = "".join(record.getMessage() + "".join(map(str, vars(record).values())) for record in records.all)
    assert shown.isprintable()
    assert r"x\r\n2026 INFO \x1b[2J\u202e\u2028" in shown


def test_nothing_is_made_that_nobody_reads(records: Records, observer: Observer) -> None:
    """Below its logger's level nothing is written, and a message is put together by whoever shows it."""
    logging.getLogger("proxy_middleware").setLevel(logging.WARNING)
    good(observer)
    refreshed(observer)
    assert records.all == []
    unreachable(observer, request=1)
    unreachable(observer, request=2, selector="other")
    assert len({record.msg for record in records.of("access")}) == 1
    assert all(record.args for record in records.all)


def test_format_strings_may_name_all_attributes(records: Records, observer: Observer) -> None:
    """Every record has the attributes that are not of the access log alone."""
    for story in (good, refreshed, unreachable, broken, unknown, left):
        story(observer)
    formatter = logging.Formatter("%(proxy_request)d %(proxy_connection_id)s %(proxy_path)s %(proxy_seconds)s")
    assert all(formatter.format(record) for record in records.all)


def test_nothing_is_kept(observer: LoggingObserver) -> None:
    """When requests are over, the observer has forgotten them."""
    for number, story in enumerate((good, refreshed, unreachable, broken, unknown, left)):
        story(observer, request=number)
    assert observer._requests == {}
