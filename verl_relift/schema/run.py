"""What the whole run is told: `trainer`, rewards, Ray, TransferQueue and profilers."""

from .rollout import AGENT_LOOP
from .rules import Choice, Condition, Dotted, Each, Flag, Only, Packaged, Text, Unchecked, Whole, under, when, when_set

# verl's trackers, and the package that each needs.
TRACKERS = (
    ("console", None),
    ("tensorboard", "tensorboard"),
    ("wandb", "wandb"),
    ("mlflow", "mlflow"),
    ("swanlab", "swanlab"),
    ("vemlp_wandb", "volcengine_ml_platform"),
    ("clearml", "clearml"),
    ("trackio", "trackio"),
    ("file", None),
)

_WANDB = Condition("trainer.logger=wandb", lambda value: "wandb" in (value("trainer.logger") or ()))

_V1 = {
    "trainer_mode": Only("sync", "training and generation take turns in the same workers"),
    "sync": {"parameter_sync_step": Only(1, "a step is one update of the weights in vLLM")},
    "sampler": {
        "sync_refill_failed_groups": Flag(),
        "custom_sampler": {"path": Text(null=True), "name": Text(null=True)},
    },
}

_TRAINER = {
    "total_epochs": Whole(1),
    "total_training_steps": Whole(1, null=True),
    "project_name": Text(),
    "experiment_name": Text(),
    "logger": Each(Packaged(TRACKERS), or_one=True),
    "wandb_proxy": Text(null=True, when=_WANDB),
    "log_val_generations": Whole(0),
    "rollout_data_dir": Text(null=True),
    "validation_data_dir": Text(null=True),
    "nnodes": Whole(1),
    "n_gpus_per_node": Whole(1),
    "save_freq": Whole(1, also=(-1,)),
    "test_freq": Whole(1, also=(-1,)),
    "resume_mode": Choice(("auto", "disable", "resume_path")),
    "resume_from_path": Text(null=True, when=when("trainer.resume_mode", "resume_path")),
    "checkpoint_callback_class": Dotted(),
    "val_before_train": Flag(),
    "val_only": Flag(when=when("trainer.val_before_train", True)),
    "critic_warmup": Only(0, "there is no critic to warm up"),
    "default_hdfs_dir": Only(None, "a run resumes from trainer.default_local_dir, which may be a shared file system"),
    "del_local_ckpt_after_load": Only(False, "a checkpoint stays until trainer.max_actor_ckpt_to_keep removes it"),
    "remove_previous_ckpt_in_save": Only(False, "set trainer.max_actor_ckpt_to_keep=1"),
    "default_local_dir": Text(),
    "max_actor_ckpt_to_keep": Whole(1, null=True),
    "device": Choice(("cpu", "cuda")),
    "use_v1": Only(True, "verl's former trainer has other hooks"),
    "v1": _V1,
}

_REWARD = {
    "num_workers": Whole(0, when=AGENT_LOOP),
    "custom_reward_function": {
        "path": Text(null=True),
        "name": Text(null=True, when=when_set("reward.custom_reward_function.path")),
        "reward_kwargs": Unchecked(when=when_set("reward.custom_reward_function.path")),
    },
    "reward_manager": Unchecked(),  # `rewards.problems` checks these
    "reward_kwargs": Unchecked(),
    "reward_model": {
        "enable": Flag(when=AGENT_LOOP),
        "enable_resource_pool": Flag(when=when("reward.reward_model.enable", True)),
        "n_gpus_per_node": Whole(1, when=when("reward.reward_model.enable_resource_pool", True)),
        "nnodes": Whole(0, when=when("reward.reward_model.enable_resource_pool", True)),
        "model_path": Text(null=True, when=when("reward.reward_model.enable", True)),
        "rollout": Unchecked(when=when("reward.reward_model.enable", True)),
    },
    "sandbox_fusion": {
        "url": Text(null=True),
        "max_concurrent": Whole(1, when=when_set("reward.sandbox_fusion.url")),
        "memory_limit_mb": Whole(1, when=when_set("reward.sandbox_fusion.url")),
    },
}

_QUEUE = {
    "enable": Flag(),  # the training command turns it on
    "metrics": {"enabled": Flag(), "port": Whole(0, when=when("transfer_queue.metrics.enabled", True))},
    "backend": {
        "storage_backend": Only("SimpleStorage", "a step's rollouts stay in the memory of Ray actors"),
        "SimpleStorage": {"total_storage_size": Whole(1), "num_data_storage_units": Whole(1)},
    },
}

KEYS = under(
    "",
    {
        "model_engine": Only("megatron", "the training engine is Megatron-Core"),
        "trainer": _TRAINER,
        "reward": _REWARD,
        "transfer_queue": _QUEUE,
        "ray_kwargs": {"ray_init": Unchecked()},  # `engines` asks Ray
        # verl's former places of the group reward: `rewards.problems` says where they are now
        **dict.fromkeys(("custom_reward_function", "reward_model", "sandbox_fusion"), Unchecked()),
        "critic": {"enable": Only(False, "a critic is not supported; algorithm.adv_estimator=grpo needs none")},
        "distillation": {
            "enabled": Flag(when=AGENT_LOOP),
            **{
                name: Unchecked(when=when("distillation.enabled", True))
                for name in ("distillation_loss", "n_gpus_per_node", "nnodes", "teacher_models", "teacher_key")
            },
        },
        "global_profiler": {
            "tool": Choice((None, "nsys", "torch", "torch_memory", "precision_debugger")),
            "steps": Each(Whole(1), null=True, when=when_set("global_profiler.tool")),
            **{
                name: Unchecked(when=when_set("global_profiler.tool"))
                for name in ("profile_continuous_steps", "save_path", "global_tool_config", "relocate_results")
            },
        },
        "actor_rollout_ref": {"hybrid_engine": Only(True, "training and generation share the devices")},
    },
)
