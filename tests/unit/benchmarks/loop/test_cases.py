"""The cases of the benchmark of the training loop: both commands say the same, and our configuration is valid."""

from pathlib import Path

import pytest

from benchmarks.loop.__main__ import CASES, OURS, our_command, our_overrides, trl_command
from verl_relift.checks import batch_problems, settings_problems
from verl_relift.consistency import platform_problems
from verl_relift.run.composition import Arguments


@pytest.mark.parametrize("name", CASES)
def test_our_configuration_of_a_case_is_valid(name):
    case = CASES[name]
    overrides = our_overrides(case, Path("train.parquet"), Path("model"), Path(OURS), 3)
    command = our_command(case, overrides)
    config = Arguments.parse(command[command.index("--config-name") :]).compose("cpu")
    assert [*settings_problems(config), *batch_problems(config), *platform_problems(config)] == []
    rollout = config.actor_rollout_ref.rollout
    assert (config.data.train_batch_size, rollout.n) == (case.questions, case.rollouts)
    assert config.actor_rollout_ref.actor.megatron.dtype == rollout.dtype


@pytest.mark.parametrize("name", CASES)
def test_trl_gets_the_same_sizes_and_precision(name):
    case = CASES[name]
    for setting in case.trl:
        command = trl_command(case, setting, Path("train.parquet"), Path("model"), Path("trl"), 3)
        assert f"--questions={case.questions}" in command and f"--max-tokens={case.max_tokens}" in command
        assert case.questions * case.rollouts % (setting.micro_batch * setting.processes) == 0
        assert ("--bf16" in command) == any("dtype=bfloat16" in override for override in case.overrides)
