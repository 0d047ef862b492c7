"""Every configuration that cannot work ends before Ray starts, in one line that says what, where and what to do."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from safetensors.torch import save_file

from data_preprocess import check as check_data
from verl_relift import train  # noqa: F401  registers the configuration's resolver
from verl_relift.checks import ConfigurationError
from verl_relift.data.schema import SCHEMA
from verl_relift.data.tokens import TokenCounter
from verl_relift.preflight import _model_path, _no_parquet, check
from verl_relift.quickstart.base_model import build_model, build_tokenizer
from verl_relift.settings import reuses_log_probs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, training and validation data that pass every check."""
    folder = tmp_path_factory.mktemp("checks")
    tokenizer = build_tokenizer()
    build_model(len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id, seed=0).save_pretrained(
        folder / "model"
    )
    tokenizer.save_pretrained(folder / "model")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "data_preprocess.arithmetic",
            "--output",
            str(folder),
            "--train-size",
            "64",
            "--eval-size",
            "8",
            "--pretrain-size",
            "16",
        ],
        check=True,
        capture_output=True,
    )
    return folder


def configuration(folder, *overrides: str):
    with initialize_config_module("verl_relift.config", version_base=None):
        return compose(
            "quickstart",
            overrides=[
                "hydra.searchpath=[pkg://verl.trainer.config]",
                "platform=cpu",
                f"data.train_files={folder}/train.parquet",
                f"data.val_files={folder}/test.parquet",
                f"actor_rollout_ref.model.path={folder}/model",
                *overrides,
            ],
        )


