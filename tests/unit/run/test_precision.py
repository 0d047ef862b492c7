"""bf16 is chosen on a CPU where model and processor make it the faster one, and can be overridden."""

import json

import pytest

from verl_relift.run import precision
from verl_relift.run.composition import compose_config


@pytest.fixture(params=[("avx512_bf16",), ()], ids=["with instructions", "without"])
def instructions(request, monkeypatch):
    monkeypatch.setattr(precision, "bf16_instructions", lambda: request.param)
    return request.param


def folder_of(tmp_path, content: str) -> str:
    (tmp_path / "config.json").write_text(content)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("content", "wide"),
    [
        (json.dumps({"hidden_size": 576}), True),
        (json.dumps({"hidden_size": 512}), True),
        (json.dumps({"hidden_size": 511}), False),
        (json.dumps({}), False),
        ("[]", False),
        ("not JSON", False),
    ],
)
def test_wide_models_in_a_folder(instructions, tmp_path, content, wide):
    chosen = precision.cpu_dtype(folder_of(tmp_path, content))
    assert chosen == ("bfloat16" if wide and instructions else "float32")


@pytest.mark.parametrize(
    ("model", "wide"),
    [
        ("Qwen/Qwen2.5-0.5B", True),
        ("/nowhere/model", False),
        ("./nowhere", False),
        ("~/nowhere", False),
        ("tests/nowhere", False),
        ("outputs/quickstart/base", False),
        (None, False),
    ],
)
def test_names_of_the_hub_and_folders_that_are_not_there(instructions, model, wide):
    assert precision.cpu_dtype(model) == ("bfloat16" if wide and instructions else "float32")


def test_training_reference_and_rollouts_have_the_same(instructions, tmp_path):
    model = f"actor_rollout_ref.model.path={folder_of(tmp_path, json.dumps({'hidden_size': 896}))}"
    config = compose_config("relift", None, [model], "cpu").actor_rollout_ref
    expected = "bfloat16" if instructions else "float32"
    assert [config.actor.megatron.dtype, config.ref.megatron.dtype, config.rollout.dtype] == [expected] * 3
    given = compose_config("relift", None, [model, "actor_rollout_ref.actor.megatron.dtype=float32"], "cpu")
    assert given.actor_rollout_ref.rollout.dtype == "float32"


def test_the_quickstart_is_in_fp32(instructions):
    assert compose_config("quickstart", None, [], "cpu").actor_rollout_ref.actor.megatron.dtype == "float32"


def test_the_processors_flags_are_read(tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(precision, "_CPU", file)
    for text, expected in (
        ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16 amx_bf16\n", ("avx512_bf16", "amx_bf16")),
        ("processor : 0\nflags\t\t: fpu avx2\n", ()),
        ("processor : 0\nFeatures : fp asimd bf16\n", ()),
    ):
        file.write_text(text)
        precision.bf16_instructions.cache_clear()
        assert precision.bf16_instructions() == expected
    file.unlink()
    precision.bf16_instructions.cache_clear()
    assert precision.bf16_instructions() == ()
    precision.bf16_instructions.cache_clear()
