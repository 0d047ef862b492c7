"""An override that Hydra refuses is answered with the key that was meant, or with the + that adds it."""

from copy import deepcopy

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verl_relift.run.composition import compose_config
from verl_relift.schema import refusal
from verl_relift.schema.composition import defaults
from verl_relift.schema.overrides import _methods_with

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
REWARD = "reward.custom_reward_function"


def answer(override: str, method: str = "relift") -> str:
    """The line about an override that Hydra itself refuses."""
    config = deepcopy(defaults(method, "cpu")[0])  # an override that is refused may leave something behind
    with pytest.raises(HydraException) as refused:
        ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides([override]), config)
    line = refusal(refused.value, [f"method={method}", override], "cpu")
    assert "\n" not in line
    return line


# In these groups the names are those of somebody else: a function, a template, an engine.
OPEN = [
    f"{REWARD}.reward_kwargs.bonus=1",
    f"{REWARD}.reward_kwargs.weights.format=0.1",
    "reward.reward_kwargs.bonus=1",
    "data.apply_chat_template_kwargs.enable_thinking=false",
    f"{ROLLOUT}.engine_kwargs.vllm.max_loras=1",
    "actor_rollout_ref.model.override_config.attention_dropout=0",
    f"{ACTOR}.megatron.override_transformer_config.moe_aux_loss_coeff=0.1",
    f"{ACTOR}.megatron.override_ddp_config.grad_reduce_in_fp32=true",
    f"{ACTOR}.optim.override_optimizer_config.adam_eps=1e-7",
    "ray_kwargs.ray_init.dashboard_port=8000",
    "trainer.wandb_proxy=http://a",  # read with a default
]


@pytest.mark.parametrize("override", OPEN)
def test_a_key_of_an_open_group_is_added_with_a_plus(override):
    key = override.partition("=")[0]
    expected = f"{key}: the configuration does not have this key yet; + in front adds it: +{override}"
    assert answer(override) == expected
    config = deepcopy(defaults("relift", "cpu")[0])
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides([f"+{override}"]), config)
    assert OmegaConf.select(config, key) is not None  # so it does


@pytest.mark.parametrize(
    ("override", "key"),
    [
        (f"{REWARD}.reward_kwargs={{bonus:1}}", f"{REWARD}.reward_kwargs"),
        (f"{REWARD}={{path:f.py,reward_kwargs:{{bonus:1}}}}", f"{REWARD}.reward_kwargs"),
        (f"{ROLLOUT}.engine_kwargs.vllm={{max_loras:1}}", f"{ROLLOUT}.engine_kwargs.vllm.max_loras"),
        ("data.apply_chat_template_kwargs={thinking:true}", "data.apply_chat_template_kwargs.thinking"),
    ],
)
def test_a_group_with_a_key_that_is_new_is_named_with_it_and_quoted_for_the_shell(override, key):
    assert answer(override) == (
        f"{key}: the configuration does not have this key yet; + in front adds it: '+{override}'"
    )


def test_a_misspelt_key_of_an_open_group_gets_both_answers():
    group = f"{ACTOR}.megatron.override_transformer_config"
    assert answer(f"{group}.recompute_metod=uniform") == (
        f"{group}.recompute_metod: the configuration does not have this key yet; did you mean "
        f"{group}.recompute_method? Otherwise + in front adds it: +{group}.recompute_metod=uniform"
    )


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("data.train_bach_size=8", "data.train_batch_size"),
        (f"{ROLLOUT}.temprature=1", f"{ROLLOUT}.temperature"),
        (f"{ACTOR}.optm.lr=1e-6", f"{ACTOR}.optim.lr"),
        (f"{REWARD}.nam=f", f"{REWARD}.name"),
        ("trainer.total_epoch=1", "trainer.total_epochs"),
        ("trainer.total_steps=4", "trainer.total_training_steps"),
        ("data.max_length=4", "data.max_prompt_length"),
        ("relift.rolout.seeded=true", "relift.rollout.seeded"),
        ("rollout.n=4", f"{ROLLOUT}.n"),
        ("actor.optim.lr=1e-6", f"{ACTOR}.optim.lr"),
        ("model.path=m", "actor_rollout_ref.model.path"),
        ("learning_rate=1e-6", f"{ACTOR}.optim.lr"),
        (f"{ACTOR}.optim.learning_rate=1e-6", f"{ACTOR}.optim.lr"),
        (f"{ACTOR}.ulysses_sequence_parallel_size=2", f"{ACTOR}.megatron.context_parallel_size"),
        ("ulysses_sequence_parallel_size=2", f"{ACTOR}.megatron.context_parallel_size"),
        (f"{ACTOR}.fsdp_config.param_offload=true", f"{ACTOR}.megatron.*"),
        ("actor_rollout_ref.ref.fsdp_config={param_offload:true}", f"{ACTOR}.megatron.*"),
        ("max_response_length=64", "data.max_response_length"),
        (
            f"{ACTOR}.megatron.override_optimizer_config.optimizer_cpu_offload=true",
            f"+{ACTOR}.optim.override_optimizer_config.optimizer_cpu_offload",
        ),
        (
            f"{ACTOR}.optim.override_ddp_config.overlap_grad_reduce=true",
            f"+{ACTOR}.megatron.override_ddp_config.overlap_grad_reduce",
        ),
        (f"{REWARD}.reward_kwarg.bonus=1", f"+{REWARD}.reward_kwargs.bonus"),
        ("custom_reward_function.reward_kwargs.bonus=1", f"+{REWARD}.reward_kwargs.bonus"),
    ],
)
def test_a_key_of_a_closed_group_is_answered_with_the_one_that_was_meant(override, meant):
    assert answer(override) == f"{override.partition('=')[0]}: there is no such key; did you mean {meant}?"


