"""The configuration of a command line."""

import pytest

from verl_relift.run.composition import Arguments, starting_with


@pytest.mark.parametrize(
    ("method", "name", "folder"),
    [
        ("relift", "relift", "relift"),
        ("relift", "gsm8k", "relift-gsm8k"),
        ("relift", "relift-gsm8k", "relift-gsm8k"),
        ("relift", "relift_splice", "relift-relift_splice"),
        ("grpo", "relift-gsm8k", "grpo-relift-gsm8k"),
    ],
)
def test_a_name_starts_with_the_methods(method, name, folder):
    assert starting_with(method, name) == folder


def test_no_two_methods_share_a_default_folder():
    folders = set()
    for method in ("relift", "grpo", "sft"):
        config = Arguments("relift", None, (f"method={method}", "trainer.experiment_name=gsm8k")).compose("cpu")
        folders.add(config.trainer.default_local_dir)
        assert config.trainer.experiment_name == "gsm8k"
    assert folders == {f"outputs/relift/{method}-gsm8k" for method in ("relift", "grpo", "sft")}


def _rollout(name, *overrides):
    config = Arguments(name, None, overrides).compose("cpu").actor_rollout_ref.rollout
    return config.max_num_seqs, config.engine_kwargs.vllm.num_gpu_blocks_override


def test_a_vllm_server_on_a_cpu_reserves_what_a_steps_rollouts_need():
    """Two servers with a replica of SmolLM2 each: 8 x 8 rollouts of 4 blocks of 128 tokens, and vLLM's own block."""
    lengths = ("data.max_prompt_length=256", "data.max_response_length=256")
    one_device = "actor_rollout_ref.rollout.tensor_model_parallel_size=1"
    assert _rollout("relift", "data.train_batch_size=8", *lengths, one_device) == (32, 32 * 4 + 1)
    assert _rollout("relift", "data.train_batch_size=8", *lengths) == (64, 256 + 1)  # one server, TP2, at the limit
    assert _rollout("relift") == (1024, 256 + 1)


def test_a_reservation_holds_one_sequence_and_follows_the_users_limit():
    assert _rollout("relift", "data.train_batch_size=1", "data.max_response_length=40000")[1] > 41024 // 128
    assert _rollout("quickstart") == (128, 128 + 1)
    assert _rollout("quickstart", "actor_rollout_ref.rollout.max_num_seqs=16")[1] == 16 + 1


@pytest.mark.parametrize("value", ["null", "many", "0", "-1"])
def test_a_wrong_batch_size_is_left_to_its_own_check(value):
    assert _rollout("relift", f"data.train_batch_size={value}")[0] == 1


def test_a_removed_key_is_removed():
    arguments = Arguments.parse(["~actor_rollout_ref.rollout.n", "data.seed=1"])
    assert arguments.overrides == ("~actor_rollout_ref.rollout.n", "data.seed=1")
    assert "n" not in arguments.compose("cpu").actor_rollout_ref.rollout
