"""What serves the embedded monitor on one event loop: views as streams, and the way of a cancel to its operation."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import WebSocketRoute

from otel_progress import clock
from otel_progress.live.engine.commands import Commands
from otel_progress.monitor.auth import Auth
from otel_progress.monitor.web.cancel import CommandAnswer, Control
from otel_progress.monitor.web.publish import Publisher
from otel_progress.monitor.web.request_error import error_as_json
from otel_progress.monitor.web.routes import Api, ApiWords
from otel_progress.monitor.web.stream import Hub
from otel_progress.monitor.web.threads import in_thread
from otel_progress.version import VERSION
from otel_progress.web import server
from otel_progress.web.embedded import of_process

if TYPE_CHECKING:
    from otel_progress.web.embedded import Embedded

INTERVAL: Final = 0.1
IDLE: Final = 1.0
"""Seconds between two looks at what changed while nobody reads."""
LOOK: Final = 0.5
"""Seconds between two looks at whether the server ends."""
POLL: Final = 20.0
"""Seconds that a poll for commands is held, at most."""
WORDS: Final = ApiWords("this process has no such operation, or it is no longer kept", "cancelled from the web page")


class Serving:
    """The parts that belong to one event loop.

    Attributes:
        loop: the loop.
        embedded: the monitor that is served.
        publisher: publishes what changes.
        application: the routes, for requests that were admitted.
    """

    def __init__(self, embedded: Embedded) -> None:
        """Serve on the running loop."""
        self.loop = asyncio.get_running_loop()
        self.embedded = embedded
        core, store, views = embedded.core, embedded.store, embedded.views
        self._hub = Hub(INTERVAL, VERSION)
        self._hub.valid = _is_valid
        self._control = Control()
        views.can_reach = self._control.connected
        self.publisher = Publisher(core, store, views, self._hub, INTERVAL, idle=IDLE)
        auth = Auth({}, port=0, loopback=True)  # for /session alone, which is not served
        api = Api(core, store, views, self._hub, self.publisher, self._control, auth, VERSION, words=WORDS)
        routes = [*api.operation_routes(), WebSocketRoute("/operations/{id}/ws", api.socket_one)]
        self.application = Starlette(routes=routes, exception_handlers={HTTPException: error_as_json})
        self.application.router.redirect_slashes = False
        self._notices = embedded.notices
        self._notices.loop, self._notices.control = self.loop, self._control
        self._server = server.find()
        works = (self.publisher.run(), self._obey(), self._watch())
        self._tasks = [self.loop.create_task(work) for work in works]

    @property
    def is_over(self) -> bool:
        """Whether its loop is closed or stands still, so that another one may serve."""
        return self.loop.is_closed() or not self.loop.is_running()

    def close(self) -> None:
        """End all streams, and whatever waits."""
        for task in self._tasks:
            task.cancel()
        self._hub.close()
        self._control.close()

    async def _obey(self) -> None:
        """Execute the commands for operations of this process."""
        commands, instance = Commands(), self.embedded.feed.instance
        answers: list[CommandAnswer] = []
        while True:
            given = await self._control.poll(instance, os.getpid(), answers, POLL)
            found = [await in_thread(commands.obey, command) for command in given]
            answers = [CommandAnswer(**answer) for answer in found if answer is not None]

    async def _watch(self) -> None:
        """End all streams when the server ends, as it waits for them."""
        while self._server is not None:
            await asyncio.sleep(LOOK)
            if self._server.should_exit:
                self.close()
                return


def _is_valid(until: str) -> bool:
    """Whether the permission of a reader still holds; the readers of streams are asked for it anew."""
    return clock.monotonic() < float(until)


_serving: Serving | None = None


async def serving() -> Serving:
    """What serves on the running loop; a loop that ended is replaced.

    Raises:
        RuntimeError: if another loop of this process serves, or the loop is not one of asyncio.
        StoreError: if no temporary file can be written.
    """
    global _serving
    embedded, loop = of_process.running, asyncio.get_running_loop()
    if embedded is None:
        embedded = await in_thread(of_process.start)
    if _serving is not None and _serving.embedded is embedded:
        if _serving.loop is loop:
            return _serving
        if not _serving.is_over:
            raise RuntimeError("another event loop of this process serves its operations already")
    _serving = Serving(embedded)
    return _serving


async def end() -> None:
    """End what serves on the running loop."""
    global _serving
    if _serving is not None and _serving.loop is asyncio.get_running_loop():
        _serving.close()
        _serving = None
