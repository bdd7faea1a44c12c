"""Leads prints and log lines around what is drawn, so that neither tears the other."""

from __future__ import annotations

import logging
import sys
import threading
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PARTIAL: Final = 65_536
"""Characters of an unfinished line that wait for its end."""


class StreamProxy:
    """Stands for a stream: while `above` is set, whole lines go there; at other times all goes to the stream."""

    def __init__(self, stream: Any) -> None:
        """Lead nothing around yet."""
        self.stream = stream
        self.above: Callable[[Sequence[str]], None] | None = None
        self.forget()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def forget(self) -> None:
        """Start anew; in a forked child what waits is the parent's, and so may be the lock."""
        self._guard = threading.RLock()
        self._partial = ""

    def write(self, text: str) -> int:
        """Pass whole lines on; where a carriage return wrote over a line, what was written last."""
        above = self.above
        if above is None:
            return int(self.stream.write(text) or 0)
        with self._guard:
            *lines, rest = (self._partial + text).split("\n")
            self._partial = (rest if rest.endswith("\r") else rest.rpartition("\r")[2])[-PARTIAL:]
            if lines:
                try:
                    above([line.rstrip("\r").rpartition("\r")[2] for line in lines])
                except Exception:
                    self.stream.write("\n".join([*lines, ""]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write them one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Only a line that has no end yet may wait here."""
        if self.above is None:
            self.stream.flush()

    def end(self) -> None:
        """Let go of the line that has no end."""
        rest, self._partial = self._partial, ""
        if rest:
            self.stream.write(rest)
            self.stream.flush()


class Diversion:
    """Puts a proxy in the place of standard streams, and into handlers of logging that keep one of them."""

    def __init__(self, above: Callable[[Sequence[str]], None], file: IO[str]) -> None:
        """For those standard streams that show on a terminal; files and pipes stay as they are."""
        self._above = above
        self._handlers: list[tuple[logging.StreamHandler[Any], Any]] = []
        self._proxies: dict[str, StreamProxy] = {}
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, StreamProxy) and (stream is file or on_terminal(stream)):
                self._proxies[name] = StreamProxy(stream)

    def on(self) -> None:
        """Lead it around from now on."""
        for name, proxy in self._proxies.items():
            proxy.above = self._above
            if getattr(sys, name) is proxy.stream:
                setattr(sys, name, proxy)
        proxies = {id(proxy.stream): proxy for proxy in self._proxies.values()}
        for logger in (logging.root, *list(logging.root.manager.loggerDict.values())):
            for handler in list(getattr(logger, "handlers", ())):
                stand_in = proxies.get(id(vars(handler).get("stream")))
                if stand_in is not None and isinstance(handler, logging.StreamHandler):
                    self._handlers.append((handler, stand_in.stream))
                    handler.setStream(stand_in)

    def off(self, *, forked: bool = False) -> None:
        """Put the streams back, and let go of lines that have no end; a forked child forgets them."""
        for name, proxy in self._proxies.items():
            if forked:
                proxy.forget()
            proxy.above = None
            if getattr(sys, name) is proxy:
                setattr(sys, name, proxy.stream)
        for handler, stream in self._handlers:
            if isinstance(handler.stream, StreamProxy):
                handler.stream = stream
        self._handlers.clear()
        for proxy in self._proxies.values():
            proxy.end()


def on_terminal(stream: Any) -> bool:
    """Whether it says so; one that is closed does not."""
    try:
        return bool(stream.isatty())
    except Exception:
        return False
