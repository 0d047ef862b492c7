"""Tests the export of small checkpoints in the layout that verl's Megatron checkpoint manager writes."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from verl_relift.export.__main__ import main
from verl_relift.quickstart.base_model import build_model, build_tokenizer
from verl_relift.run.announce import GRADER

MANIFEST = {"contents": {"model": {"path": "model/huggingface", "format": "huggingface", "backend": "mbridge"}}}
CONFIG = """
method: {name: relift, sft: {batch_size: 16, lr: 6e-4}}
data: {train_files: [/somewhere/private/gsm8k/train.parquet], max_response_length: 64}
actor_rollout_ref: {model: {path: /somewhere/private/models/Small-Base}, rollout: {n: 8}}
"""
METRICS = [
    {"step": 1, "time": 0, "relift/sft_updates": 1, "relift/demonstrations_used": 16},
    {"step": 2, "time": 0, "relift/sft_updates": 3, "relift/demonstrations_used": 48},
    {"step": 3, "time": 0, "relift/sft_updates": 9, "relift/demonstrations_used": 144},
]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    build_model(len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id, seed=0).save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(model_folder, tmp_path):
    run = tmp_path / "run"
    actor = run / "global_step_2" / "actor"
    shutil.copytree(model_folder, actor / "model" / "huggingface")
    (actor / "ckpt_contents.json").write_text(json.dumps(MANIFEST))
    (run / "config.yaml").write_text(CONFIG)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in METRICS))
    (run / "latest_checkpointed_iteration.txt").write_text("2\n")
    return run / "global_step_2"


def weights_of(checkpoint):
    return checkpoint / "actor" / "model" / "huggingface"


def export(checkpoint, output, *more):
    main(["--checkpoint", str(checkpoint), "--output", str(output), *map(str, more)])


def export_fails(checkpoint, output, capsys, *more):
    """Return the one line that a failed export prints; check that it leaves nothing behind."""
    with pytest.raises(SystemExit) as ended:
        export(checkpoint, output, *more)
    assert ended.value.code == 2
    assert not output.exists() and not list(output.parent.glob(".*partial*"))
    error = capsys.readouterr().err
    assert error.startswith("export: ") and error.count("\n") == 1
    return error


def test_an_export_holds_the_same_weights_and_loads(checkpoint, tmp_path, capsys):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    output = tmp_path / "hf"
    export(checkpoint, output)
    original, exported = (
        load_file(weights_of(checkpoint) / "model.safetensors"),
        load_file(output / "model.safetensors"),
    )
    assert original.keys() == exported.keys()
    assert all(torch.equal(original[name], exported[name]) for name in original)
    assert "by at most 0.0e+00" in capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained(output)
    model = AutoModelForCausalLM.from_pretrained(output)
    assert len(tokenizer) == model.config.vocab_size
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "7*2+3-4=?"}], add_generation_prompt=True, return_tensors="pt"
    )
    assert model.generate(**ids, max_new_tokens=4, do_sample=False).shape[1] <= ids["input_ids"].shape[1] + 4
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_a_run_means_its_latest_checkpoint(checkpoint, tmp_path):
    export(checkpoint.parent, tmp_path / "hf")
    assert (tmp_path / "hf" / "model.safetensors").is_file()


def test_another_dtype_in_shards(checkpoint, tmp_path):
    from transformers import AutoModelForCausalLM

    output = tmp_path / "hf"
    export(checkpoint, output, "--dtype", "bfloat16", "--max-shard-gb", 1e-4)
    index = json.loads((output / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2 and sorted(path.name for path in output.glob("*.safetensors")) == files
    assert index["metadata"]["total_size"] == 2 * sum(
        tensor.numel() for tensor in load_file(weights_of(checkpoint) / "model.safetensors").values()
    )
    original = load_file(weights_of(checkpoint) / "model.safetensors")
    for file in files:
        for name, tensor in load_file(output / file).items():
            assert index["weight_map"][name] == file and torch.equal(tensor, original[name].bfloat16())
    assert AutoModelForCausalLM.from_pretrained(output).dtype is torch.bfloat16
    assert json.loads((output / "config.json").read_text())["dtype"] == "bfloat16"


def test_the_card_describes_the_run_at_the_step_and_names_no_path(checkpoint, tmp_path):
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    row = {"accuracy": 0.914, "accuracy_interval": [0.87, 0.95], "n": 4}
    settings = {"temperature": 0.6, "top_p": 1.0, "max_tokens": 64, "seed": 0}
    summary = {"sources": {"arithmetic/hardest": row}, "average": row, "settings": settings}
    (evaluation / "summary.json").write_text(json.dumps(summary))
    export(checkpoint, tmp_path / "hf", "--evaluation", f"trained={evaluation}")
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "step 2" in card and "supervised updates: 3\n" in card and "demonstrations used: 48\n" in card
    assert "`Small-Base`" in card and "gsm8k/train.parquet" in card and "somewhere" not in card
    assert "91.4 (87.0 to 95.0), n=4" in card and "| trained |" in card
    assert "| rollouts per question | 8 |" in card and "| method | relift |" in card
    assert card.startswith("---\nlibrary_name: transformers\n") and "base_model:" not in card


def test_the_card_shows_names_and_does_not_obey_them(checkpoint, tmp_path):
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    row = {"accuracy": 0.5, "accuracy_interval": [0.4, 0.6], "n": 1}
    settings = {"temperature": 0.6, "top_p": 1.0, "max_tokens": 64, "seed": 0}
    sources = [
        "a|b",
        "![x](http://host/pixel.png)",
        "<img src=http://host/pixel.png>",
        "two\n# lines",
        "\x1b[2J\u202egnp",
    ]
    summary = {"sources": dict.fromkeys(sources, row), "average": row, "settings": settings}
    (evaluation / "summary.json").write_text(json.dumps(summary))
    (checkpoint.parent / "config.yaml").write_text(
        "data: {train_files: ['data/`x` <b>.parquet']}\nalgorithm: {adv_estimator: 'x | ![y](http://host/y.png)'}"
    )
    export(checkpoint, tmp_path / "hf", "--evaluation", f"<i>label</i>={evaluation}")
    card = (tmp_path / "hf" / "README.md").read_text()
    rows = [line for line in card.splitlines() if "50.0 (40.0 to 60.0), n=1" in line]
    assert [re.sub(r"\\\|", "", line).count("|") for line in rows] == [3] * len(sources)
    text = re.sub(r"`[^`]*`", "", re.sub(r"\\[^\w]", "", card))  # without what is escaped and without code
    assert "![" not in text and "<img" not in text and "<i>" not in text and "<b>" not in text
    assert "\n# lines" not in card and "\x1b" not in card and "\u202e" not in card
    assert r"\\x1b" in card and "`data/'x' <b>.parquet`" in card and r"x \|" in card


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("method: {name: relift, trigger: {max_accuracy: 0}}", "with the method `relift`, which combines"),
        ("method: {name: grpo}", "A causal language model, trained by `verl_relift` with the method `grpo`. Training"),
        ("{}", "A causal language model, trained by `verl_relift`. Training used"),
    ],
)
def test_the_card_names_the_method(checkpoint, tmp_path, config, sentence):
    (checkpoint.parent / "config.yaml").write_text(config)
    export(checkpoint, tmp_path / "hf")
    assert sentence in (tmp_path / "hf" / "README.md").read_text()


def test_the_card_says_who_graded(checkpoint, tmp_path):
    own = "reward: {custom_reward_function: {path: /home/me/quiz_reward.py, name: grade}}"
    (checkpoint.parent / "config.yaml").write_text(own)
    export(checkpoint, tmp_path / "own")
    card = (tmp_path / "own" / "README.md").read_text()
    assert "Training graded responses with `grade` of `quiz_reward.py`." in card
    assert "boxed" not in card and "/home" not in card and "- math" not in card
    (checkpoint.parent / "config.yaml").write_text(f"reward: {{custom_reward_function: {{path: '{GRADER}'}}}}")
    export(checkpoint, tmp_path / "ours")
    card = (tmp_path / "ours" / "README.md").read_text()
    assert r"its final answer in `\boxed{}`." in card and "- reinforcement-learning\n- math\n---\n" in card


def test_a_base_model_from_the_hub_is_linked(checkpoint, tmp_path):
    (checkpoint.parent / "config.yaml").write_text("actor_rollout_ref: {model: {path: Qwen/Qwen2.5-Math-7B}}")
    export(checkpoint, tmp_path / "hf")
    assert "base_model: Qwen/Qwen2.5-Math-7B\n" in (tmp_path / "hf" / "README.md").read_text()


def test_an_existing_output_is_kept_without_overwrite(checkpoint, tmp_path, capsys):
    output = tmp_path / "hf"
    output.mkdir()
    (output / "mine.txt").write_text("kept")
    with pytest.raises(SystemExit):
        export(checkpoint, output)
    assert "not empty" in capsys.readouterr().err and (output / "mine.txt").read_text() == "kept"
    export(checkpoint, output, "--overwrite")
    assert not (output / "mine.txt").exists() and (output / "model.safetensors").is_file()


def remove(name):
    return lambda checkpoint: (checkpoint / name).unlink()


def cut_short(checkpoint):
    path = weights_of(checkpoint) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def change_weights(change):
    def damage(checkpoint):
        path = weights_of(checkpoint) / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return damage


def poison(tensors):
    tensors["model.layers.0.mlp.up_proj.weight"][3, 5] = float("nan")


def only_megatron(checkpoint):
    contents = {"contents": {"model": {"path": "model/dist_ckpt", "format": "megatron_dist_checkpoint"}}}
    (checkpoint / "actor" / "ckpt_contents.json").write_text(json.dumps(contents))


def foreign_tokenizer(checkpoint):
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(weights_of(checkpoint))


def index_names_more(checkpoint):
    index = {"weight_map": {"model.embed_tokens.weight": "model-00002-of-00002.safetensors"}}
    (weights_of(checkpoint) / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("actor/ckpt_contents.json"), "incomplete: no actor/ckpt_contents.json"),
        (remove("actor/model/huggingface/config.json"), "incomplete: no actor/model/huggingface/config.json"),
        (remove("actor/model/huggingface/model.safetensors"), "no safetensors files"),
        (remove("actor/model/huggingface/tokenizer_config.json"), "saved without its tokenizer"),
        (remove("actor/model/huggingface/chat_template.jinja"), "no chat template; give one with --chat-template"),
        (index_names_more, "incomplete: no model-00002-of-00002.safetensors"),
        (cut_short, "damaged safetensors file"),
        (change_weights(lambda tensors: tensors.pop("lm_head.weight")), "lacks lm_head.weight"),
        (change_weights(lambda t: t.update(new=torch.zeros(1))), "has new, which the architecture"),
        (change_weights(lambda t: t.update({"lm_head.weight": torch.zeros(3, 3)})), "but config.json implies"),
        (change_weights(poison), "model.layers.0.mlp.up_proj.weight: has NaN or infinite values"),
        (only_megatron, "no weights in Hugging Face format (it holds model)"),
        (foreign_tokenizer, "embeddings; use the tokenizer that belongs to the model"),
    ],
)
def test_a_damaged_checkpoint_gives_no_model(checkpoint, tmp_path, capsys, damage, message):
    damage(checkpoint)
    assert message in export_fails(checkpoint, tmp_path / "hf", capsys)


def test_a_run_without_the_checkpoint_says_which_it_has(tmp_path, capsys):
    run = tmp_path / "run"
    (run / "logs").mkdir(parents=True)
    (run / "logs/train.log").touch()
    assert f"{run}: this run has made no step; {run}/logs/train.log says why" in export_fails(
        run, tmp_path / "hf", capsys
    )
    (run / "metrics.jsonl").touch()
    assert f"{run}: this run has no checkpoint; trainer.save_freq=N saves" in export_fails(run, tmp_path / "hf", capsys)
    for step in (10, 2):
        (run / f"global_step_{step}").mkdir()
    assert f"{run} has those of the steps 2, 10" in export_fails(run / "global_step_7", tmp_path / "hf", capsys)


def test_a_folder_that_is_not_a_checkpoint(tmp_path, capsys):
    assert "not a checkpoint" in export_fails(tmp_path / "global_step_9", tmp_path / "hf", capsys)


def test_a_number_that_another_dtype_cannot_hold_is_an_error(checkpoint, tmp_path, capsys):
    change_weights(lambda t: t["lm_head.weight"].__setitem__((0, 0), 1e5))(checkpoint)
    assert "lm_head.weight as torch.float16" in export_fails(checkpoint, tmp_path / "hf", capsys, "--dtype", "float16")


def test_a_chat_template_can_be_given(checkpoint, tmp_path):
    from transformers import AutoTokenizer

    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}=")
    export(checkpoint, tmp_path / "hf", "--chat-template", template)
    assert AutoTokenizer.from_pretrained(tmp_path / "hf").chat_template.endswith("=")


def test_push_without_a_token_ends_before_any_work(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "nobody"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "nobody" / "token"))
    assert "--push needs a token" in export_fails(checkpoint, tmp_path / "hf", capsys, "--push", "someone/model")