def test_the_quickstart_passes(folder):
    check(configuration(folder))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.sft.lr=-1", r"method\.sft\.lr=-1\.0 must be positive"),
        ("trainer.resume_mode=resume_path", r"trainer\.resume_from_path is not set; give an existing"),
        (
            "trainer.resume_mode=resume_path trainer.resume_from_path=.",
            r"resume_from_path=\. is not a checkpoint; give an existing",
        ),
        (
            "method.sft.optimizer=separate actor_rollout_ref.actor.optim.use_precision_aware_optimizer=true",
            r"optimizer=separate exchanges AdamW's fp32 moments",
        ),
        (
            "method=relift_splice +actor_rollout_ref.actor.megatron.override_ddp_config.overlap_grad_reduce=true",
            r"overlap_grad_reduce=true would reduce gradients before",
        ),
        (
            "method.demonstrations.source=teacher method.teacher.base_url=http://127.0.0.1:1 method.teacher.model=m "
            "method.teacher.api_key_env=NO_KEY",
            r"api_key_env=NO_KEY: the environment has no such variable",
        ),
        ("actor_rollout_ref.actor.megatron.tensor_model_parallel_size=3", r"2 GPUs .* replicas of 3"),
        (
            "actor_rollout_ref.rollout.tensor_model_parallel_size=4",
            r"2 GPUs cannot be divided into vLLM replicas of 4 .*; make that product 1 or 2",
        ),
        (
            "data.train_batch_size=12",
            r"data\.train_batch_size=12 must be divisible by .*ppo_mini_batch_size=16; set it to 16$",
        ),
        ("data.train_batch_size=128", r"hold 64 questions .*, fewer than data\.train_batch_size=128"),
        ("actor_rollout_ref.rollout.n=1", r"rollout\.n=1: a group needs at least 2 rollouts"),
        ("actor_rollout_ref.actor.optim.lr_decay_steps=5", r"lr_warmup_steps=5 must be below .* 5 steps"),
        ("relift.rollout.batched=false", r"set reward\.num_workers=8"),
        ("trainer.v1.sampler.custom_sampler.path=null", r"custom_sampler\.path=null: .* wait forever"),
        (
            "algorithm.filter_groups.enable=true algorithm.filter_groups.metric=acc relift.rollout.batched=false "
            "reward.num_workers=1 trainer.v1.sampler.custom_sampler.path=null",
            r"custom_sampler\.path=None: .*method=relift gets the questions that are evicted from",
        ),
        ("relift.resume.accept_changes=[data.sede]", r"accept_changes=\[data\.sede\]: there is no such key"),
        ("trainer.default_local_dir=s3://bucket/run", r"s3://bucket/run is no folder of this machine"),
        ("reward.custom_reward_function.path=null", r"verl has no reward function for data_source=arithmetic"),
        (
            "algorithm.filter_groups.enable=true algorithm.filter_groups.metric=null",
            r"filter_groups\.metric=null is nothing that the rewards have",
        ),
        (
            "algorithm.filter_groups.enable=true algorithm.filter_groups.metric=seq_reward",
            r"filter_groups\.metric=seq_reward is nothing .*set it to acc, score, reward",
        ),
        ("method.sft.lr=inf", r"method\.sft\.lr=inf must be positive and finite"),
        ("method.sft.entropy_coeff=nan", r"method\.sft\.entropy_coeff=nan must be finite"),
        ("trainer.use_v1=false", r"^trainer\.use_v1=false must be true"),
        (
            "+actor_rollout_ref.actor.megatron.override_transformer_config.recompute_granularty=full",
            r"TransformerConfig has no such setting; did you mean recompute_granularity\?",
        ),
        (
            "actor_rollout_ref.actor.megatron.override_transformer_config.recompute_granularity=foo",
            r"recompute_granularity=foo must be of type full, selective or null",
        ),
        (
            "actor_rollout_ref.actor.megatron.override_transformer_config.recompute_granularity=full",
            r"^Megatron refuses the model with .*: .*recompute_method must be",
        ),
        (
            "actor_rollout_ref.rollout.max_model_len=70000 actor_rollout_ref.rollout.max_num_batched_tokens=70000 "
            "actor_rollout_ref.rollout.engine_kwargs.vllm.num_gpu_blocks_override=600",
            r"max_model_len=70000: the model reads at most \d+ tokens",
        ),
        ("+data.apply_chat_template_kwargs.enable_thinking=false", r"enable_thinking: the chat template has no such"),
        (
            "actor_rollout_ref.model.custom_chat_template='{%for'",
            r"custom_chat_template: .*; correct the template",
        ),
        (
            "actor_rollout_ref.actor.megatron.override_transformer_config.attention_backend=flash",
            r"actor\.megatron.*attention_backend=flash: flash-attn is not installed",
        ),
        ("trainer.default_local_dir=/dev/null/run", r"default_local_dir=/dev/null/run: /dev/null is not a folder"),
        ("trainer.nnodes=2", r"trainer\.nnodes=2: no Ray cluster is named"),
        ("ray_kwargs.ray_init.num_cpus=4", r"num_cpus=4: the run's actors wait for 8 \(logical\) cores"),
        ("ray_kwargs.ray_init.num_gpus=1", r"n_gpus_per_node=2: Ray will find 1 GPU here"),
        ("method.sft.batch_size=100", r"sft\.batch_size=100: data\.train_files hold 64 demonstrations"),
        ("trainer.total_epochs=1", r"total_epochs=1 ends after 4 of trainer\.total_training_steps=80"),
        ("data.train_max_samples=8", r"hold 8 questions .*, fewer than data\.train_batch_size=16"),
        ("relift.speed_patches=1", r"relift\.speed_patches=1 must be of type bool"),
        ("actor_rollout_ref.model.path=nowhere/at/all", r"nowhere/at/all: no such folder; give a Hugging Face folder"),
        ("data.train_files=missing.parquet", r"missing\.parquet: no such file .*python -m data_preprocess\.jsonl"),
    ],
)
def test_settings_that_cannot_work(folder, override, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        check(
            configuration(
                folder,
                *override.split(),
                *(
                    ["data.train_batch_size=128", "actor_rollout_ref.actor.ppo_mini_batch_size=128"]
                    if override == "data.train_batch_size=128"
                    else []
                ),
            )
        )
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "reused"),
    [
        ("", True),
        ("data.train_batch_size=32", False),
        ("actor_rollout_ref.actor.ppo_epochs=2", False),
        ("relift.reuse_log_probs=false", False),
        ("algorithm.use_kl_in_reward=true", False),
        ("algorithm.rollout_correction.rollout_is=token", False),
        ("algorithm.rollout_correction.bypass_mode=true", False),
        ("algorithm.rollout_correction=null", True),
        ("relift.rollout.batched=false", False),
        ("method=grpo", True),
    ],
)
def test_log_probs_are_reused_where_a_batch_is_one_update(folder, overrides, reused):
    assert reuses_log_probs(configuration(folder, *overrides.split())) is reused


