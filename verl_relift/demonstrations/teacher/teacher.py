"""The teacher that the trainer calls: it takes questions and returns answers, and no method waits for the server."""

import asyncio
import hashlib
import json
import logging
import os
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...rewards.function import RewardFunction
from ...settings import SettingsError, TeacherSettings
from .asking import Asker, messages_of
from .budget import Budget
from .cache import Cache
from .client import Client
from .question import Failure, TeacherAnswer, TeacherQuestion

logger = logging.getLogger(__name__)

_CLOSE_LIMIT = 2.0  # seconds


@dataclass
class _Open:
    """A question that the teacher holds; `answer` is set once it has arrived and until it is collected."""

    question: TeacherQuestion
    answer: TeacherAnswer | None = None


def read_api_key(settings: TeacherSettings) -> str | None:
    """Return the key in the environment variable that the settings name; None if they name none.

    Raises:
        SettingsError: the variable is not set.
    """
    if settings.api_key_env is None:
        return None
    key = os.environ.get(settings.api_key_env, "").strip()
    if not key:
        raise SettingsError(
            f"method.teacher.api_key_env={settings.api_key_env}: this environment variable is not set; export the key "
            "in it, or set method.teacher.api_key_env=null for a server that needs no key"
        )
    return key


class Teacher:
    """Asks a server for demonstrations on its own thread.

    One thread calls the methods. Each returns at once, whatever the server does.

    Args:
        settings: `method.teacher`.
        cache_dir: folder of the cached replies, created if it does not exist.
        reward: verifies replies, as it scores rollouts.

    Raises:
        SettingsError: the address is invalid, the key is missing, or the cache's folder cannot be created.
    """

    def __init__(self, settings: TeacherSettings, cache_dir: Path, reward: RewardFunction):
        address = urlsplit(settings.base_url or "")
        if address.scheme not in ("http", "https") or not address.hostname or not settings.model:
            raise SettingsError(
                f"method.teacher.base_url={settings.base_url}, method.teacher.model={settings.model}: set both, to an "
                "address like http://127.0.0.1:8000/v1 and to the name of the model there"
            )
        self._settings = settings
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"method.teacher.cache_dir={cache_dir} cannot be created ({error}); name a folder that can be written"
            ) from error
        self._budget = Budget(settings)
        self._lock = threading.Lock()
        self._open: dict[str, _Open] = {}  # by key, in the order of asking
        self._given_up: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._error: BaseException | None = None
        self._closed = False
        self._tasks: set[asyncio.Task] = set()
        self._client = Client(settings, read_api_key(settings))
        self._asker = Asker(settings, self._client, Cache(cache_dir), self._budget, reward)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="teacher", daemon=True)
        self._thread.start()

    def ask(self, question: TeacherQuestion) -> bool:
        """Ask a question.

        Returns:
            False if it is not asked, because it already waits or was given up, too many questions wait, the budget is
            spent, or the teacher is closed.
        """
        with self._lock:
            key = question.key
            full = len(self._open) >= self._settings.max_waiting
            if self._closed or key in self._open or key in self._given_up or full:
                return False
            if not self._budget.affords(self._budget.most(messages_of(self._settings, question.messages))):
                return False
            self._counts["asked"] += 1
            self._start(question)
            return True

    def collect(self) -> list[TeacherAnswer]:
        """Return the answers that arrived since the last call, in the order of asking.

        Raises:
            RuntimeError: the teacher itself failed; a server's answer never causes this.
        """
        with self._lock:
            if self._error is not None:
                raise RuntimeError("the teacher's thread failed") from self._error
            arrived = [entry.answer for entry in self._open.values() if entry.answer is not None]
            for answer in arrived:
                del self._open[answer.question.key]
                self._counts["answered"] += 1
                self._counts["verified" if answer.failure is None else f"failed/{answer.failure}"] += 1
                if answer.failure is not None and answer.failure.final:
                    self._given_up.add(answer.question.key)
            return arrived

    @property
    def waiting(self) -> int:
        """Number of questions that are asked and not answered yet."""
        with self._lock:
            return sum(entry.answer is None for entry in self._open.values())

    def metrics(self) -> dict[str, float]:
        """Return metrics by name.

        `requests` and `cache_hits` count since the process started, `waiting` is the present number, `latency` is the
        mean of the last requests in seconds, and all others count over the whole run.
        """
        waiting = self.waiting
        with self._lock:
            metrics = {name: float(self._counts[name]) for name in ("asked", "answered", "verified")}
            metrics |= {f"failed/{failure}": float(self._counts[f"failed/{failure}"]) for failure in Failure}
        metrics |= {name: float(value) for name, value in self._budget.state_dict().items()}
        metrics["waiting"] = float(waiting)
        metrics["requests"] = float(self._asker.requests)
        metrics["cache_hits"] = float(self._asker.cache_hits)
        latencies = list(self._asker.latencies)
        if latencies:
            metrics["latency"] = sum(latencies) / len(latencies)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Return held and given-up questions, counts and spending, as JSON types; never the key."""
        with self._lock:
            return {
                "settings": self._fingerprint(),
                "open": [entry.question.to_json() for entry in self._open.values()],
                "given_up": sorted(self._given_up),
                "counts": dict(self._counts),
                "budget": self._budget.state_dict(),
            }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned in a new teacher.

        Held questions are asked again, and cached answers cost nothing. If the model, system prompt or sampling
        differs, questions that were given up may be asked again.
        """
        with self._lock:
            self._counts = Counter(state["counts"])
            self._budget.load_state_dict(state["budget"])
            if state["settings"] == self._fingerprint():
                self._given_up = set(state["given_up"])
            for question in map(TeacherQuestion.from_json, state["open"]):
                if question.key not in self._open:
                    self._start(question)

    def close(self) -> None:
        """Cancel what is in flight and return within two seconds; no question can be asked afterwards."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_LIMIT)

    def _start(self, question: TeacherQuestion) -> None:
        self._open[question.key] = _Open(question)
        self._loop.call_soon_threadsafe(self._create_task, question)

    def _fingerprint(self) -> str:
        """Return a hash of the settings that a sample depends on."""
        names = ("model", "system_prompt", "temperature", "top_p", "max_tokens", "samples")
        values = {name: getattr(self._settings, name) for name in names}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    # ---- run on the teacher's thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._end())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    def _create_task(self, question: TeacherQuestion) -> None:
        task = self._loop.create_task(self._answer(question))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, question: TeacherQuestion) -> None:
        try:
            answer = await self._asker.answer(question)
        except Exception as error:
            logger.exception("teacher: question %s", question.key)
            self._error = error
            return
        with self._lock:
            self._open[question.key].answer = answer