@pytest.mark.parametrize(
    "override", ["zzz=1", "trainer.save_freq.x=1", "data.reward_fn_key.x=1", f"{REWARD}={{path:f.py,x:1}}"]
)
def test_without_anything_like_it_the_page_is_named_and_no_plus(override):
    line = answer(override)
    assert ": there is no such key; docs/train.md explains the keys" in line and "+" not in line


def test_a_setting_that_the_method_does_not_have_is_not_added():
    assert answer("method.sft.lrr=1") == (
        "method.sft.lrr: there is no such key with method=relift; did you mean method.sft.lr?"
    )
    assert answer("method.sft.lrr=1", "grpo").startswith(
        "method.sft.lrr: there is no such key with method=grpo; docs/train.md"
    )


@pytest.mark.parametrize(
    ("key", "methods"),
    [
        ("method.max_right", "hpt, superrl"),
        ("method.sft.weight", "regft, relift_splice, rl_with_sft_loss"),
        ("method.sft.lr", "relift, relift_authors, sft"),
    ],
)
def test_a_setting_of_other_methods_is_answered_with_their_names(key, methods):
    assert answer(f"{key}=4", "grpo") == (
        f"{key}: there is no such key with method=grpo; these methods have it: {methods}"
    )


def test_the_methods_that_have_a_setting_are_those_whose_configuration_has_it():
    config = defaults("relift", "cpu")[0].method
    for key in ("sft.batch_size", "buffer.capacity", "schedule.kind", "demonstrations.source", "teacher.model"):
        assert OmegaConf.select(config, key, default="none") != "none" and "relift" in _methods_with(key)
    assert "grpo" not in {name for key in ("sft", "demonstrations", "coeff") for name in _methods_with(key)}


def test_a_plus_before_a_key_that_is_there_is_to_be_taken_away():
    assert answer("+data.seed=3") == (
        "data.seed: the configuration has this key already; take away the + in front of it"
    )


def test_other_errors_keep_the_line_that_names_the_key_or_the_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [relift, nothing]")
    with pytest.raises(HydraException) as refused:
        compose_config("mine", str(tmp_path), [], "cpu")
    assert refusal(refused.value, [], "cpu").startswith("In 'mine': Could not load 'nothing'; docs/train.md")


def test_a_setting_of_the_method_keeps_its_own_answer():
    assert "actor_rollout_ref" not in answer("method.sft.learning_rate=1e-6")


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        ("method=GRPO", "method=GRPO: there is no such method; did you mean grpo?"),
        ("method=Luffy", "method=Luffy: there is no such method; did you mean luffy?"),
        ("platform=CUDA", "platform=CUDA: there is no such platform; did you mean cuda?"),
    ],
)
def test_a_choice_in_capital_letters_is_answered_with_its_name(given, fix):
    with pytest.raises(HydraException) as refused:
        compose_config("relift", None, [given], "cpu")
    assert refusal(refused.value, [given], "cpu") == fix


@pytest.mark.parametrize(
    ("name", "overrides", "line"),
    [
        (
            "relift",
            ["~method"],
            "~method: other parts of the configuration need it; leave this out, or set another",
        ),
        ("smok", [], "--config-name smok: there is no such configuration; did you mean smoke?"),
        (
            "mine",
            [],
            "--config-name mine: there is no such configuration; choose one of pretrained, quickstart, ",
        ),
    ],
)
def test_what_a_configuration_cannot_be_without(name, overrides, line):
    with pytest.raises((HydraException, OmegaConfBaseException)) as refused:
        OmegaConf.resolve(compose_config(name, None, overrides, "cpu"))
    assert refusal(refused.value, overrides, "cpu").startswith(line)
