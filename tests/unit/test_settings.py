"""The `relift` group: every value is checked, and an error names the key."""

import pytest
from omegaconf import OmegaConf

from verl_relift.settings import BufferOrder, ReLIFTSettings, SettingsError


def test_defaults_are_the_yaml_file():
    from pathlib import Path

    import verl_relift.config as package

    yaml = OmegaConf.load(Path(package.__file__).parent / "relift.yaml").relift
    yaml.demonstrations.max_tokens = 8192  # an interpolation in the file
    yaml.teacher.max_tokens = 8192
    settings = ReLIFTSettings.from_mapping(OmegaConf.to_container(yaml))
    assert settings == ReLIFTSettings()
    assert settings.buffer.order is BufferOrder.FIFO


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"triger": {}}, r"relift\.triger is not a setting; relift has enable, supervised_only, trigger"),
        ({"sft": {"lrate": 1}}, r"relift\.sft\.lrate is not a setting"),
        ({"sft": {"lr": "fast"}}, r"relift\.sft\.lr='fast' must be of type float"),
        ({"sft": {"lr": 0}}, r"relift\.sft\.lr=0\.0 must be positive.*relift\.enable=false"),
        ({"sft": {"batch_size": True}}, r"relift\.sft\.batch_size=True must be of type int"),
        ({"sft": {"batch_size": 0}}, r"relift\.sft\.batch_size=0 must be at least 1"),
        ({"sft": {"mode": "both"}}, r"relift\.sft\.mode='both' must be one of interleave"),
        ({"trigger": {"max_accuracy": 1.0}}, r"relift\.trigger\.max_accuracy=1\.0 must be in \[0, 1\)"),
        ({"buffer": {"capacity": 8}}, r"relift\.buffer\.capacity=8 is smaller than relift\.sft\.batch_size=64"),
        ({"buffer": {"max_age_steps": 0}}, r"relift\.buffer\.max_age_steps=0 must be at least 1, or null"),
        ({"demonstrations": "target"}, r"relift\.demonstrations must be a group of settings"),
        ({"schedule": {"kind": "often"}}, r"must be one of adaptive, every_k, always, never"),
        ({"schedule": {"every": 0}}, r"relift\.schedule\.every=0 must be at least 1"),
        ({"sft": {"lr_schedule": "cosine"}}, r"relift\.sft\.lr_decay_updates=None: lr_schedule=cosine needs"),
        ({"sft": {"mode": "splice", "optimizer": "separate"}}, r"optimizer=separate does not apply"),
        ({"sft": {"mode": "splice", "epochs": 2}}, r"relift\.sft\.epochs=2: with mode=splice"),
        ({"sft": {"mode": "splice"}, "schedule": {"max_updates_per_step": 2}}, r"there is one RL update to join"),
        ({"demonstrations": {"source": "teacher"}}, r"source=teacher needs relift\.teacher\.base_url and"),
        ({"teacher": {"budget_cost": 5}}, r"budget_cost=5\.0 needs relift\.teacher\.price_input and price_output"),
        ({"teacher": {"top_p": 0}}, r"relift\.teacher\.top_p=0\.0 must be in \(0, 1\]"),
        ({"demonstrations": {"overlong": "cut"}}, r"must be one of drop, error"),
    ],
)
def test_bad_values_are_named(mapping, message):
    with pytest.raises(SettingsError, match=message):
        ReLIFTSettings.from_mapping(mapping)