def test_faults_of_rows_are_five_and_a_command_that_lists_the_others(folder, capsys):
    with pytest.raises(ConfigurationError) as error:
        check(configuration(folder, "data.max_prompt_length=4"))
    *rows, more = str(error.value).splitlines()
    assert len(rows) == 5 and all("tokens, limit 4; make the file again" in row for row in rows)
    count, command = re.fullmatch(r"and (\d+) more; python -m (.*) lists up to 1,000 of a kind", more).groups()
    module, file, *flags = shlex.split(command)
    assert (module, file) == ("data_preprocess.check", "FILE")
    capsys.readouterr()  # what libraries print when they are imported
    assert check_data.main([f"{folder}/train.parquet", f"{folder}/test.parquet", *flags, "--quiet"]) == 1
    listed = json.loads(capsys.readouterr().out)["errors"]
    assert len([error for error in listed if "long_prompt" in error["kind"] or "too_long" in error["kind"]]) == (
        5 + int(count)
    )


def test_problems_of_settings_are_five_and_a_count(folder):
    keys = (
        "train_batch_size",
        "max_prompt_length",
        "max_response_length",
        "seed",
        "shuffle",
        "val_files",
        "truncation",
    )
    with pytest.raises(ConfigurationError) as error:
        check(configuration(folder, *(f"data.{key}=7.5" for key in keys)))
    assert len(str(error.value).splitlines()) == 6 and str(error.value).endswith("and 2 more")


def test_data_without_solutions_need_a_teacher(folder, tmp_path):
    rows = pq.read_table(folder / "train.parquet").drop_columns(["target"])
    pq.write_table(rows, tmp_path / "train.parquet")
    files = f"data.train_files={tmp_path}/train.parquet"
    with pytest.raises(ConfigurationError, match=r"column target \(no such column.*, or ask a teacher \("):
        check(configuration(folder, files))
    teacher = ("method.teacher.base_url=http://127.0.0.1:1/v1", "method.teacher.model=m")
    for source in ("teacher", "dataset_then_teacher"):
        check(configuration(folder, files, f"method.demonstrations.source={source}", *teacher))


def test_data_parallel_size_must_divide_the_supervised_batch(folder):
    config = configuration(
        folder, "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1", "method.sft.batch_size=15"
    )
    with pytest.raises(ConfigurationError, match=r"method\.sft\.batch_size=15 must be divisible .* size 2"):
        check(config)


@pytest.mark.parametrize("method", ["rl_with_sft_loss", "relift method.schedule.kind=always"])
def test_an_update_has_a_row_for_every_data_parallel_rank(folder, method):
    config = configuration(
        folder,
        *f"method={method}".split(),
        "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1",
        "method.sft.batch_size=1",
    )
    with pytest.raises(ConfigurationError, match=r"batch_size=1 is smaller than the data-parallel size 2"):
        check(config)


def test_a_checkpoint_of_another_method_is_not_resumed(folder, tmp_path):
    checkpoint = tmp_path / "run" / "global_step_3"
    (checkpoint / "relift").mkdir(parents=True)
    (tmp_path / "run" / "latest_checkpointed_iteration.txt").write_text("3")
    run = ("trainer.resume_mode=auto", f"trainer.default_local_dir={tmp_path}/run")
    with pytest.raises(ConfigurationError, match=r"state\.json is missing: another program made the checkpoint"):
        check(configuration(folder, *run))
    (checkpoint / "relift" / "state.json").write_text('{"method": "grpo"}')
    with pytest.raises(ConfigurationError, match=r"method=relift can't resume from .*, which method=grpo made"):
        check(configuration(folder, *run))
    check(configuration(folder, *run, "method=grpo"))


