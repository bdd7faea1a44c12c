"""Diverts prints and log lines above what is drawn, so that neither tears the other."""

from __future__ import annotations

import logging
import sys
import threading
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PARTIAL: Final = 65_536
"""The most characters that are kept of an unfinished line."""


class StreamProxy:
    """Stands in for a stream: while `above` is set, whole lines go there, otherwise everything goes to the stream."""

    def __init__(self, stream: Any) -> None:
        """Wrap a stream; nothing is diverted yet."""
        self.stream = stream
        self.above: Callable[[Sequence[str]], None] | None = None
        self.forget()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def forget(self) -> None:
        """Reset; in a forked child, the unfinished line and the lock are the parent's."""
        self._guard = threading.RLock()
        self._partial = ""

    def write(self, text: str) -> int:
        """Pass whole lines on; of a line overwritten after a carriage return, the last text."""
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
        """Write the lines one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream; an unfinished line stays."""
        if self.above is None:
            self.stream.flush()

    def end(self) -> None:
        """Write the unfinished line to the stream."""
        rest, self._partial = self._partial, ""
        if rest:
            self.stream.write(rest)
            self.stream.flush()


class Diversion:
    """Replaces standard streams by proxies, also in logging handlers that hold one of them."""

    def __init__(self, above: Callable[[Sequence[str]], None], file: IO[str]) -> None:
        """Prepare proxies for the standard streams that are terminals; files and pipes stay as they are."""
        self._above = above
        self._handlers: list[tuple[logging.StreamHandler[Any], Any]] = []
        self._proxies: dict[str, StreamProxy] = {}
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, StreamProxy) and (stream is file or on_terminal(stream)):
                self._proxies[name] = StreamProxy(stream)

    def on(self) -> None:
        """Start diverting."""
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
        """Restore the streams and write unfinished lines; a forked child drops them."""
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
    """Whether a stream is a terminal; a closed one is not."""
    try:
        return bool(stream.isatty())
    except Exception:
        return False
