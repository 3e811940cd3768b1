"""Admission: how much the server has accepted and not answered yet, and when to come back where that is too much."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sapatchcore.server.refusals import Refused


class Ticket:
    """A request's place in the queue: so many images and bytes, until it is given back."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.images = self.bytes = 0

    def grow(self, images: int, size: int) -> None:
        """Take up so much more. Raises Refused (503) where the queue is full."""
        self._queue.take(images, size)
        self.images += images
        self.bytes += size

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.give_back(self.images, self.bytes)
        self.images = self.bytes = 0


class Queue:
    """What the server has accepted and not answered yet, bounded in images and bytes. For the event loop's thread alone."""

    _WINDOW = 20.0  # seconds over which the rate is measured

    def __init__(self, images: int, size: int) -> None:
        self.most_images, self.most_bytes = images, size
        self.images = self.bytes = 0
        self._done: deque[tuple[float, int]] = deque()  # when, how many images: of the last seconds
        self._images_done = 0

    def ticket(self, size: int) -> Ticket:
        """A place for a request of one image or more, of ``size`` bytes as far as is known."""
        ticket = Ticket(self)
        ticket.grow(1, size)
        return ticket

    def check(self, images: int, size: int) -> None:
        """Raises Refused (503, with Retry-After) where there is no room for so much more."""
        if self.images + images > self.most_images or self.bytes + size > self.most_bytes:
            raise Refused(503, "The queue is full. Try again later.", retry_after=self.retry_after())

    def take(self, images: int, size: int) -> None:
        """Raises as ``check``."""
        self.check(images, size)
        self.images += images
        self.bytes += size

    def give_back(self, images: int, size: int) -> None:
        """A request is answered."""
        self.images -= images
        self.bytes -= size
        self._done.append((time.monotonic(), images))
        self._images_done += images
        self._forget()

    def retry_after(self) -> int:
        """Seconds until what waits now is done, at the rate of the last seconds; 1 to 60."""
        self._forget()
        span = time.monotonic() - self._done[0][0] if self._done else 0.0
        if self._images_done < 2 or span <= 0:
            return 1
        return min(60, max(1, math.ceil(self.images * span / self._images_done)))

    def _forget(self) -> None:
        since = time.monotonic() - self._WINDOW
        while self._done and self._done[0][0] < since:
            self._images_done -= self._done.popleft()[1]


class Budget:
    """Bytes that may be taken at a time, first come, first served. For the event loop's thread alone.

    An amount beyond the whole budget is granted when nothing else is taken.
    """

    def __init__(self, most: int) -> None:
        self._most, self._taken = most, 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def room(self, amount: int) -> AsyncIterator[None]:
        """``amount`` bytes, until the block ends."""
        if self._waiting or not self._fits(amount):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((amount, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # granted in the same moment
                    self._give_back(amount)
                else:  # it may have stood before others that fit
                    self._grant()
                raise
        else:
            self._taken += amount
        try:
            yield
        finally:
            self._give_back(amount)

    def _fits(self, amount: int) -> bool:
        return self._taken == 0 or self._taken + amount <= self._most

    def _give_back(self, amount: int) -> None:
        self._taken -= amount
        self._grant()

    def _grant(self) -> None:
        while self._waiting and (self._waiting[0][1].cancelled() or self._fits(self._waiting[0][0])):
            amount, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._taken += amount
                turn.set_result(None)
