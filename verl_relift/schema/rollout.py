"""`actor_rollout_ref.rollout`: what vLLM samples, and how."""

from .rules import Choice, Each, Flag, Number, Only, Text, Unchecked, Whole, either, under, when

AGENT_LOOP = when("relift.rollout.batched", False)
_FIXED_SIZE = when("actor_rollout_ref.actor.use_dynamic_bsz", False)
_UNSEEDED = either(when("relift.rollout.seeded", False), AGENT_LOOP, when("data.seed", None))
_PROMETHEUS = when("actor_rollout_ref.rollout.prometheus.enable", True)
_TRACE = when("actor_rollout_ref.rollout.trace.backend", "mlflow", "weave")

_SAMPLING = {"top_k": Whole(1, also=(-1,)), "top_p": Number(above=0, high=1), "n": Whole(1)}

_AGENT_LOOP = {
    "multi_turn": {"enable": Flag(when=AGENT_LOOP)}
    | {
        name: Unchecked(when=AGENT_LOOP)
        for name in (
            "max_assistant_turns",
            "tool_config_path",
            "function_tool_path",
            "max_user_turns",
            "max_parallel_calls",
            "max_tool_response_length",
            "tool_response_truncate_side",
            "use_inference_chat_template",
            "tokenization_sanity_check_mode",
            "format",
            "num_repeat_rollouts",
        )
    },
    "agent": {
        "num_workers": Whole(1, when=AGENT_LOOP),
        "default_agent_loop": Text(when=AGENT_LOOP),
        "agent_loop_config_path": Text(null=True, when=AGENT_LOOP),
        "agent_loop_manager_class": Text(null=True, when=AGENT_LOOP),
    },
    "trace": {
        "backend": Choice((None, "mlflow", "weave"), when=AGENT_LOOP),
        "token2text": Flag(when=_TRACE),
        "max_samples_per_step_per_worker": Whole(0, null=True, when=_TRACE),
        "project_name": Text(null=True, when=_TRACE),
        "experiment_name": Text(null=True, when=_TRACE),
    },
}

KEYS = under(
    "actor_rollout_ref.rollout",
    {
        "name": Only("vllm", "rollouts are sampled by vLLM"),
        "mode": Only("async", "verl has no other mode"),
        "nnodes": Only(0, "vLLM shares the devices with training"),
        "temperature": Number(above=0),
        **_SAMPLING,
        "val_kwargs": {"temperature": Number(low=0), "do_sample": Flag(), **_SAMPLING},
        "do_sample": Only(True, "greedy rollouts of a question are all the same"),
        "seed": Whole(0, when=_UNSEEDED),
        "dtype": Choice(("auto", "bfloat16", "float16", "float32")),
        "gpu_memory_utilization": Number(above=0, high=1),
        "ignore_eos": Flag(),
        "enforce_eager": Flag(),
        "cudagraph_capture_sizes": Each(
            Whole(1), null=True, when=when("actor_rollout_ref.rollout.enforce_eager", False)
        ),
        "free_cache_engine": Flag(),
        "enable_sleep_mode": Flag(),
        "tensor_model_parallel_size": Whole(1),
        "data_parallel_size": Whole(1),
        "pipeline_model_parallel_size": Only(1, "verl does not run vLLM with pipeline parallelism"),
        "expert_parallel_size": Only(1, "models with experts cannot be trained"),
        "max_num_batched_tokens": Whole(1),
        "max_model_len": Whole(2),
        "max_num_seqs": Whole(1),
        "enable_chunked_prefill": Flag(),
        "enable_prefix_caching": Flag(),
        "logprobs_mode": Choice(("processed_logprobs", "raw_logprobs")),
        "scheduling_policy": Only("fcfs", "requests come without priorities"),
        "load_format": Choice(("dummy", "auto", "safetensors")),
        "log_prob_micro_batch_size": Only(None, "set log_prob_micro_batch_size_per_gpu"),
        "log_prob_micro_batch_size_per_gpu": Whole(1, null=True, when=_FIXED_SIZE),
        "log_prob_use_dynamic_bsz": Flag(),
        "log_prob_max_token_len_per_gpu": Whole(1),
        "disable_log_stats": Flag(),
        "calculate_log_probs": Flag(),
        "engine_kwargs": {"vllm": Unchecked()},  # `engines` asks vLLM
        "checkpoint_engine": {
            "backend": Only("naive", "weights go to vLLM through shared memory"),
            "update_weights_bucket_megabytes": Whole(1),
        },
        "quantization": Choice((None, "fp8")),
        "disaggregation": {"enabled": Only(False, "prefill and decoding share an engine")},
        "prometheus": {
            "enable": Flag(),
            "port": Whole(1, when=_PROMETHEUS),
            "file": Text(when=_PROMETHEUS),
            "served_model_name": Text(null=True, when=_PROMETHEUS),
        },
        **_AGENT_LOOP,
    },
)