def test_demonstrations_in_a_column_of_another_name(folder, tmp_path):
    rows = pq.read_table(folder / "train.parquet")
    renamed = rows.rename_columns(["solution" if name == "target" else name for name in rows.column_names])
    pq.write_table(renamed, tmp_path / "train.parquet")
    files = f"data.train_files={tmp_path}/train.parquet"
    check(configuration(folder, files, "method.demonstrations.column=solution"))
    with pytest.raises(
        ConfigurationError, match=r"column solutoin \(no such column \(there are: .*solution.*method\.demon"
    ):
        check(configuration(folder, files, "method.demonstrations.column=solutoin"))


def _changed(folder, path, targets=None, truths=None):
    """Write the training file with other demonstrations or ground truths."""
    rows = pq.read_table(folder / "train.parquet").to_pylist()
    for i, row in enumerate(rows):
        row["target"] = row["target"] if targets is None or i < targets else None
        row["reward_model"]["ground_truth"] = truths or row["reward_model"]["ground_truth"]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)
    return f"data.train_files={path}"


@pytest.mark.parametrize("name", ["train", "test"])
@pytest.mark.parametrize("method", ["hpt", "luffy", "srft", "rl_plus", "superrl", "chord_phi", "uft", "relift", "sft"])
def test_no_method_trains_on_demonstrations_that_are_not_there(folder, tmp_path, method, name):
    files = _changed(folder, tmp_path / f"{name}.parquet", targets=0)
    line = (
        r"no row of data\.train_files has a solution in column target \(every target is null or blank\), and "
        rf"method={method} trains on them: make the file again with --target-column, .*use method=grpo, or .*teacher.*"
    )
    with pytest.raises(ConfigurationError) as refused:
        check(configuration(folder, files, f"method={method}"))
    assert re.fullmatch(line, str(refused.value))
    assert check(configuration(folder, files, "method=grpo")) == []


def test_some_demonstrations_are_enough_and_are_counted(folder, tmp_path):
    none, some = (_changed(folder, tmp_path / f"{n}.parquet", targets=n).partition("=")[2] for n in (0, 9))
    notes = check(configuration(folder, f"data.train_files=[{none},{some}]", "method=hpt"))
    assert notes == ["  9 of 128 training questions have a demonstration"]


def test_demonstrations_that_are_too_long_are_counted_and_all_of_them_are_refused(folder):
    with pytest.raises(ConfigurationError) as refused:
        check(configuration(folder, "method=hpt", "method.demonstrations.max_tokens=1"))
    assert re.fullmatch(
        r"all 64 demonstrations that were measured are longer than method\.demonstrations\.max_tokens=1 "
        r"\(the shortest has \d+ tokens\), so none would be trained on; raise it",
        str(refused.value),
    )
    [note] = check(configuration(folder, "method=hpt", "method.demonstrations.max_tokens=30"))
    limit = r"longer than method\.demonstrations\.max_tokens=30"
    having = "  64 of 64 training questions have a demonstration"
    assert re.fullmatch(rf"{having}; \d+ of 64 that were measured are {limit}: not used", note)


def test_questions_for_both_purposes_are_counted(folder, tmp_path):
    file, test = (f"{folder}/{name}.parquet" for name in ("train", "test"))
    notes = check(configuration(folder, "method=grpo", f"data.val_files={file}"))
    assert notes == [f"  note: {file}: the same file is for training and for validation"]
    copy = tmp_path / "both.parquet"
    pq.write_table(pa.concat_tables([pq.read_table(file), pq.read_table(test)]), copy)
    notes = check(configuration(folder, "method=grpo", f"data.train_files={copy}"))
    count = pq.read_metadata(test).num_rows
    assert notes == [f"  note: {count} training questions are, or resemble, validation questions (docs/data.md)"]


