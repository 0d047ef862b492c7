"""Settings: every value is checked, an error names the key, and the defaults are those of the YAML files."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from verl_relift.methods import METHODS, read_method
from verl_relift.run.composition import compose_config
from verl_relift.settings import ProgramSettings, SettingsError, build

CONFIG = Path(__file__).parents[2] / "verl_relift" / "config"


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_methods_defaults_are_its_yaml_file(name):
    overrides = [f"method={name}", "data.max_response_length=8192"]
    group = OmegaConf.to_container(compose_config("relift", None, overrides, "cpu").method, resolve=True)
    _, settings = read_method(group)
    _, defaults = read_method({"name": name})
    if name == "sft":  # its learning rate is ten times that of ReLIFT's update
        assert settings.sft.lr == 1e-5
    elif name in ("rl_with_sft_loss", "regft"):  # all questions of a step
        assert settings.sft.batch_size == 128
    else:
        assert settings == defaults


def test_every_method_has_one_yaml_file():
    assert {path.stem for path in (CONFIG / "method").glob("*.yaml")} == set(METHODS)


def test_the_programs_defaults_are_the_yaml_file():
    group = OmegaConf.to_container(OmegaConf.load(CONFIG / "relift.yaml").relift)
    assert build(ProgramSettings, group, "relift") == ProgramSettings()


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"sft": {}}, r"relift\.sft is not a setting; relift has .*rollout, reward, .*speed_patches"),
        ({"rollout": {"workers": -1}}, r"relift\.rollout\.workers=-1 must not be negative"),
        ({"rollout": {"workers": "two"}}, r"relift\.rollout\.workers='two' must be of type int"),
        ({"gradient_shares_every": -1}, r"relift\.gradient_shares_every=-1 must not be negative; 0: never"),
        ({"reuse_log_probs": 1}, r"relift\.reuse_log_probs=1 must be of type bool"),
    ],
)
def test_bad_values_are_named(mapping, message):
    with pytest.raises(SettingsError, match=message):
        build(ProgramSettings, mapping, "relift")
