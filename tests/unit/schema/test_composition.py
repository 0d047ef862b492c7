"""Every key that is set to something that this program can't do, or that nothing reads, is named in one line."""

import dataclasses
import re

import pytest
from omegaconf import OmegaConf

from verl_relift.methods import METHODS
from verl_relift.schema import problems
from verl_relift.schema.composition import _flat
from verl_relift.schema.keys import RULES, rule_of
from verl_relift.schema.rules import Unchecked

from ..configurations import configuration, overridden

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
ENGINE, OPTIM, MODEL = f"{ACTOR}.megatron", f"{ACTOR}.optim", "actor_rollout_ref.model"


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["relift", "quickstart", "smoke"])
def test_the_programs_own_configurations_break_no_rule(name, method, platform):
    assert list(problems(configuration(name=name, method=method, platform=platform))) == []


BROKEN = [
    # what the values must be
    ("data.train_batch_size=abc", "must be a whole number of at least 1"),
    ("data.train_batch_size=0", "must be a whole number of at least 1"),
    ("data.train_batch_size=-8", "must be a whole number of at least 1"),
    ("data.train_batch_size=8.0", "must be a whole number of at least 1"),
    ("data.train_batch_size=true", "must be a whole number of at least 1"),
    ("data.train_batch_size=null", "must be a whole number of at least 1"),
    ("data.train_batch_size=[8]", "must be a whole number of at least 1"),
    ("data.max_response_length=0", "must be a whole number of at least 1"),
    ("data.max_prompt_length=-1", "must be a whole number of at least 1"),
    ("data.train_max_samples=0", "must be a whole number of at least 1 or -1"),
    ("data.val_max_samples=-2", "must be a whole number of at least 1 or -1"),
    ("data.val_batch_size=0", "must be a whole number of at least 1 or null"),
    ("data.val_files=[]", "must be a list with at least one item"),
    ("data.train_files=null", "must be a list with at least one item"),
    ("data.train_files=3", "must be a list with at least one item"),
    ("data.train_files=[a.parquet,7]", "has the item 7, which must be a text"),
    ("data.seed=-1", "must be a whole number of at least 0 or null"),
    ("data.seed=1.5", "must be a whole number of at least 0 or null"),
    ("data.shuffle=yes_please", "must be true or false"),
    ("data.shuffle=1", "must be true or false"),
    ("data.dataloader_num_workers=-1", "must be a whole number of at least 0"),
    ("data.filter_overlong_prompts_workers=0", "must be a whole number of at least 1"),
    ("data.truncation=left", "must be error: a question is never cut"),
    ("data.prompt_key=question", "must be prompt: data_preprocess.jsonl renames a column"),
    ("data.return_raw_chat=false", "must be true: questions are chats"),
    ("data.trust_remote_code=true", "must be false: code that comes with a model is not run"),
    ("data.gen_batch_size=16", "must be null: a step draws data.train_batch_size questions"),
    (f"{MODEL}.path=null", "must be a text"),
    (f"{MODEL}.trust_remote_code=true", "must be false: code that comes with a model is not run"),
    (f"{MODEL}.lora.rank=8", "must be 0: LoRA adapters are not supported"),
    (f"{MODEL}.lora_rank=8", "must be 0: LoRA adapters are not supported"),
    (f"{MODEL}.lora_adapter_path=adapter", "must be null: LoRA"),
    (f"{MODEL}.use_remove_padding=false", "must be true: demonstrations come without padding"),
    (f"{MODEL}.external_lib=no.such.package", "must be a dotted name that can be imported"),
    (f"{ROLLOUT}.name=sglang", "must be vllm"),
    (f"{ROLLOUT}.name=hf", "must be vllm"),
    (f"{ROLLOUT}.mode=sync", "must be async"),
    (f"{ROLLOUT}.temperature=0", "must be a finite number above 0"),
    (f"{ROLLOUT}.temperature=-1", "must be a finite number above 0"),
    (f"{ROLLOUT}.temperature=nan", "must be a finite number above 0"),
    (f"{ROLLOUT}.temperature=inf", "must be a finite number above 0"),
    (f"{ROLLOUT}.temperature=warm", "must be a finite number above 0"),
    (f"{ROLLOUT}.top_p=0", "must be a finite number above 0 and at most 1"),
    (f"{ROLLOUT}.top_p=1.5", "must be a finite number above 0 and at most 1"),
    (f"{ROLLOUT}.top_k=0", "must be a whole number of at least 1 or -1"),
    (f"{ROLLOUT}.top_k=-5", "must be a whole number of at least 1 or -1"),
    (f"{ROLLOUT}.n=0", "must be a whole number of at least 1"),
    (f"{ROLLOUT}.n=2.5", "must be a whole number of at least 1"),
    (f"{ROLLOUT}.do_sample=false", "must be true: greedy rollouts of a question are all the same"),
    (f"{ROLLOUT}.val_kwargs.n=0", "must be a whole number of at least 1"),
    (f"{ROLLOUT}.val_kwargs.temperature=-0.1", "must be a finite number of at least 0"),
    (f"{ROLLOUT}.val_kwargs.top_p=2", "must be a finite number above 0 and at most 1"),
    (f"{ROLLOUT}.val_kwargs.do_sample=sometimes", "must be true or false"),
    (f"{ROLLOUT}.gpu_memory_utilization=1.5", "must be a finite number above 0 and at most 1"),
    (f"{ROLLOUT}.gpu_memory_utilization=0", "must be a finite number above 0 and at most 1"),
    (f"{ROLLOUT}.max_model_len=null", "must be a whole number of at least 2"),
    (f"{ROLLOUT}.max_num_seqs=0", "must be a whole number of at least 1"),
    (f"{ROLLOUT}.max_num_batched_tokens=0", "must be a whole number of at least 1"),
    (f"{ROLLOUT}.dtype=fp32", "must be one of auto, bfloat16, float16, float32"),
    (f"{ROLLOUT}.tensor_model_parallel_size=0", "must be a whole number of at least 1"),
    (f"{ROLLOUT}.pipeline_model_parallel_size=2", "must be 1: verl does not run vLLM with pipeline parallelism"),
    (f"{ROLLOUT}.logprobs_mode=raw_logits", "must be one of processed_logprobs, raw_logprobs"),
    (f"{ROLLOUT}.scheduling_policy=priority", "must be fcfs: requests come without priorities"),
    (f"{ROLLOUT}.load_format=pt", "must be one of dummy, auto, safetensors"),
    (f"{ROLLOUT}.quantization=int3", "must be one of null, fp8"),
    (f"{ROLLOUT}.nnodes=1", "must be 0: vLLM shares the devices with training"),
    (f"{ROLLOUT}.checkpoint_engine.backend=nccl", "must be naive"),
    (f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes=0", "must be a whole number of at least 1"),
    (f"{ROLLOUT}.disaggregation.enabled=true", "must be false: prefill and decoding share an engine"),
    (f"{ROLLOUT}.ignore_eos=maybe", "must be true or false"),
    (f"{ROLLOUT}.cudagraph_capture_sizes=[]", "must be a list with at least one item"),
    (f"{ROLLOUT}.log_prob_micro_batch_size=4", "must be null: set log_prob_micro_batch_size_per_gpu"),
    (f"{ACTOR}.strategy=fsdp", "must be megatron"),
    (f"{ACTOR}.ppo_mini_batch_size=0", "must be a whole number of at least 1"),
    (f"{ACTOR}.ppo_micro_batch_size=4", "must be null: set ppo_micro_batch_size_per_gpu"),
    (f"{ACTOR}.ppo_epochs=0", "must be a whole number of at least 1"),
    (f"{ACTOR}.ppo_max_token_len_per_gpu=0", "must be a whole number of at least 1"),
    (f"{ACTOR}.loss_agg_mode=sum", "must be one of token-mean, token-sum, seq-mean-token-sum"),
    (f"{ACTOR}.policy_loss.loss_mode=ppo", "must be one of vanilla, dppo_tv"),
    (f"{ACTOR}.policy_loss.loss_mode=bypass_mode", "must be one of vanilla, dppo_tv"),
    (f"{ACTOR}.entropy_coeff=nan", "must be a finite number"),
    (f"{ACTOR}.clip_ratio_low=-0.2", "must be a finite number of at least 0"),
    (f"{ACTOR}.clip_ratio_high=wide", "must be a finite number of at least 0"),
    (f"{ACTOR}.clip_ratio_c=1", "must be a finite number above 1"),
    (f"{ACTOR}.use_dynamic_bsz=auto", "must be true or false"),
    (f"{ACTOR}.checkpoint.async_save=true", "must be false: a checkpoint would be named before it is whole"),
    (f"{ACTOR}.checkpoint.save_contents=[model]", "must contain optimizer"),
    (f"{ACTOR}.checkpoint.save_contents=[model,optimizer,weights]", "has the item weights, which must be one of"),
    (f"{ACTOR}.checkpoint.load_contents=[model]", r"must be \[model,optimizer\]"),
    (f"{OPTIM}.lr=-1e-6", "must be a finite number of at least 0"),
    (f"{OPTIM}.lr=inf", "must be a finite number of at least 0"),
    (f"{OPTIM}.lr=fast", "must be a finite number of at least 0"),
    (f"{OPTIM}.weight_decay=-0.1", "must be a finite number of at least 0"),
    (f"{OPTIM}.betas=[0.9]", "must be a list of 2 items"),
    (f"{OPTIM}.betas=[0.9,1.0]", "has the item 1.0, which must be a finite number of at least 0 and below 1"),
    (f"{OPTIM}.clip_grad=-1", "must be a finite number of at least 0"),
    (f"{OPTIM}.optimizer=sgd", "must be adam"),
    (f"{OPTIM}.optimizer=muon", "must be adam"),
    (f"{OPTIM}.optimizer=adamw_foo", "must be adam"),
    (f"{OPTIM}.lr_decay_style=polynomial", "must be one of constant, linear, cosine, inverse-square-root, WSD"),
    (f"{OPTIM}.lr_decay_steps=0", "must be a whole number of at least 1 or null"),
    (f"{OPTIM}.lr_warmup_steps=-3", "must be a whole number of at least 0 or -1 or null"),
    (f"{OPTIM}.lr_warmup_steps_ratio=1.0", "must be a finite number of at least 0 and below 1"),
    (f"{ENGINE}.dtype=foo", "must be one of bfloat16, float16, float32"),
    (f"{ENGINE}.tensor_model_parallel_size=0", "must be a whole number of at least 1"),
    (f"{ENGINE}.pipeline_model_parallel_size=-1", "must be a whole number of at least 1"),
    (f"{ENGINE}.virtual_pipeline_model_parallel_size=1", "must be a whole number of at least 2 or null"),
    (f"{ENGINE}.expert_model_parallel_size=2", "must be 1: models with experts cannot be trained"),
    (f"{ENGINE}.use_distributed_optimizer=false", "must be true: verl sends weights to vLLM from"),
    (f"{ENGINE}.use_dist_checkpointing=true", "must be false"),
    (f"{ENGINE}.use_mbridge=false", "must be true"),
    (f"{ENGINE}.vanilla_mbridge=false", "must be true: Megatron-Bridge is not supported"),
    (f"{ENGINE}.use_megatron_fsdp=true", "must be false"),
    (f"{ENGINE}.dynamic_context_parallel=true", "must be false"),
    (f"{ENGINE}.router_replay.mode=R2", "must be disabled"),
    (f"{ENGINE}.qat.enable=true", "must be false: quantization-aware training is not supported"),
    (f"{ENGINE}.forward_only=true", "must be false: the actor is trained"),
    (f"{ENGINE}.param_offload=2", "must be true or false"),
    ("algorithm.adv_estimator=gae", "must be one of grpo"),
    ("algorithm.adv_estimator=remax", "must be one of grpo"),
    ("algorithm.adv_estimator=optimal_token_baseline", "must be one of grpo"),
    ("algorithm.adv_estimator=gpro", "must be one of grpo"),
    ("algorithm.use_kl_in_reward=0", "must be true or false"),
    ("algorithm.filter_groups.enable=on_demand", "must be true or false"),
    ("algorithm.filter_groups.max_num_gen_batches=4", "must be 0: the sampler draws until a step is full"),
    ("algorithm.rollout_correction.rollout_is=tokens", "must be one of null, token, sequence"),
    ("algorithm.use_pf_ppo=true", "must be false"),
    ("critic.enable=true", "must be false: a critic is not supported"),
    ("trainer.critic_warmup=5", "must be 0: there is no critic to warm up"),
    ("trainer.use_v1=false", "must be true: verl's former trainer has other hooks"),
    ("trainer.v1.trainer_mode=separate_async", "must be sync: training and generation take turns"),
    ("trainer.v1.trainer_mode=colocate_async", "must be sync: training and generation take turns"),
    ("+trainer.v1.sync.parameter_sync_step=2", "must be 1: a step is one update of the weights"),
    ("trainer.logger=[foo]", "has the item foo, which must be one of console, tensorboard"),
    ("trainer.logger=foo", "must be one of console, tensorboard"),
    ("trainer.logger=[]", "must be a list with at least one item"),
    ("trainer.logger=[console,wandb,7]", ", which must be one of|needs the package wandb"),
    ("trainer.logger=swanlab", "needs the package swanlab, which is not installed"),
    ("trainer.n_gpus_per_node=0", "must be a whole number of at least 1"),
    ("trainer.nnodes=0", "must be a whole number of at least 1"),
    ("trainer.nnodes=two", "must be a whole number of at least 1"),
    ("trainer.default_local_dir=null", "must be a text"),
    ("trainer.default_local_dir=''", "must be a text"),
    ("trainer.project_name=null", "must be a text"),
    ("trainer.total_epochs=0", "must be a whole number of at least 1"),
    ("trainer.total_training_steps=-5", "must be a whole number of at least 1 or null"),
    ("trainer.total_training_steps=1e3", "must be a whole number of at least 1 or null"),
    ("trainer.save_freq=0", "must be a whole number of at least 1 or -1"),
    ("trainer.test_freq=0.5", "must be a whole number of at least 1 or -1"),
    ("trainer.resume_mode=always", "must be one of auto, disable, resume_path"),
    ("trainer.max_actor_ckpt_to_keep=0", "must be a whole number of at least 1 or null"),
    ("trainer.checkpoint_callback_class=no.such.Callback", "must be a dotted name that can be imported"),
    ("trainer.default_hdfs_dir=hdfs://a/b", "must be null: a run resumes from trainer.default_local_dir"),
    ("trainer.del_local_ckpt_after_load=true", "must be false: a checkpoint stays"),
    ("+trainer.remove_previous_ckpt_in_save=true", "must be false: set trainer.max_actor_ckpt_to_keep=1"),
    ("trainer.log_val_generations=-1", "must be a whole number of at least 0"),
    ("trainer.device=npu", "must be one of cpu, cuda"),
    ("reward.num_workers=-1", "must be a whole number of at least 0"),
    ("transfer_queue.backend.storage_backend=MooncakeStore", "must be SimpleStorage"),
    ("transfer_queue.backend.SimpleStorage.total_storage_size=0", "must be a whole number of at least 1"),
    ("transfer_queue.backend.SimpleStorage.num_data_storage_units=0", "must be a whole number of at least 1"),
    ("global_profiler.tool=perf", "must be one of null, nsys, torch"),
    ("model_engine=dp", "must be megatron: the training engine is Megatron-Core"),
    ("actor_rollout_ref.hybrid_engine=false", "must be true: training and generation share the devices"),
    # keys that do nothing here
    ("trainer.balance_batch=false", "has no effect: nothing in this program reads the key"),
    ("trainer.max_critic_ckpt_to_keep=2", "has no effect: nothing in this program reads the key"),
    ("trainer.esi_redundant_time=60", "has no effect: nothing in this program reads the key"),
    ("trainer.v1.sampler.max_off_policy_threshold=2", "has no effect: nothing in this program reads the key"),
    ("trainer.v1.separate_async.parameter_sync_step=2", "has no effect: nothing in this program reads the key"),
    ("critic.optim.lr=1e-4", "has no effect: nothing in this program reads the key"),
    ("skip.rollout.enable=true", "has no effect: nothing in this program reads the key"),
    (f"{MODEL}.enable_gradient_checkpointing=true", "has no effect: nothing in this program reads the key"),
    (f"{MODEL}.target_modules=[q_proj]", "has no effect: nothing in this program reads the key"),
    (f"{MODEL}.use_liger=true", "has no effect: nothing in this program reads the key"),
    (f"{MODEL}.mtp.enable=true", "has no effect: nothing in this program reads the key"),
    (f"{ACTOR}.use_torch_compile=false", "has no effect: nothing in this program reads the key"),
    (f"{ACTOR}.calculate_sum_pi_squared=true", "has no effect: nothing in this program reads the key"),
    (f"{ACTOR}.freeze_vision_tower=true", "has no effect: nothing in this program reads the key"),
    (f"{OPTIM}.total_training_steps=100", "has no effect: nothing in this program reads the key"),
    (f"{OPTIM}.muon_momentum=0.9", "has no effect: nothing in this program reads the key"),
    (f"{ENGINE}.use_remove_padding=false", "has no effect: nothing in this program reads the key"),
    (f"{ROLLOUT}.response_length=100", "has no effect: nothing in this program reads the key"),
    (f"{ROLLOUT}.full_determinism=true", "has no effect: nothing in this program reads the key"),
    (f"{ROLLOUT}.over_sample_rate=0.1", "has no effect: nothing in this program reads the key"),
    (f"{ROLLOUT}.layered_summon=true", "has no effect: nothing in this program reads the key"),
    (f"+{ROLLOUT}.engine_kwargs.sglang.foo=1", "there is no such key"),
    ("actor_rollout_ref.ref.megatron.tensor_model_parallel_size=1", "has no effect: nothing in this program reads"),
    ("actor_rollout_ref.nccl_timeout=60", "has no effect: nothing in this program reads the key"),
    ("ray_kwargs.timeline_json_file=t.json", "has no effect: nothing in this program reads the key"),
    ("data.image_key=pictures", "has no effect: nothing in this program reads the key"),
    ("data.return_full_prompt=true", "has no effect: nothing in this program reads the key"),
    # keys that do something in other runs
    (f"{ACTOR}.clip_ratio=0.3", "acts only with .*clip_ratio_low=null or .*clip_ratio_high=null"),
    (f"{ACTOR}.tau_pos=0.5", "acts only with .*loss_mode=sapo"),
    (f"{ACTOR}.policy_loss.clip_cov_ratio=0.1", "acts only with .*loss_mode=clip_cov"),
    (f"{ACTOR}.policy_loss.dro_beta=0.1", "acts only with .*loss_mode=dro"),
    (f"{ACTOR}.kl_loss_coef=0.1", "acts only with .*use_kl_loss=true"),
    (f"{ACTOR}.kl_loss_type=kl", "acts only with .*use_kl_loss=true"),
    (f"{ACTOR}.loss_scale_factor=100", "acts only with .*loss_agg_mode=seq-mean-token-sum-norm"),
    (f"{ACTOR}.data_loader_seed=1", "acts only with .*shuffle=true"),
    (f"{ACTOR}.ppo_micro_batch_size_per_gpu=4", "acts only with .*use_dynamic_bsz=false"),
    (f"{ACTOR}.entropy_from_logits_chunk_size=64", "acts only with .*entropy_from_logits_with_chunking=true"),
    (f"{OPTIM}.min_lr=1e-7", "acts only with .*lr_decay_style=linear or cosine"),
    (f"{OPTIM}.lr_wsd_decay_steps=10", "acts only with .*lr_decay_style=WSD"),
    (f"{OPTIM}.lr_warmup_steps_ratio=0.1", "acts only with .*lr_warmup_steps=-1 or 0 or null"),
    (f"{OPTIM}.exp_avg_dtype=bf16", "acts only with .*use_precision_aware_optimizer=true"),
    (f"{ENGINE}.pad_to_length_bucket=64", "acts only with .*pad_to_length=true"),
    ("actor_rollout_ref.ref.log_prob_max_token_len_per_gpu=4096", "acts only with .*use_kl_loss=true or"),
    (f"{ROLLOUT}.seed=7", "acts only with relift.rollout.seeded=false or"),
    (f"{ROLLOUT}.multi_turn.enable=true", "acts only with relift.rollout.batched=false"),
    (f"{ROLLOUT}.agent.num_workers=4", "acts only with relift.rollout.batched=false"),
    (f"+{ROLLOUT}.agent.agent_loop_manager_class=my.Manager", "acts only with relift.rollout.batched=false"),
    (f"{ROLLOUT}.trace.token2text=true", "acts only with .*trace.backend=mlflow or weave"),
    ("reward.reward_model.enable=true", "acts only with relift.rollout.batched=false"),
    ("distillation.enabled=true", "acts only with relift.rollout.batched=false"),
    ("distillation.teacher_key=name", "acts only with distillation.enabled=true"),
    ("algorithm.kl_ctrl.kl_coef=0.1", "acts only with algorithm.use_kl_in_reward=true"),
    ("algorithm.kl_penalty=abs", "acts only with algorithm.use_kl_in_reward=true"),
    ("algorithm.gamma=0.9", "acts only with algorithm.adv_estimator=reinforce_plus_plus"),
    ("algorithm.filter_groups.metric=acc", "acts only with algorithm.filter_groups.enable=true"),
    ("algorithm.rollout_correction.rollout_is_threshold=3", "acts only with .*rollout_is=token or sequence"),
    ("trainer.val_only=true", "acts only with trainer.val_before_train=true"),
    ("trainer.resume_from_path=a/global_step_3", "acts only with trainer.resume_mode=resume_path"),
    ("reward.num_workers=4", "acts only with relift.rollout.batched=false"),
    ("global_profiler.steps=[1]", "acts only with a value of global_profiler.tool"),
    ("method.schedule.every=4", "acts only with method.schedule.kind=every_k"),
    ("method.sft.min_lr_ratio=0.1", "acts only with method.sft.lr_schedule=linear or cosine"),
    ("method.teacher.samples=2", "acts only with method.demonstrations.source=teacher or"),
    # keys behind a plus that do not exist
    ("+data.train_bach_size=8", "there is no such key; did you mean data.train_batch_size"),
    ("+trainer.wandb_proxy=http://a", "acts only with trainer.logger=wandb"),
    (f"+{ROLLOUT}.temprature=0.7", f"there is no such key; did you mean {ROLLOUT}.temperature"),
    (f"+{ROLLOUT}.repetition_penalty=1.1", "there is no such key"),
    (f"+{OPTIM}.learning_rate=1e-5", "there is no such key"),
    (f"+{ACTOR}.grad_clip=1.0", "there is no such key"),
    (f"+{ACTOR}.entropy_coef=0.1", f"there is no such key; did you mean {ACTOR}.entropy_coeff"),
    ("+trainer.save_frq=10", "there is no such key; did you mean trainer.save_freq"),
    ("+algorithm.norm_adv_by_std=true", "there is no such key; did you mean algorithm.norm_adv_by_std_in_grpo"),
    ("+lr=1e-5", "there is no such key"),
    ("+reward.custom_reward_function.reward_kwarg.a=1", "there is no such key"),
    ("+trainer.v1.sync.parameter_sync_steps=1", r"there is no such key; did you mean \+trainer.v1.sync.parameter_sync"),
    (
        f"+{ENGINE}.override_optimizer_config.optimizer_cpu_offload=true",
        rf"there is no such key; did you mean \+{OPTIM}.override_optimizer_config.optimizer_cpu_offload",
    ),
    (
        f"+{ACTOR}.override_ddp_config.overlap_grad_reduce=true",
        rf"there is no such key; did you mean \+{ENGINE}.override_ddp_config.overlap_grad_reduce",
    ),
    # what is not a value at all
    ("~trainer.save_freq", "is missing; leave it in"),
    ("~data.train_files", "is missing; leave it in"),
    ("algorithm.kl_ctrl=null", "must be a group of settings"),
    (f"{OPTIM}=adam", "must be a group of settings"),
    ("data.train_files={a:b}", "must be a value, not a group of settings"),
    ("data.apply_chat_template_kwargs=thinking", "must be a group of settings"),
    (f"{ENGINE}.override_ddp_config=null", "must be a group of settings"),
    ("relift=null", "must be a group of settings"),
    ("relift.rollout=fast", "must be a group of settings"),
    ("~relift.rollout.batched", "is missing; leave it in"),
    ("ray_kwargs.ray_init=null", "must be a group of settings"),
    ("method.name=rleift", "there is no such method; docs.train.md lists them"),
    ("trainer.experiment_name='${no.such.key}'", "Interpolation key 'no.such.key' not found"),
]


@pytest.mark.parametrize(("override", "message"), BROKEN, ids=[override for override, _ in BROKEN])
def test_one_line_names_the_key_the_value_and_what_is_allowed(override, message):
    with overridden(override) as config:
        lines = list(problems(config))
    key = override.lstrip("+~").partition("=")[0]
    assert len(lines) == 1, lines
    assert lines[0].startswith((f"{key}=", f"{key} "))
    assert "\n" not in lines[0] and re.search(message, lines[0]), lines[0]


@pytest.mark.parametrize(
    "overrides",
    [
        f"{ACTOR}.clip_ratio_low=null {ACTOR}.clip_ratio_high=null {ACTOR}.clip_ratio=0.3",
        f"{ACTOR}.policy_loss.loss_mode=sapo {ACTOR}.tau_pos=0.5",
        f"{ACTOR}.use_kl_loss=true {ACTOR}.kl_loss_coef=0.1 actor_rollout_ref.ref.megatron.param_offload=true",
        f"{ACTOR}.use_dynamic_bsz=false {ACTOR}.ppo_micro_batch_size_per_gpu=4",
        f"{OPTIM}.lr_decay_style=cosine {OPTIM}.min_lr=1e-7",
        "algorithm.use_kl_in_reward=true algorithm.kl_ctrl.kl_coef=0.01",
        "algorithm.adv_estimator=rloo",
        "algorithm.rollout_correction=null",
        "algorithm.rollout_correction.rollout_is=token algorithm.rollout_correction.rollout_is_threshold=3",
        "relift.rollout.batched=false reward.num_workers=8 reward.reward_model.enable=true",
        f"relift.rollout.batched=false {ROLLOUT}.multi_turn.enable=true {ROLLOUT}.multi_turn.max_user_turns=3",
        f"relift.rollout.seeded=false {ROLLOUT}.seed=7",
        f"+{ENGINE}.override_transformer_config.moe_aux_loss_coeff=0.1",
        f"+{ROLLOUT}.engine_kwargs.vllm.max_loras=1",
        "+data.apply_chat_template_kwargs.enable_thinking=false",
        "+ray_kwargs.ray_init.dashboard_port=8000",
        "+reward.custom_reward_function.reward_kwargs.thinking=required",
        "+my.size=24 data.train_batch_size='${my.size}'",
        "trainer.balance_batch=true",
        "trainer.logger=console",
        "data.val_files=[a.parquet,b.parquet]",
        f"{OPTIM}.lr=0",
    ],
)
def test_what_works_passes(overrides):
    with overridden(*overrides.split()) as config:
        assert list(problems(config)) == []


@pytest.mark.parametrize("mode", ["sapo", "geo_mean"])
def test_losses_that_aggregate_in_one_way(mode):
    with overridden(f"{ACTOR}.policy_loss.loss_mode={mode}", f"{ACTOR}.loss_agg_mode=token-sum") as config:
        (line,) = problems(config)
    assert line.startswith(f"{ACTOR}.loss_agg_mode=token-sum acts only with")


def test_every_key_without_a_rule_is_named_when_it_changes():
    config = configuration()
    unread = [key for key, raw in _flat(config).items() if rule_of(key) is None and raw != "???"]
    for key in unread:
        OmegaConf.update(config, key, "changed", merge=False)
    lines = list(problems(config))
    assert [line.partition("=")[0] for line in lines] == unread and len(unread) > 300


def test_every_rule_is_for_a_key_that_exists():
    """In the composed configuration, or as a field of verl's class for the group, or read by verl with a default."""
    from verl.workers import config as verl

    classes = {f"{ROLLOUT}.agent": verl.AgentLoopConfig, MODEL: verl.HFModelConfig}
    fields = {f"{group}.{field.name}" for group, cls in classes.items() for field in dataclasses.fields(cls)}
    read_with_a_default = {
        "trainer.remove_previous_ckpt_in_save",
        "trainer.v1.sync.parameter_sync_step",
        "trainer.wandb_proxy",
        "data.cache_dir",
        "reward.custom_reward_function.reward_kwargs",
        "reward.reward_kwargs",
    }
    known = {key for method in METHODS for key in _flat(configuration(method=method))}
    known |= fields | read_with_a_default
    missing = [
        key
        for key, rule in RULES.items()
        if key not in known and not any(name.startswith(f"{key}.") for name in known) and not _is_open(key, rule)
    ]
    assert missing == []


def _is_open(key, rule) -> bool:
    """Whether a group has no keys by default."""
    return isinstance(rule, Unchecked) and OmegaConf.select(configuration(), key) in ({}, None)


def test_the_rules_have_verls_enumerations():
    from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY
    from verl.utils.tracking import Tracking

    from verl_relift.schema.actor import LOSS_MODES
    from verl_relift.schema.algorithm import ESTIMATORS
    from verl_relift.schema.run import TRACKERS

    assert set(POLICY_LOSS_REGISTRY) - set(LOSS_MODES) == {"bypass_mode"}
    unsupported = {"gae", "remax", "gdpo", "optimal_token_baseline", "tir_optimal_token_baseline"}
    assert {getattr(name, "value", name) for name in ADV_ESTIMATOR_REGISTRY} - set(ESTIMATORS) == unsupported
    assert set(Tracking.supported_backend) - {name for name, _ in TRACKERS} == {"rl_insight"}
