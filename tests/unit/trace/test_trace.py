"""What a trace says of a process that failed, and the sequences of a micro-batch."""

import pytest

from verl_relift.trace import _reason
from verl_relift.trace.work import equal_lengths


@pytest.mark.parametrize(
    ("tokens", "longest", "lengths"),
    [
        (16384, 9216, [8192, 8192]),
        (9728, 9216, [4864, 4864]),
        (9216, 9216, [9216]),
        (16384, 5000, [4096] * 4),
        (10000, 9216, [4992, 4992]),  # a multiple of 64
        (30, 30, [64]),
    ],
)
def test_equal_sequences_fill_a_micro_batch(tokens, longest, lengths):
    assert equal_lengths(tokens, longest) == lengths


OUTPUT = """\
something that was printed
[rank0]: Traceback (most recent call last):
[rank0]:   File "/here/verl_relift/trace/step.py", line 10, in run
[rank0]:     worker.init_model()
[rank0]:   File "/there/site-packages/mbridge/core/llm_bridge.py", line 101, in _build_base_config
[rank0]:     return self.TransformerConfigClass(**base_config)
[rank0]: TypeError: TransformerConfig.__init__() got an unexpected keyword argument 'no_such_field'
"""


def test_a_failure_is_one_line_with_its_place():
    assert _reason(OUTPUT) == (
        "the training engine does not build: TypeError: TransformerConfig.__init__() got an unexpected keyword "
        "argument 'no_such_field' (mbridge/core/llm_bridge.py:101, in _build_base_config)"
    )
    assert _reason("Killed\n") == "the training engine does not build: Killed"
    assert _reason("") == "the training engine does not build: no output"
