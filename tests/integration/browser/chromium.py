"""Headless Chromium behind a blocking interface: a browser, its tabs, and the scripts that run in them."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from playwright.async_api import Browser, Page, Playwright, async_playwright

START, WAIT = 60.0, 15.0
# Names under .example are loopback, too, but no secure context: to those Chromium sends no Sec-Fetch fields.
_ARGUMENTS = ["--host-resolver-rules=MAP *.example 127.0.0.1"]
_FETCH = """async ([url, options]) => {
    try {
        const answer = await fetch(url, options);
        const fields = Object.fromEntries(answer.headers);
        return {status: answer.status, fields, body: await answer.text()};
    } catch (error) {
        return {error: error.name};
    }
}"""

T = TypeVar("T")


class Chromium:
    """One browser process, on an event loop in a thread of its own.

    Playwright's blocking interface would leave a running loop in the thread of the tests, where others start theirs.
    """

    _playwright: Playwright
    _browser: Browser

    def __init__(self, executable: str) -> None:
        self._executable = executable
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chromium", daemon=True)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = WAIT) -> T:
        """Wait for a coroutine on the browser's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    @contextmanager
    def tab(self) -> Iterator["Tab"]:
        """A page in a profile of its own: cookies, storage and cache start empty."""
        context = self.run(self._browser.new_context())
        try:
            yield Tab(self, self.run(context.new_page()))
        finally:
            self.run(context.close())

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._start(), START)
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT)
        self._loop.close()

    async def _start(self) -> None:
        self._playwright = await async_playwright().start()
        # Without the sandbox, which is Playwright's default: Chromium refuses to run as root with it.
        self._browser = await self._playwright.chromium.launch(executable_path=self._executable, args=_ARGUMENTS)

    async def _stop(self) -> None:
        await self._browser.close()
        await self._playwright.stop()


class Tab:
    """A page, and the profile that it is in."""

    def __init__(self, chromium: Chromium, page: Page) -> None:
        self._chromium = chromium
        self._page = page

    def open(self, url: str) -> int:
        """Go there, as by the address bar; the status."""
        response = self._chromium.run(self._page.goto(url))
        assert response is not None
        return response.status

    def run(self, script: str, argument: object = None) -> Any:
        """Call a JavaScript function in the page; what it returns, or what its promise comes to."""
        return self._chromium.run(self._page.evaluate(script, argument))

    def fetch(self, url: str, **options: object) -> dict[str, Any]:
        """`fetch()` in the page: `status`, `fields` and `body`, or the name of the `error`."""
        answer: dict[str, Any] = self.run(_FETCH, [url, options])
        return answer

    def cookies(self) -> list[tuple[str, str, str]]:
        """Name, value and path of every cookie in the profile, `HttpOnly` ones too."""
        found = self._chromium.run(self._page.context.cookies())
        return sorted((cookie["name"], cookie["value"], cookie["path"]) for cookie in found)
