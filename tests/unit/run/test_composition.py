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
