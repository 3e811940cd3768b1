"""The load generator, a process of its own: ``python -m benchmarks.server.generator TASK ANSWERS``, both JSON files.

locust sends; every answer is written down: when, how long, status, record and image hash. Image files are read beforehand; how
much of a core the rest took is in the answers (``cpu_seconds`` of ``wall_seconds``).
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent.pool
from locust import FastHttpUser, task
from locust.env import Environment
from locust.exception import StopUser

from benchmarks.server.wire import HOST, NumberedImage

PAUSE = 0.05  # seconds before a client that was told 503 asks again
CONNECTIONS = 2000  # that requests which are sent at their time may share


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
    hash was not the sent one are in ``failures``, with the requests that had no answer."""

    answered: list[list[Any]] = field(default_factory=list)
    probed: list[list[Any]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0
    overload_end: float = 0.0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


class Client(FastHttpUser):
    """One client that asks again and again, or one that sends everything at its time; ``prepare`` says which."""

    given: Task
    answers: Answers
    begin: float
    status = 200  # of the last answer, 0 where there was none

    @classmethod
    def prepare(cls, given: Task) -> None:
        cls.given, cls.answers, cls.begin = given, Answers(), time.perf_counter()
        cls.network_timeout = cls.connection_timeout = given.timeout
        cls.concurrency = CONNECTIONS if given.rate else 1
        cls.images = itertools.cycle([NumberedImage(Path(name)) for name in given.images])
        cls.numbers = itertools.count(given.first)

    def wait_time(self) -> float:
        return 0.0 if self.status == 200 else PAUSE

    @task
    def work(self) -> None:
        if self.given.rate:
            self.send_at_their_time()
            raise StopUser
        self.status = self.ask(self.answers.answered)
        if self.given.until_gone and not self.status:
            raise StopUser

    def send_at_their_time(self) -> None:
        """Whether the ones before are answered or not; then single ones, to see it recover."""
        sent = gevent.pool.Group()
        for number in range(int(self.given.rate * self.given.seconds)):
            gevent.sleep(max(0.0, number / self.given.rate - self.now()))
            sent.spawn(self.ask, self.answers.answered)
            self.answers.most_at_once = max(self.answers.most_at_once, len(sent))
        self.answers.overload_end = self.now()
        while self.now() < self.answers.overload_end + self.given.probe:
            self.ask(self.answers.probed)
            gevent.sleep(PAUSE)
        sent.join()

    def ask(self, answered: list[list[Any]]) -> int:
        image = next(self.images)
        content, sent_hash = image.numbered(next(self.numbers))
        headers = {"Authorization": f"Bearer {self.given.token}", "Content-Type": image.media_type}
        begin = self.now()
        answer = self.client.post(self.given.target, data=content, headers=headers)
        seconds, record = self.now() - begin, None
        if not answer.status_code:
            self.answers.failures[type(answer.error).__name__] += 1
            return 0
        if answer.status_code == 200:
            (result,) = json.loads(answer.content)["results"]
            record = result["record"]
            self.answers.failures.update(["another image's answer"] if result["image_hash"] != sent_hash else [])
        answered.append([begin, seconds, answer.status_code, record, sent_hash])
        return int(answer.status_code)

    def now(self) -> float:
        return time.perf_counter() - self.begin


def run(given: Task) -> Answers:
    """Send it all; requests that are under way at the end are waited for."""
    environment = Environment(user_classes=[Client], host=f"http://{HOST}:{given.port}", stop_timeout=given.timeout)
    runner = environment.create_local_runner()
    cpu = time.process_time()
    Client.prepare(given)
    clients = 1 if given.rate else given.clients
    print("sending", flush=True)  # it takes seconds until all is imported
    runner.start(clients, spawn_rate=clients)
    runner.spawning_greenlet.join()
    while runner.user_count and (given.rate or time.perf_counter() - Client.begin < given.seconds):
        gevent.sleep(PAUSE)
    runner.quit()
    Client.answers.wall_seconds = time.perf_counter() - Client.begin
    Client.answers.cpu_seconds = time.process_time() - cpu
    return Client.answers


if __name__ == "__main__":
    found = run(Task(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
    Path(sys.argv[2]).write_text(json.dumps(vars(found)), encoding="utf-8")
