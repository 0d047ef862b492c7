"""Find the one cause of a run's failure.

When a process dies, others fail because of it, and Ray reports the first failure that it hears of.
"""

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

_PING_SECONDS = 5.0

# From a server's death until the workers are killed. A trainer that waits for the server itself fails in this time.
_GRACE_SECONDS = 5.0


class RunFailed(RuntimeError):
    """Training can't continue. The message is one line: the step, what failed, and why."""


Actors = Iterable[tuple[str, ray.actor.ActorHandle]]  # (name for the user, handle)


@contextmanager
def workers_end_with(workers: Actors, servers: Actors) -> Iterator[list[str]]:
    """Kill `workers` when one of `servers` dies while the context is open.

    Without this, a worker that sends weights to a dead server never returns, and the trainer waits for the worker.

    Yields:
        A list that receives one line per death; pass it to `explain`.
    """
    servers, deaths, left = list(servers), [], threading.Event()

    def watch() -> None:
        calls = {server.lifetime.remote(): name for name, server in servers}
        ended = []
        while not ended:
            ended, _ = ray.wait(list(calls), timeout=1.0)
            if left.is_set():
                return
        for call in ended:
            try:
                ray.get(call)
            except RayActorError as death:
                deaths.append(_died(calls[call], death))
        if not left.wait(_GRACE_SECONDS):
            for _, worker in workers:
                ray.kill(worker)

    thread = threading.Thread(target=watch, name="server-watch", daemon=True)
    if servers:
        thread.start()
    try:
        yield deaths
    finally:
        left.set()
        if servers:
            thread.join()


def explain(error: Exception, actors: Actors, step: int, deaths: Sequence[str] = ()) -> str:
    """Explain `error` in one line: the actor that died if one did, else the error itself.

    Args:
        error: what the trainer raised.
        actors: every process that the run depends on.
        step: the step that was running.
        deaths: deaths already known. They are the cause of any later one.
    """
    deaths = deaths or [_died(name, death) for name, death in _dead(list(actors))]
    return f"step {step}: {'; '.join(deaths) or _root(error)}"


def _dead(actors: list[tuple[str, ray.actor.ActorHandle]]) -> Iterable[tuple[str, RayActorError]]:
    """Find the actors that have died. A busy actor does not answer in time, but it is alive."""
    if not actors:  # Ray's wait would start a cluster
        return
    pings = [actor.__ray_ready__.remote() for _, actor in actors]
    ray.wait(pings, num_returns=len(pings), timeout=_PING_SECONDS)
    for (name, _), ping in zip(actors, pings, strict=True):
        try:
            ray.get(ping, timeout=0)
        except GetTimeoutError:
            continue
        except RayActorError as death:
            yield name, death
        except RayError:
            continue


def _died(name: str, death: RayActorError) -> str:
    return f"{name} died: {_reason(death)}"


def _reason(death: RayActorError) -> str:
    """Shorten Ray's report of many lines to the process and the cause."""
    text = str(death)
    if "creation task" in text:  # followed by the traceback of what its constructor raised
        return _lines(text)[-1]
    pid = re.search(r"\bpid: (\d+)", text)
    cause = re.search(r"Worker exit detail: ([^\n]+)|The actor is dead because ([^\n]+)", text)
    reason = next((group for group in cause.groups() if group), "") if cause else text.strip().splitlines()[0]
    reason = reason.split(" Some common causes")[0]  # the rest is advice for users of Ray
    return f"pid {pid.group(1)}, {reason}" if pid else reason


def _root(error: BaseException) -> str:
    while True:
        if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException) and error.cause is not error:
            error = error.cause
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            break
    if isinstance(error, RayActorError):
        return _reason(error)
    lines = _lines(str(error))
    return f"{type(error).__name__}: {lines[-1] if isinstance(error, RayTaskError) else lines[0] if lines else ''}"


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


# vLLM raises this in the process that waits for its engine, and prints the engine's own error.
_ENGINE_FAILED = "See root cause above"
_ENGINE_ERROR = re.compile(r"EngineCore.*?\b(\w+(?:Error|Exception): .+)")


def engine_error(message: str, log: Path) -> str | None:
    """Return why vLLM's engine did not start, where `message` says only that it did not.

    Args:
        message: what ended the run.
        log: everything that the run's processes have printed.
    """
    if _ENGINE_FAILED not in message or not log.exists():
        return None
    last = log.read_text(errors="replace").rpartition("==== 20")[2]  # since the last start
    found = _ENGINE_ERROR.findall(last)
    return found[-1].strip() if found else None
