"""The same run on other parallel layouts, and other architectures on the same one: what is trained is what samples."""

import pytest
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.integration.test_training import prepared, train  # noqa: F401  `prepared` is a fixture

pytestmark = pytest.mark.slow

MEGATRON = "actor_rollout_ref.actor.megatron"
LAYOUTS = {
    "TP2": [],
    "PP2": [f"{MEGATRON}.tensor_model_parallel_size=1", f"{MEGATRON}.pipeline_model_parallel_size=2",
            "actor_rollout_ref.rollout.tensor_model_parallel_size=1"],
    "DP2": [f"{MEGATRON}.tensor_model_parallel_size=1"],
    "TP2xDP2": ["trainer.n_gpus_per_node=4"],
}  # fmt: skip
SHAPE = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 4096, "bos_token_id": None}  # fmt: skip
ARCHITECTURES = {
    "qwen2-tied": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"tie_word_embeddings": False, "head_dim": 64}),
    "llama": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": False}),
}


def test_every_layout_makes_the_same_updates(prepared, tmp_path):  # noqa: F811
    """A random model fails every question, so the supervised batches are the same whatever vLLM samples."""
    losses = {}
    for name, overrides in LAYOUTS.items():
        records = train(prepared, tmp_path / name, "trainer.total_training_steps=2", "trainer.save_freq=-1", *overrides)
        losses[name] = [record["relift/sft_loss"] for record in records]
        assert max(record["training/rollout_log_probs_diff_max"] for record in records) < 1e-5, name
    assert losses["PP2"] == pytest.approx(losses["TP2"], rel=1e-6)
    assert losses["DP2"] == pytest.approx(losses["TP2"], rel=1e-6)
    assert losses["TP2xDP2"] == pytest.approx(losses["TP2"], rel=1e-6)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_architectures_train_and_sample_alike(prepared, tmp_path, kind):  # noqa: F811
    """After two steps with updates of both kinds vLLM's log-probabilities are the actor's."""
    configuration, model, special = ARCHITECTURES[kind]
    tokenizer = AutoTokenizer.from_pretrained(prepared / "model")
    ids = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model(configuration(**SHAPE, **special, **ids)).float().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    records = train(
        prepared,
        tmp_path / "run",
        f"actor_rollout_ref.model.path={tmp_path}/model",
        "trainer.total_training_steps=3",
        "trainer.save_freq=-1",
    )
    assert records[-1]["relift/sft_updates"] == 3
    assert records[-1]["relift/sft_loss"] < records[0]["relift/sft_loss"]
    assert max(record["training/rollout_log_probs_diff_max"] for record in records) < 1e-5
