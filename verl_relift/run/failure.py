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
    if _OUT_OF_MEMORY in text:
        return _memory(text)
    pid = re.search(r"\bpid: (\d+)", text)
    of_process = f"pid {pid.group(1)}, " if pid else ""
    detail = re.search(r"Worker exit type: SYSTEM_ERROR Worker exit detail: ([^\n]+)", text)
    if detail:
        said = detail.group(1).split(" Some common causes")[0]  # the rest is advice for users of Ray
        return f"{of_process}it was killed or it crashed; `dmesg` shows whether for lack of memory (Ray says: {said})"
    cause = re.search(r"Worker exit detail: ([^\n]+)|The actor is dead because ([^\n]+)", text)
    reason = next((group for group in cause.groups() if group), "") if cause else text.strip().splitlines()[0]
    return of_process + reason.split(" Some common causes")[0]


_OUT_OF_MEMORY = "running low on memory"


def _memory(text: str) -> str:
    """Say what Ray's memory monitor reports when it ends processes: how full the machine was, and who filled it."""
    full = re.search(r"was ([\d.]+GB used / [\d.]+GB limit)", text)
    users = re.findall(r"(?m)^\s*(\d+)\s+(\d+\.\d+)\s+(\S+)", text.partition("memory users")[2])[:3]
    largest = ", ".join(f"pid {pid} {command} {size} GB" for pid, size, command in users)
    return (
        f"the machine ran out of memory{f' ({full.group(1)})' if full else ''}, so Ray ended processes; "
        + (f"the largest were {largest}; " if largest else "")
        + "`python -m verl_relift.plan` with the same keys says what the run needs"
    )


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
    if _OUT_OF_MEMORY in str(error):
        return _memory(str(error))
    lines = _lines(str(error))
    return f"{type(error).__name__}: {lines[-1] if isinstance(error, RayTaskError) else lines[0] if lines else ''}"


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


# vLLM raises these in the process that waits for its engine, and prints the engine's own error.
_NOT_STARTED, _ENDED = "See root cause above", "EngineDeadError"
_ENGINE_ERROR = re.compile(r"EngineCore.*?\b(\w+(?:Error|Exception): .+)")
_WORKER_DIED = re.compile(r"Worker proc (\S+) died unexpectedly")


def engine_error(message: str, log: Path) -> str | None:
    """Return why vLLM's engine did not start or ended, where `message` says only that it did.

    Args:
        message: what ended the run.
        log: everything that the run's processes have printed.
    """
    if not log.exists() or not (_NOT_STARTED in message or _ENDED in message):
        return None
    last = log.read_text(errors="replace").rpartition("==== 20")[2]  # since the last start
    found = [error.strip() for error in _ENGINE_ERROR.findall(last) if _ENDED not in error]
    if _NOT_STARTED in message:
        return f"vLLM's engine did not start: {found[-1]}" if found else None
    died = _WORKER_DIED.search(last)
    if died:
        found = [f"its process {died.group(1)} was killed or it crashed; `dmesg` shows whether for lack of memory"]
    return f"{message.partition(':')[0]}: vLLM's engine ended: {found[0]}" if found else None
