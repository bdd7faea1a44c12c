"""Events that wait for the Collector: bounded, and what matters most goes last.

What a reader can do without is dropped first: plain updates and notes, then stages and waits, then starts.
The end of an operation is kept longest, and where the receiver knows that it had started only the bytes limit it: else
it would look lost there for ever. What is dropped is counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from otel_progress import semconv as s
from otel_progress.live.guard import drops

REQUEST_BYTES: Final = 900_000
"""The most that one request holds; receivers take 4 MiB by default."""
BYTES: Final = 32 * 1024 * 1024
"""The most that waits in all."""
HEARD: Final = 100_000

PLAIN, STEP, STATE, UNHEARD_END, END = range(5)
_RANKS: Final = {
    s.UPDATED: PLAIN,
    s.NOTE: PLAIN,
    s.HEARTBEAT: PLAIN,
    s.PROCESS_HEARTBEAT: PLAIN,
    s.STAGE_STARTED: STEP,
    s.STAGE_ENDED: STEP,
    s.WAIT_STARTED: STEP,
    s.WAIT_ENDED: STEP,
}
_REPLACEABLE: Final = frozenset({s.UPDATED, s.PROCESS_HEARTBEAT})


class Letter(NamedTuple):
    """An encoded event, with whose it is."""

    event: str
    owner: str
    body: bytes


@dataclass
class Unsent:
    """Events that the receiver does not have: ends of operations, and others."""

    ends: int = 0
    others: int = 0

    def add(self, letter: Letter) -> None:
        """Count one more."""
        if letter.event == s.OPERATION_ENDED:
            self.ends += 1
        elif letter.event != s.PROCESS_HEARTBEAT:  # it says that the process lives, which is over
            self.others += 1


class Outbox:
    """Letters in their order; the sender takes a batch, and acknowledges it when it was delivered.

    It is not locked: its owner does that.
    """

    def __init__(self, most: int = 10_000, most_bytes: int = BYTES) -> None:
        """Hold at most so many letters, and so many bytes."""
        self._most = most
        self._most_bytes = most_bytes
        self._letters: dict[int, Letter] = {}
        self._ranks: tuple[dict[int, None], ...] = tuple({} for _ in range(END + 1))
        self._updates: dict[str, int] = {}
        self._ends: dict[str, int] = {}
        self._heard: dict[str, None] = {}
        self._flying: frozenset[int] = frozenset()
        self._fallen: dict[int, Letter] = {}
        self._next = 0
        self.bytes = 0
        self.lost = Unsent()
        """What was dropped or refused so far."""

    def __len__(self) -> int:
        return len(self._letters)

    def add(self, letter: Letter) -> None:
        """Put a letter in; a plain update takes the place of the last one of its owner."""
        serial = self._next
        self._next += 1
        if letter.event in _REPLACEABLE:
            before = self._updates.get(letter.owner)
            if before is not None:
                self._remove(before)
            self._updates[letter.owner] = serial
        self._letters[serial] = letter
        self._ranks[self._rank(letter)][serial] = None
        if letter.event == s.OPERATION_ENDED:
            self._ends[letter.owner] = serial
        self.bytes += len(letter.body)
        ends = self._ranks[END]
        while len(self._letters) - len(ends) > self._most or (self.bytes > self._most_bytes and len(self._letters) > 1):
            victim = next(serial for rank in self._ranks for serial in rank)
            if victim in self._flying:
                self._fallen[victim] = self._letters[victim]  # it may be delivered yet
            else:
                self._lose(s.DROP_OUTBOX, [self._letters[victim]])
            self._remove(victim)

    def _lose(self, reason: str, letters: Iterable[Letter]) -> None:
        for letter in letters:
            drops.add(reason)
            self.lost.add(letter)

    def refused(self, count: int) -> None:
        """The receiver took a request but for so many of its letters; which, it does not say."""
        if count > 0:
            drops.add(s.DROP_REJECTED, count)
            self.lost.others += count

    def unsent(self) -> Unsent:
        """What was lost so far, and what waits."""
        found = Unsent(self.lost.ends, self.lost.others)
        for letter in self._letters.values():
            found.add(letter)
        return found

    def give_up(self) -> Unsent:
        """Nothing is sent any more: all that waits is lost. Returns all that was lost so far, and counts anew."""
        self._flying = frozenset()
        self._lose(s.DROP_OUTBOX, list(self._letters.values()))
        for serial in list(self._letters):
            self._remove(serial)
        self._fallen.clear()
        lost, self.lost = self.lost, Unsent()
        return lost

    def _rank(self, letter: Letter) -> int:
        if letter.event == s.OPERATION_ENDED:
            return END if letter.owner in self._heard else UNHEARD_END
        return _RANKS.get(letter.event, STATE)

    def _remove(self, serial: int) -> None:
        letter = self._letters.pop(serial, None)
        if letter is None:
            return
        for rank in self._ranks:
            rank.pop(serial, None)
        if self._updates.get(letter.owner) == serial:
            del self._updates[letter.owner]
        if self._ends.get(letter.owner) == serial:
            del self._ends[letter.owner]
        self.bytes -= len(letter.body)

    def take(self, most_bytes: int = REQUEST_BYTES) -> dict[int, Letter]:
        """The oldest letters that fit one request; they stay until they are acknowledged."""
        batch: dict[int, Letter] = {}
        size = 0
        for serial, letter in self._letters.items():
            size += len(letter.body)
            if batch and size > most_bytes:
                break
            batch[serial] = letter
            if self._updates.get(letter.owner) == serial:
                del self._updates[letter.owner]
        self._flying = frozenset(batch)
        return batch

    def _land(self, *, delivered: bool) -> None:
        """The batch on its way came to an end; what found no room meanwhile is lost if it was not delivered."""
        if self._fallen and not delivered:
            self._lose(s.DROP_OUTBOX, self._fallen.values())
        self._flying = frozenset()
        self._fallen.clear()

    def acknowledge(self, batch: dict[int, Letter]) -> None:
        """The receiver has these: let them go, and remember whose operations it knows."""
        self._land(delivered=True)
        for serial, letter in batch.items():
            self._remove(serial)
            if letter.event == s.OPERATION_ENDED:
                self._heard.pop(letter.owner, None)
                continue
            self._hear(letter.owner)

    def keep(self, batch: dict[int, Letter]) -> None:
        """The receiver did not take these now: they wait on, but a newer update takes the place of one of them."""
        self._land(delivered=False)
        for serial, letter in batch.items():
            if serial in self._letters and letter.event in _REPLACEABLE:
                newer = self._updates.get(letter.owner, -1)
                if newer > serial:
                    self._remove(serial)
                else:
                    self._updates[letter.owner] = serial

    def suppose(self, batch: dict[int, Letter]) -> list[str]:
        """The receiver may have these from now on, whether it says so or not; returns the operations new to it."""
        return [letter.owner for letter in batch.values() if self._hear(letter.owner)]

    def _hear(self, owner: str) -> bool:
        new = owner not in self._heard and len(self._heard) < HEARD
        if new:
            self._heard[owner] = None
        end = self._ends.get(owner)
        if end is not None and self._ranks[UNHEARD_END].pop(end, self) is None:
            self._ranks[END][end] = None
        return new

    def unhear(self, owners: list[str]) -> None:
        """The receiver surely has nothing of these operations."""
        for owner in owners:
            self._heard.pop(owner, None)
            end = self._ends.get(owner)
            if end is not None and self._ranks[END].pop(end, self) is None:
                self._ranks[UNHEARD_END][end] = None

    def discard(self, batch: dict[int, Letter], *, ends: bool) -> bool:
        """The receiver won't take these; without `ends`, ends of operations that it knows stay. Whether any did."""
        self._land(delivered=False)
        kept = set() if ends else batch.keys() & self._ranks[END].keys()
        refused = (batch.keys() - kept) & self._letters.keys()
        if refused:
            self._lose(s.DROP_REJECTED, [batch[serial] for serial in refused])
        for serial in refused:
            self._remove(serial)
            if batch[serial].event == s.OPERATION_ENDED:
                self._heard.pop(batch[serial].owner, None)
        return bool(kept)
