"""The one line that says why a run ended."""

import pytest
import ray
import ray.exceptions
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError

from verl_relift.run.failure import engine_error, explain

CREATION = """The actor died because of an error raised in its creation task, ray::vLLMServer.__init__() (pid=7)
  File "worker.py", line 3, in __init__
    raise ValueError("no such thing")
ValueError: max_model_len (9216) is greater than 4096
"""


KILLED = """The actor died unexpectedly before finishing this task.
\tclass_name: WorkerDict
\tpid: 28905
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker \
unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed
"""
FULL = """4 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.1, ID: 3) was \
22.41GB used / 23.54GB limit (0.952044), exceeding the threshold. Top 10 memory users: PID\tMEM(GB)\tCOMMAND
877\t8.15\tpython -m verl_relift.evaluate
901\t3.01\tray::WorkerDict
902\t3.00\tray::WorkerDict
903\t0.50\tray::IDLE
"""
SAID_OF_FULL = (
    "step 0: the machine ran out of memory (22.41GB used / 23.54GB limit), so Ray ended processes; the largest were "
    "pid 877 python 8.15 GB, pid 901 ray::WorkerDict 3.01 GB, pid 902 ray::WorkerDict 3.00 GB; "
    "`python -m verl_relift.plan` with the same keys says what the run needs"
)


class Died(ActorDiedError):
    def __init__(self, text: str):
        ray.exceptions.RayActorError.__init__(self, None)
        self.text = text

    def __str__(self) -> str:
        return self.text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Died(CREATION), "step 0: ValueError: max_model_len (9216) is greater than 4096"),
        (
            Died(KILLED),
            "step 0: pid 28905, it was killed or it crashed; `dmesg` shows whether for lack of memory (Ray says: "
            "Worker unexpectedly exits with a connection error code 2. End of file.)",
        ),
        (Died(FULL), SAID_OF_FULL),
        (OutOfMemoryError(FULL), SAID_OF_FULL),
        (Died("The actor is dead because its node has died."), "step 0: its node has died."),
        (RuntimeError("first\nsecond"), "step 0: RuntimeError: first"),
        (RayTaskError("f", "Traceback\nKeyError: 'score'", KeyError("score")), "step 0: KeyError: 'score'"),
    ],
    ids=["constructor", "killed", "memory", "memory of a task", "node", "own", "task"],
)
def test_the_reason_is_the_first_cause_and_not_rays_words_for_it(error, said):
    assert explain(error, [], 0) == said
    assert not ray.is_initialized()


LOG = """==== 2026-11-26 10:00:00, process 1
(EngineCore pid=5) ERROR 11-26 [core.py:1] OldError: of an earlier start
==== 2026-11-26 11:00:00, process 2
\x1b[36m(vLLMHttpServer pid=4)\x1b[0m (EngineCore pid=6) ERROR 11-26 11:00:01 [core.py:9] Traceback
(EngineCore pid=6) ERROR 11-26 11:00:01 [core.py:9] ValueError: No available memory for the cache blocks
(vLLMHttpServer pid=4) RuntimeError: Engine core initialization failed. See root cause above.
"""
MESSAGE = "step 0: RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"


def test_the_reason_of_vllms_engine_is_in_the_log(tmp_path):
    log = tmp_path / "train.log"
    assert engine_error(MESSAGE, log) is None
    log.write_text(LOG)
    assert engine_error(MESSAGE, log) == (
        "vLLM's engine did not start: ValueError: No available memory for the cache blocks"
    )
    assert engine_error("step 3: KeyError: 'score'", log) is None


def test_the_process_of_vllms_engine_that_died_is_in_the_log(tmp_path):
    log = tmp_path / "train.log"
    said = "step 11: RuntimeError: vLLM could not answer question 11-0: EngineDeadError: EngineCore has an issue."
    log.write_text(
        LOG + "==== 2026-11-26 12:00:00, process 3\n"
        "(EngineCore pid=7306) ERROR 11-27 [multiproc_executor.py:284] Worker proc VllmWorker-1 died unexpectedly, "
        "shutting down executor.\n"
        "(GroupServer pid=7219) (EngineCore pid=7306) ERROR vllm.v1.engine.exceptions.EngineDeadError: EngineCore\n"
    )
    assert engine_error(said, log) == (
        "step 11: vLLM's engine ended: its process VllmWorker-1 was killed or it crashed; `dmesg` shows whether for "
        "lack of memory"
    )
    log.write_text(log.read_text() + "==== 2026-11-26 13:00:00, process 4\n(EngineCore pid=8) ValueError: too long\n")
    assert engine_error(said, log) == "step 11: vLLM's engine ended: ValueError: too long"
    log.write_text("==== 2026-11-26 13:00:00, process 4\n")
    assert engine_error(said, log) is None
