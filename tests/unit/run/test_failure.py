"""The one line that says why a run ended."""

import pytest
import ray
import ray.exceptions
from ray.exceptions import ActorDiedError, RayTaskError

from verl_relift.run.failure import engine_error, explain

CREATION = """The actor died because of an error raised in its creation task, ray::vLLMServer.__init__() (pid=7)
  File "worker.py", line 3, in __init__
    raise ValueError("no such thing")
ValueError: max_model_len (9216) is greater than 4096
"""


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
        (Died("The actor is dead because its node has died."), "step 0: its node has died."),
        (RuntimeError("first\nsecond"), "step 0: RuntimeError: first"),
        (RayTaskError("f", "Traceback\nKeyError: 'score'", KeyError("score")), "step 0: KeyError: 'score'"),
    ],
    ids=["constructor", "node", "own", "task"],
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
    assert engine_error(MESSAGE, log) == "ValueError: No available memory for the cache blocks"
    assert engine_error("step 3: KeyError: 'score'", log) is None
