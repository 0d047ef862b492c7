"""One cause for the failure of a run.

When a process dies, the others fail because of it, and Ray reports whichever it hears of first.
"""

import re
from collections.abc import Iterable

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

_PING_SECONDS = 5.0


class RunFailed(RuntimeError):
    """Training cannot go on. The message is one line: what failed, when, why."""


def explain(error: Exception, actors: Iterable[tuple[str, ray.actor.ActorHandle]], step: int) -> str:
    """Why ``error`` came about, in one line: the actor that died if one did, else the error itself.

    Args:
        actors: (what it is to the user, its handle).
        step: the step that was running.
    """
    deaths = [f"{name} died: {_reason(death)}" for name, death in _dead(list(actors))]
    return f"step {step}: {'; '.join(deaths) or _root(error)}"


def _dead(actors: list[tuple[str, ray.actor.ActorHandle]]) -> Iterable[tuple[str, RayActorError]]:
    """Those that do not live any more. A busy one does not answer in time, which is no death."""
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


def _reason(death: RayActorError) -> str:
    """What Ray's report of many lines says of the process."""
    text = str(death)
    pid = re.search(r"\bpid: (\d+)", text)
    cause = re.search(r"Worker exit detail: ([^\n]+)|The actor is dead because ([^\n]+)", text)
    reason = next((group for group in cause.groups() if group), "") if cause else text.strip().splitlines()[0]
    reason = reason.split(" Some common causes")[0]  # what follows is advice for Ray's own users
    return f"pid {pid.group(1)}, {reason}" if pid else reason


def _root(error: BaseException) -> str:
    while True:
        if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException) and error.cause is not error:
            error = error.cause
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            break
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if isinstance(error, RayTaskError) else lines[0] if lines else ''}"