def test_a_reward_function_that_was_forgotten_is_named(folder, tmp_path):
    key = r"reward\.custom_reward_function\.path=FILE.*docs/own-reward\.md"
    for truth, problem in (("t(0,4]", "is not a number"), ("123456", "none of 64 graded demonstrations")):
        with pytest.raises(ConfigurationError, match=rf"{problem}.*{key}"):
            check(configuration(folder, _changed(folder, tmp_path / "train.parquet", truths=truth), "method=hpt"))


def test_a_tokenizer_that_is_not_there_is_named_by_its_own_key(tmp_path):
    model = {"path": str(tmp_path), "tokenizer_path": None}
    assert list(_model_path(OmegaConf.create({"actor_rollout_ref": {"model": model}}))) == []
    model["tokenizer_path"] = f"{tmp_path}x"
    (line,) = _model_path(OmegaConf.create({"actor_rollout_ref": {"model": model}}))
    assert line == f"actor_rollout_ref.model.tokenizer_path={tmp_path}x: no such folder; did you mean {tmp_path}?"


def test_a_file_with_nearly_the_name_of_a_missing_one_is_suggested(tmp_path):
    (tmp_path / "train.parquet").write_text("")
    (tmp_path / "train.jsonl").mkdir()
    said = f"{tmp_path}/tran.parquet: no such file (data.train_files / data.val_files); "
    assert _no_parquet(f"{tmp_path}/tran.parquet") == f"{said}did you mean {tmp_path}/train.parquet?"
    assert "data_preprocess.jsonl makes it" in _no_parquet(f"{tmp_path}/test.parquet")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_a_file_that_is_not_parquet_yet_is_told_how_it_becomes_that(folder, tmp_path, suffix):
    (tmp_path / f"train{suffix}").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"training reads parquet .*python -m data_preprocess\.jsonl"):
        check(configuration(folder, f"data.train_files={tmp_path}/train{suffix}"))


def test_files_of_other_places_and_forms_are_told_what_training_reads(tmp_path):
    (tmp_path / "train.jsonl.gz").write_text("")
    (tmp_path / "b.parquet").write_text("")
    (tmp_path / "a.parquet").write_text("")
    listed = f"'[{tmp_path}/a.parquet,{tmp_path}/b.parquet]'"
    for file, said in (
        (f"{tmp_path}/train.jsonl.gz", "training reads parquet"),
        (f"{tmp_path}", f"is a folder (data.train_files / data.val_files); name its parquet files, such as {listed}"),
        (f"{tmp_path}/*.parquet", f"no such file (data.train_files / data.val_files); name each one: {listed}"),
        ("hf://datasets/owner/name/a.parquet", "training reads files of this machine"),
    ):
        assert _no_parquet(file).startswith(f"{file}: {said}")


OWN = "reward.custom_reward_function"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("solution_str == ground_truth", r"returned None \(NoneType\), which is no number \(reward of .*own\.py"),
        ("return 0.5", r"returned 0\.5, which is neither 0 nor 1"),
        ("return {'acc': 1}", "returned a dict without score"),
    ],
)
def test_a_function_that_returns_no_reward_is_rejected_before_anything_starts(folder, tmp_path, body, message):
    file = tmp_path / "own.py"
    file.write_text(f"def reward(data_source, solution_str, ground_truth, extra_info):\n    {body}\n")
    with pytest.raises(ConfigurationError, match=message):
        check(configuration(folder, f"{OWN}.path={file}", f"{OWN}.name=reward"))


def test_a_function_that_raises_may_need_what_comes_later(folder, tmp_path):
    file = tmp_path / "own.py"
    file.write_text("def reward(data_source, solution_str, ground_truth, extra_info):\n    return judge[0]\n")
    named = f"{OWN}.path={file}", f"{OWN}.name=reward"
    *_, note = check(configuration(folder, *named))
    assert note.startswith("  note: the reward function raised NameError: name 'judge' is not defined (")
    assert note.endswith("; training ends at the first such answer")
    no_reward = "def reward(data_source, solution_str, ground_truth, extra_info):\n    return 0.5\n"
    file.write_text(no_reward)
    verls = "relift.rollout.batched=false", "reward.num_workers=1"
    assert not any("reward function" in line for line in check(configuration(folder, "method=grpo", *verls, *named)))
    file.write_text(f"import ray\n\n{no_reward}")
    assert not any("raised" in line for line in check(configuration(folder, *named)))


