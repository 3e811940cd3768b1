"""The load generator, a process of its own: ``load_client.py TASK ANSWERS`` reads a task and writes what was answered.

Image files are read beforehand; a request costs a checksum of its comment and a write. How much of a core that took is in
the answers (``cpu_seconds`` of ``wall_seconds``), and so is every answer: when, how long, status, record and image hash.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from load_http import Answer, Body, Connection, NoAnswer, request

PAUSE = 0.05  # seconds before a client that was told 503 asks again


@dataclass(frozen=True)
class Task:
    """What to send. target: path and query. images: files, sent in turn, each time with another comment.

    clients: that many ask again and again for ``seconds``. rate: instead of that, requests a second, sent when their time has
    come, however many are under way; ``probe`` seconds of single requests follow. first: the number of the first comment.
    until_gone: the server is going to be killed; a client stops where its connection breaks.
    """

    port: int
    token: str
    target: str
    images: list[str]
    clients: int = 1
    seconds: float = 1.0
    rate: float = 0.0
    probe: float = 0.0
    first: int = 0
    until_gone: bool = False
    timeout: float = 60.0


@dataclass
class Answers:
    """answered: [begin, seconds, status, record or null, hash as sent] of each, ``begin`` after the start; whole 200s whose
    hash was not the sent one are in ``failures``."""

    answered: list[list[Any]] = field(default_factory=list)
    probed: list[list[Any]] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    most_at_once: int = 0
    overload_end: float = 0.0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


class Generator:
    """Sends what a task says."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.answers = Answers()
        self._bodies = itertools.cycle([Body(Path(name).read_bytes()) for name in task.images])
        self._numbers = itertools.count(task.first)
        self._idle: list[Connection] = []
        self._at_once = 0
        self._begin = time.perf_counter()

    async def run(self) -> Answers:
        cpu = time.process_time()
        self._begin = time.perf_counter()
        if self.task.rate:
            await self._open_loop()
        else:
            await asyncio.gather(*(self._client() for _ in range(self.task.clients)))
        self.answers.wall_seconds = time.perf_counter() - self._begin
        self.answers.cpu_seconds = time.process_time() - cpu
        return self.answers

    async def _client(self) -> None:
        """One after the other, until the time is over."""
        connection = None
        while self._now() < self.task.seconds:
            try:
                if connection is None or not connection.is_open:
                    connection = await Connection.open(self.task.port)
                answer = await self._ask(connection, self.answers.answered)
            except (OSError, TimeoutError) as error:
                self._failed(error)
                if self.task.until_gone:
                    break
                connection = None
                await asyncio.sleep(PAUSE)
                continue
            if answer.status != 200:
                await asyncio.sleep(PAUSE)
        if connection is not None:
            connection.close()

    async def _open_loop(self) -> None:
        """At their times, whether the ones before are answered or not; then single ones, to see it recover."""
        sent = []
        for time_due in self._due():
            if (early := time_due - self._now()) > 0:
                await asyncio.sleep(early)
            sent.append(asyncio.create_task(self._arrival()))
        self.answers.overload_end = self._now()
        await self._probe()
        await asyncio.gather(*sent)

    async def _probe(self) -> None:
        end = self._now() + self.task.probe
        while self._now() < end:
            try:
                connection = await Connection.open(self.task.port)
                await self._ask(connection, self.answers.probed)
                connection.close()
            except (OSError, TimeoutError) as error:
                self._failed(error, "probe: ")
            await asyncio.sleep(PAUSE)

    def _due(self) -> Iterator[float]:
        number = 0
        while (due := number / self.task.rate) < self.task.seconds:
            yield due
            number += 1

    async def _arrival(self) -> None:
        self._at_once += 1
        self.answers.most_at_once = max(self.answers.most_at_once, self._at_once)
        try:
            connection = await self._connection()
            await self._ask(connection, self.answers.answered)
            if connection.is_open:
                self._idle.append(connection)
        except (OSError, TimeoutError) as error:
            self._failed(error)
        finally:
            self._at_once -= 1

    async def _connection(self) -> Connection:
        """One that is open and not in use, or a new one."""
        while self._idle:
            if (connection := self._idle.pop()).is_open:
                return connection
        return await Connection.open(self.task.port)

    async def _ask(self, connection: Connection, answered: list[list[Any]]) -> Answer:
        body = next(self._bodies)
        tail, sent_hash = body.numbered(next(self._numbers))
        length = len(body.front) + len(tail)
        head = request("POST", self.task.target, self.task.token, media_type=body.media_type, length=length)
        begin = self._now()
        answer = await connection.send((head, body.front, tail), self.task.timeout)
        record = None
        if answer.status == 200:
            (result,) = json.loads(answer.body)["results"]
            record = result["record"]
            if result["image_hash"] != sent_hash:
                self._count("another image's answer")
        answered.append([begin, answer.seconds, answer.status, record, sent_hash])
        return answer

    def _failed(self, error: Exception, when: str = "") -> None:
        kind = "no answer" if isinstance(error, NoAnswer) else type(error).__name__
        self._count(when + kind)

    def _count(self, failure: str) -> None:
        self.answers.failures[failure] = self.answers.failures.get(failure, 0) + 1

    def _now(self) -> float:
        return time.perf_counter() - self._begin


def main() -> None:
    task = Task(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    answers = asyncio.run(Generator(task).run())
    Path(sys.argv[2]).write_text(json.dumps(asdict(answers)), encoding="utf-8")


if __name__ == "__main__":
    main()
