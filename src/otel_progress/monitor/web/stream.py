"""Streams of changes for many readers: each frame is encoded, and deflated, once; a reader holds an index into a ring.

Ids are `EPOCH-SEQUENCE`, with a fresh epoch at each start. A reader that reconnects with an id gets what it missed, or
`reset` if that is gone. A reader that cannot keep up is disconnected and reconnects, so it misses no end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from otel_progress import clock
from otel_progress.monitor.intake.bodies import GONE
from otel_progress.monitor.web import packing
from otel_progress.monitor.web.dump import dump
from otel_progress.monitor.web.threads import in_thread
from otel_progress.outbound.loopback import is_loopback

FRAMES: Final = 1_200
FRAME_BYTES: Final = 8 * 1024 * 1024
"""The most bytes of frames that are kept for readers that reconnect."""
FEW_BYTES: Final = 1024 * 1024
"""The same for a topic of one operation, of which there may be many."""
BEAT_SECONDS: Final = 10.0
SLOW_SECONDS: Final = 10.0
"""Seconds after which a reader that takes nothing is disconnected."""
READERS: Final = 5_000
GIVEN: Final = 20_000
"""The most operations that are remembered as shown to an owner."""
KEEP_SECONDS: Final = 60.0
"""Seconds that a topic is kept after its last reader, for readers that reconnect."""
ONE: Final = "operation "
ONE_OF: Final = "operation-of "
"""The prefix of topics about one operation."""
OWNED: Final = "owner "
"""The prefix of topics about all operations of one owner."""
TROUBLE: Final = "the monitor is in trouble; its operator finds the reason in /health"
"""The trouble text for owners: the real one may name operations of others."""
ENDED: Final = "ended"
"""The last event about one operation, with which the stream ends."""
BEAT: Final = b": beat\n\n"
MANY: Final = 20
"""Readers of a topic from which on those of this machine get it packed, too; fewer save nothing by that."""
HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)
PACKED_HEADERS: Final = ((b"content-encoding", b"gzip"), (b"vary", b"accept-encoding"))
PACKED_BEAT: Final = packing.stored(BEAT)


def is_of_one(topic: str) -> bool:
    """Whether this is the topic of one operation rather than of a list."""
    return topic.startswith((ONE, ONE_OF))


def of_one(topic: str) -> str | None:
    """The operation that a topic is about; None for the topic of a list."""
    if topic.startswith(ONE):
        return topic[len(ONE) :]
    if topic.startswith(ONE_OF):
        length, _, rest = topic[len(ONE_OF) :].partition(" ")
        return rest[: int(length)]
    return None


def is_private(topic: str) -> bool:
    """Whether a topic is for an owner: its numbers reveal nothing about other operations."""
    return topic.startswith((OWNED, ONE_OF))


class Numbers:
    """Frame numbers within an epoch."""

    __slots__ = ("epoch", "sequence")

    def __init__(self) -> None:
        """Start at the beginning."""
        self.epoch = os.urandom(4).hex()
        self.sequence = 0

    @property
    def position(self) -> str:
        """The id of the newest frame."""
        return f"{self.epoch}-{self.sequence}"

    def place(self, after: str | None) -> int | None:
        """The number in an id; None if the id is of another epoch, or invalid."""
        epoch, found, number = (after or "").partition("-")
        if not found or epoch != self.epoch or not number.isdecimal() or len(number) > 18:
            return None
        place = int(number)
        return place if place <= self.sequence else None

    def frame(self, sequence: int, event: str, data: str | Text) -> StreamFrame:
        """A frame with this number; `data` is JSON on one line."""
        text = Text(data.encode()) if isinstance(data, str) else data
        return StreamFrame(sequence, f"id: {self.epoch}-{sequence}\nevent: {event}\ndata: ".encode(), text)


class Text(NamedTuple):
    """The data of a message as JSON on one line; with its packed form, if that was made already."""

    plain: bytes
    packed: bytes | None = None


class StreamFrame:
    """One message: its number, and its bytes as a server-sent event."""

    __slots__ = ("_packed", "_text", "bytes", "sequence")

    def __init__(self, sequence: int, head: bytes, text: Text) -> None:
        """With what comes before its data, and the data."""
        self.sequence = sequence
        self.bytes: Final[bytes] = b"%s%s\n\n" % (head, text.plain)
        self._text = text.packed
        self._packed: bytes | None = None

    @property
    def packed(self) -> bytes:
        """Its bytes as deflate blocks, which are made once for all readers."""
        if self._packed is None:
            if self._text is None:
                self._packed = packing.packed(self.bytes)
            else:
                head = self.bytes[: self.bytes.index(b"\ndata: ") + 7]
                self._packed = b"".join((packing.stored(head), self._text, packing.stored(b"\n\n")))
                self._text = None
        return self._packed

    @property
    def name(self) -> str:
        """The name of the event."""
        return self._part(1)

    @property
    def data(self) -> str:
        """Its data, as JSON."""
        return self._part(2)

    def text(self) -> str:
        """The frame as a WebSocket message."""
        return f'{{"id":"{self._part(0)}","event":"{self.name}","data":{self.data}}}'

    def _part(self, line: int) -> str:
        return self.bytes.split(b"\n", 3)[line].partition(b": ")[2].decode()


class Reader:
    """A reader of a topic."""

    __slots__ = ("_wake", "beat", "left", "over", "packs", "position", "sending_since", "session", "task")

    def __init__(self, position: int, session: str | None = None) -> None:
        """It has received everything up to this frame; it lasts as long as its session."""
        self.position = position
        self.session = session
        self.left = False
        """Whether its session has ended."""
        self.over = False
        self.packs = False
        """Whether it gets frames packed."""
        self.beat = False
        self.sending_since: float | None = None
        self.task: asyncio.Task[Any] | None = None
        self._wake: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Wake it up: there are new frames."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def wait(self) -> None:
        """Wait for new frames."""
        self._wake = asyncio.get_running_loop().create_future()
        try:
            await self._wake
        finally:
            self._wake = None


class Topic:
    """A topic: its frames, and its readers."""

    def __init__(self, numbers: Numbers, most_bytes: int = FRAME_BYTES) -> None:
        """From now on."""
        self.numbers = numbers
        self._most_bytes = most_bytes
        self._given: dict[str, int] | None = {}
        self.readers: set[Reader] = set()
        self.frames: deque[StreamFrame] = deque()
        self.missing = numbers.sequence
        """Frames up to this one are no longer available."""
        self.left_at = clock.monotonic()
        self.over: int | None = None
        """The frame that ends the stream, while the operation has ended."""
        self._bytes = 0

    def add(self, frame: StreamFrame) -> None:
        """Add a frame."""
        self.frames.append(frame)
        self._bytes += len(frame.bytes)
        while len(self.frames) > FRAMES or (self._bytes > self._most_bytes and len(self.frames) > 1):
            oldest = self.frames.popleft()
            self._bytes -= len(oldest.bytes)
            self.missing = oldest.sequence
        for reader in self.readers:
            reader.wake()

    @property
    def packs(self) -> bool:
        """Whether a reader gets frames packed."""
        return any(reader.packs for reader in self.readers)

    def skip(self) -> None:
        """Skip a number: something happened while nobody was listening."""
        self.numbers.sequence += 1
        self.frames.clear()
        self._bytes = 0
        self.missing = self.numbers.sequence

    def give(self, operation_id: str, revision: int) -> bool:
        """Note the row that an owner is given; whether it differs from the last one."""
        if self._given is None:
            return True
        new = self._given.get(operation_id) != revision
        self._given[operation_id] = revision
        if len(self._given) > GIVEN:
            self._given = None
        return new

    def take_back(self, ids: Iterable[str]) -> list[str] | None:
        """Which of these were given and are removed; None if unknown."""
        if self._given is None:
            return None
        found = [key for key in ids if key in self._given]
        for key in found:
            del self._given[key]
        return found

    def after(self, position: int) -> list[StreamFrame] | None:
        """The frames after this one; None if they are no longer all available."""
        if position < self.missing:
            return None
        found: list[StreamFrame] = []
        for frame in reversed(self.frames):
            if frame.sequence <= position:
                break
            found.append(frame)
        return found[::-1]


class Hub:
    """All topics; it belongs to the loop of the server."""

    def __init__(self, interval: float, version: str) -> None:
        """Announce the interval at the start of each stream."""
        self.numbers = Numbers()
        """The numbers of all topics that are not private."""
        self.valid: Callable[[str], bool] = lambda _: True
        """Whether a session is open."""
        self.topics: dict[str, Topic] = {}
        self.dropped = 0
        self.trouble: str | None = None
        """What is wrong with the monitor itself, in words."""
        self._interval = interval
        self._version = version
        self._closed = False

    def position(self, topic: str) -> str:
        """The id of the newest frame of a topic; a private topic is kept from now on, as it has numbers of its own."""
        if not is_private(topic):
            return self.numbers.position
        found = self.topic(topic)
        found.left_at = clock.monotonic()
        return found.numbers.position

    @property
    def readers(self) -> int:
        """The number of readers."""
        return sum(len(topic.readers) for topic in self.topics.values())

    def topic(self, name: str) -> Topic:
        """A topic; it is created if it does not exist."""
        found = self.topics.get(name)
        if found is None:
            numbers = Numbers() if is_private(name) else self.numbers
            found = self.topics[name] = Topic(numbers, FEW_BYTES if is_of_one(name) else FRAME_BYTES)
        return found

    def publish(self, topic: str, event: str, data: str | Text) -> None:
        """Add a frame to a topic; `data` is JSON on one line."""
        found = self.topics.get(topic)
        if found is not None:
            found.numbers.sequence += 1
            found.add(found.numbers.frame(found.numbers.sequence, event, data))

    def end(self, topic: str, data: str) -> None:
        """End a topic: its readers are disconnected after this frame."""
        found = self.topics.get(topic)
        if found is not None and found.over is None:
            self.publish(topic, ENDED, data)
            found.over = found.numbers.sequence

    def has_all(self, topic: str, after: str | None) -> bool:
        """Whether a reader with this id has received everything, including the end of the topic."""
        found = self.topics.get(topic)
        place = None if found is None else found.numbers.place(after)
        return place is not None and found is not None and found.after(place) == []

    def turn(self) -> None:
        """Something changed: readers of topics that were forgotten since must reload."""
        self.numbers.sequence += 1

    def skip(self, topic: str) -> None:
        """Something happened while a topic has no readers."""
        found = self.topics.get(topic)
        if found is not None:
            found.skip()

    def tidy(self, now: float) -> None:
        """Forget unused topics, and drop readers that are stuck or whose session ended; to be called each second."""
        for name, topic in list(self.topics.items()):
            if topic.readers:
                topic.left_at = now
            elif now - topic.left_at > KEEP_SECONDS:
                del self.topics[name]
            for reader in tuple(topic.readers):
                since = reader.sending_since
                if since is not None and now - since > SLOW_SECONDS and reader.task is not None:
                    self.dropped += 1
                    reader.task.cancel()
                elif reader.session is not None and not self.valid(reader.session):
                    reader.left = True
                    reader.wake()

    def beat(self) -> None:
        """Send a comment to all readers, to show that the connection is alive."""
        for topic in self.topics.values():
            for reader in topic.readers:
                reader.beat = True
                reader.wake()

    def close(self) -> None:
        """End all streams; readers reconnect when the server is back."""
        self._closed = True
        for topic in self.topics.values():
            for reader in topic.readers:
                reader.wake()

    def begin(
        self,
        topic: str,
        after: str | None,
        first: Iterable[tuple[str, str | Text]],
        since: str | None = None,
        session: str | None = None,
    ) -> tuple[Reader, list[StreamFrame]]:
        """Add a reader; returns it with its first frames: a greeting, then `reset`, or `first` without an id.

        If `first` contains the end, a reader that comes back with an id gets it, too.

        `since` is the position before `first` was made: what was published meanwhile follows it.
        """
        numbers = self.topic(topic).numbers
        place, made = numbers.place(after), numbers.place(since)
        reader = Reader((numbers.sequence if made is None else made) if place is None else place, session)
        hello = {
            "position": numbers.position,
            "interval": self._interval,
            "version": self._version,
            "server_time": clock.time_ns() / 1e9,
            "trouble": TROUBLE if self.trouble and is_private(topic) else self.trouble,
        }
        frames = [numbers.frame(reader.position, "hello", dump(hello))]
        if after and place is None:
            frames.append(numbers.frame(reader.position, "reset", "{}"))
        first = list(first)
        reader.over = bool(first) and first[-1][0] == ENDED
        if not after or place is None or reader.over:
            frames.extend(numbers.frame(numbers.sequence if reader.over else reader.position, *one) for one in first)
        return reader, frames

    async def follow(
        self,
        topic: Topic,
        reader: Reader,
        first: list[StreamFrame],
        say: Callable[[list[StreamFrame]], Any],
        beat: Callable[[], Any],
    ) -> None:
        """Yield these frames, then new ones, until the topic ends, the hub closes, or the reader leaves."""
        reader.task = asyncio.current_task()
        topic.readers.add(reader)
        try:
            await say(first)
            while not (self._closed or reader.over or reader.left):
                frames = topic.after(reader.position)
                if frames is None:
                    reader.position = topic.numbers.sequence
                    frames = [topic.numbers.frame(reader.position, "reset", "{}")]
                elif frames:
                    reader.position = frames[-1].sequence
                reader.sending_since = clock.monotonic()
                if frames:
                    await say(frames)
                elif reader.beat:
                    reader.beat = False
                    await beat()
                reader.sending_since = None
                reader.over = topic.over is not None and reader.position >= topic.over
                if not frames and not reader.over:
                    await reader.wait()
        finally:
            topic.readers.discard(reader)


async def serve_events(
    hub: Hub,
    topic: str,
    after: str | None,
    first: list[tuple[str, str]],
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    since: str | None = None,
    session: str | None = None,
) -> None:
    """Serve a topic as server-sent events, over one HTTP connection."""
    packs = _packs(scope, hub.topic(topic))
    made = await in_thread(_packed, first) if packs and first else first
    reader, frames = hub.begin(topic, after, made, since, session)
    reader.packs = packs
    checksum = packing.Checksum() if reader.packs and is_of_one(topic) else None  # others never end by themselves

    async def say(new: list[StreamFrame]) -> None:
        if checksum is not None:
            for frame in new:
                checksum.add(frame.bytes)
        body = b"".join([frame.packed if reader.packs else frame.bytes for frame in new])
        await send({"type": "http.response.body", "body": body, "more_body": True})

    async def beat() -> None:
        if checksum is not None:
            checksum.add(BEAT)
        await send({"type": "http.response.body", "body": PACKED_BEAT if reader.packs else BEAT, "more_body": True})

    headers = [*HEADERS, *(PACKED_HEADERS if reader.packs else ())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if reader.packs:
        await send({"type": "http.response.body", "body": packing.HEADER, "more_body": True})
    with _until_gone(scope, receive):
        await hub.follow(hub.topic(topic), reader, frames, say, beat)
    end = b"" if checksum is None else checksum.end()
    await send({"type": "http.response.body", "body": end, "more_body": False})


def _packed(first: Sequence[tuple[str, str]]) -> list[tuple[str, Text]]:
    """The first events of a stream, which may be large, with their packed form."""
    return [(event, Text(data.encode(), packing.packed(data.encode()))) for event, data in first]


def _packs(scope: Scope, topic: Topic) -> bool:
    """Whether a reader gets frames packed: if it accepts that, and it saves something."""
    accepts = any(
        name == b"accept-encoding" and packing.accepts_gzip(value.decode("latin-1")) for name, value in scope["headers"]
    )
    client = scope.get("client")
    return accepts and (len(topic.readers) >= MANY or client is None or not is_loopback(client[0]))


@contextlib.contextmanager
def _until_gone(scope: Scope, receive: Receive) -> Iterator[None]:
    """Serve until the client is gone or is dropped.

    On a server with a list of what to call on disconnect, this needs no extra task, and so less memory for each reader.

    Raises:
        ConnectionAbortedError: if the client is gone.
    """
    serving = asyncio.current_task()
    assert serving is not None
    gone: list[Callable[[], object]] | None = scope.get(GONE)
    watching: asyncio.Future[None] | None = None
    if gone is not None:
        gone.append(serving.cancel)
    else:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            serving.cancel()

        watching = asyncio.ensure_future(watch())
    try:
        yield
    except asyncio.CancelledError:
        raise ConnectionAbortedError from None
    finally:
        if gone is not None:
            gone.remove(serving.cancel)
        if watching is not None:
            watching.cancel()


async def serve_socket(
    hub: Hub,
    topic: str,
    after: str | None,
    first: list[tuple[str, str]],
    receive: Receive,
    send: Send,
    *,
    since: str | None = None,
    session: str | None = None,
) -> None:
    """Serve a topic as WebSocket messages; incoming messages are ignored."""
    reader, frames = hub.begin(topic, after, first, since, session)

    async def say(new: list[StreamFrame]) -> None:
        for frame in new:
            await send({"type": "websocket.send", "text": frame.text()})

    async def beat() -> None:
        """The server's own pings keep the connection alive."""

    async def left() -> None:
        while (await receive())["type"] != "websocket.disconnect":
            pass
        main.cancel()

    await receive()
    with contextlib.suppress(WebSocketDisconnect):  # it left while something was sent
        await send({"type": "websocket.accept"})
        main = asyncio.ensure_future(hub.follow(hub.topic(topic), reader, frames, say, beat))
        gone = asyncio.ensure_future(left())
        try:
            await main
            code, reason = (1000, "it has ended") if reader.over else (1012, "the monitor ends")
            if reader.left:
                code, reason = 1008, "the session has ended"
            await send({"type": "websocket.close", "code": code, "reason": reason})
        except asyncio.CancelledError:
            if not main.cancelled():
                main.cancel()
                raise
            if not gone.done():
                await send({"type": "websocket.close", "code": 1013, "reason": "too slow"})
        finally:
            gone.cancel()