def _prompts(file):
    return pq.read_table(file).column("prompt").to_pylist()


def test_questions_that_are_left_out_are_counted(folder):
    """verl says in the log only that it leaves out long prompts, and validation is then of fewer questions."""
    assert check(configuration(folder, "method=grpo")) == []
    counter = TokenCounter.load(f"{folder}/model")
    of_train, of_test = (
        counter.prompts([[(m["role"], m["content"]) for m in chat] for chat in _prompts(folder / f"{name}.parquet")])
        for name in ("train", "test")
    )
    limit = sorted(of_train)[len(of_train) // 2]
    shorter = (f"data.max_prompt_length={limit}", "data.filter_overlong_prompts=true", "trainer.total_training_steps=1")
    (line,) = check(configuration(folder, *shorter, "method=grpo"))
    longer = [sum(length > limit for length in lengths) for lengths in (of_train, of_test)]
    assert min(longer) > 0
    assert f"{longer[0]} of {len(of_train)} training questions" in line
    assert f"{longer[1]} of {len(of_test)} validation questions" in line
    assert f"data.max_prompt_length={limit} tokens" in line


def test_hints_are_texts_of_a_column_that_is_there(folder, tmp_path):
    rows, path = pq.read_table(folder / "train.parquet"), tmp_path / "hinted.parquet"
    hinted = configuration(folder, f"data.train_files={path}", "method=hint_retry", "method.kind=column")
    texts, numbers = (
        pa.array([value] * len(rows), pa.list_(kind)) for value, kind in ((["a"], pa.string()), ([1], pa.int64()))
    )
    none = pa.array([[]] * len(rows), pa.list_(pa.string()))
    for column, problem in (
        (None, r"method\.column=hints: .*hinted\.parquet has no such column; add it with a list of texts"),
        (numbers, r"method\.column=hints: in .*hinted\.parquet it is list<.*int64>; it must be a list of texts"),
        (none, r"method\.column=hints: .*hinted\.parquet has a hint in no row"),
        (texts, None),
    ):
        pq.write_table(rows if column is None else rows.append_column("hints", column), path)
        if problem is None:
            check(hinted)
            continue
        with pytest.raises(ConfigurationError, match=problem):
            check(hinted)


def test_heads_must_be_divisible(folder):
    config = configuration(
        folder, "trainer.n_gpus_per_node=4", "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=4"
    )
    with pytest.raises(
        ConfigurationError, match=r"tensor_model_parallel_size=4 must divide the model's 2 key-value heads"
    ):
        check(config)


def test_a_tokenizer_of_another_model(folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(folder / "model", model)
    config = OmegaConf.load(model / "config.json")
    config.vocab_size = 8
    (model / "config.json").write_text(__import__("json").dumps(OmegaConf.to_container(config)))
    with pytest.raises(ConfigurationError, match=r"the tokenizer has 32 tokens, the model's vocabulary 8"):
        check(configuration(folder, f"actor_rollout_ref.model.path={model}"))


def test_a_model_without_the_files_of_its_tokenizer(folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(folder / "model", model)
    whole = (model / "tokenizer.json").read_bytes()
    for content, problem in ((None, "tokenizer's files are missing"), (whole[:300], "tokenizer cannot be loaded")):
        (model / "tokenizer.json").unlink()
        if content is not None:
            (model / "tokenizer.json").write_bytes(content)
        with pytest.raises(ConfigurationError, match=rf"{model}: the {problem}.*give a folder with tokenizer\.json"):
            check(configuration(folder, f"actor_rollout_ref.model.path={model}"))
        (model / "tokenizer.json").write_bytes(whole)
    config = (model / "config.json").read_text()
    (model / "config.json").write_text("[1]")
    with pytest.raises(ConfigurationError, match=rf"model\.path: {model}/config\.json: not a JSON object"):
        check(configuration(folder, f"actor_rollout_ref.model.path={model}"))
    (model / "config.json").write_text(config)
    (model / "chat_template.jinja").write_text("{% for message in messages %}\n{{ message")
    with pytest.raises(ConfigurationError, match=rf"the chat template of {model}: line 2: "):
        check(configuration(folder, f"actor_rollout_ref.model.path={model}"))


def test_a_model_without_weights(folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(folder / "model", model)
    (model / "model.safetensors").unlink()
    lacking = (
        rf"model\.path={model}: weights are missing \(no \*\.safetensors in {model}\); give a folder with all files"
    )
    with pytest.raises(ConfigurationError, match=lacking):
        check(configuration(folder, f"actor_rollout_ref.model.path={model}"))
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"a": torch.zeros(2)}, model / "model-00001-of-00002.safetensors")
    with pytest.raises(ConfigurationError, match=r"weights are missing \(no model-00002-of-00002\.safetensors in "):
        check(configuration(folder, f"actor_rollout_ref.model.path={model}"))


def test_a_model_whose_download_broke_off(folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(folder / "model", model)
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ConfigurationError, match=rf"model\.path={model}: {file} is not a complete safetensors"):
        check(configuration(folder, f"actor_rollout_ref.model.path={model}"))


def rows(folder) -> list[dict]:
    return pq.read_table(folder / "train.parquet").to_pylist()


def with_rows(folder, tmp_path, changed: list[dict], schema=SCHEMA):
    path = tmp_path / "changed.parquet"
    pq.write_table(pa.Table.from_pylist(changed, schema=schema), path)
    return configuration(folder, f"data.train_files={path}")


def test_a_missing_column(folder, tmp_path):
    path = tmp_path / "changed.parquet"
    pq.write_table(pq.read_table(folder / "train.parquet").drop_columns(["reward_model"]), path)
    with pytest.raises(ConfigurationError, match=r"changed\.parquet.*reward_model"):
        check(configuration(folder, f"data.train_files={path}"))


def test_an_empty_prompt(folder, tmp_path):
    changed = rows(folder)
    changed[5]["prompt"] = [{"role": "user", "content": ""}]
    with pytest.raises(ConfigurationError, match=r"row 5, column prompt"):
        check(with_rows(folder, tmp_path, changed))


def test_no_targets_at_all(folder, tmp_path):
    changed = [{**row, "target": None} for row in rows(folder)]
    with pytest.raises(ConfigurationError, match="target"):
        check(with_rows(folder, tmp_path, changed))


def test_an_unparsable_ground_truth(folder, tmp_path):
    changed = rows(folder)
    changed[7]["reward_model"]["ground_truth"] = "\\frac{"
    with pytest.raises(ConfigurationError, match=r"row 7, column reward_model"):
        check(with_rows(folder, tmp_path, changed))


def test_vllm_is_not_installed(folder, monkeypatch):
    import importlib.util

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "vllm" else find_spec(name, *a))
    with pytest.raises(ConfigurationError, match=r"the package vllm is not installed.*make install"):
        check(configuration(folder))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.train_batch_size=12"], "data.train_batch_size=12 must be divisible"),
        (["data.train_bach_size=12"], "data.train_bach_size: there is no such key; did you mean data.train_batch_size"),
        (
            ["data.apply_chat_template_kwargs.thinking=true"],
            "data.apply_chat_template_kwargs.thinking: the configuration does not have this key yet; + in front adds",
        ),
        (["method=grpo", "method.sft.lr=1"], "method.sft.lr: there is no such key"),
        (["method=rleift"], "method=rleift: there is no such method; did you mean relift?"),
        (["trainer.logger=[a"], "trainer.logger=[a: [ is not closed"),
    ],
)
def test_the_command_line_prints_the_line_and_ends_with_2(folder, overrides, message):
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "verl_relift.train",
            "--config-name",
            "quickstart",
            *overrides,
            f"data.train_files={folder}/train.parquet",
            f"data.val_files={folder}/test.parquet",
            f"actor_rollout_ref.model.path={folder}/model",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(f"rejected: {message}"), result.stderr
    assert "Traceback" not in result.stderr
