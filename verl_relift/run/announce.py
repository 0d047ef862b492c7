"""What a training command says when it begins and when it ends: where things are and what to do next."""

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from . import checkpoints
from .console import LOG
from .progress import clock, validated
from .resume import Resume

# What `reward.custom_reward_function.path` is by default: this program's grader, which evaluates by default, too.
GRADER = "pkg://verl_relift.rewards.verl_hook"
# What verl takes where that key is null.
VERLS_FUNCTION = "pkg://verl.utils.reward_score:default_compute_score"


def opening(config: DictConfig, start: Resume, rollouts: bool) -> list[str]:
    """Return what a run is, and how to watch and stop it.

    Args:
        config: resolved.
        start: what the run resumes from.
        rollouts: whether its method samples.
    """
    trainer, run = config.trainer, config.trainer.default_local_dir
    sampled = f" x {config.actor_rollout_ref.rollout.n} answers" if rollouts else ""
    batch = f"{config.data.train_batch_size} questions{sampled} a step"
    first = f"{config.method.name}: {config.actor_rollout_ref.model.path} on {devices(config)}, {batch}"
    steps = trainer.total_training_steps or "as many as trainer.total_epochs has"
    where = start.lines() or [f"a new run of {steps} steps in {run}{_unused(config)}"]
    resumes = "the same command resumes" if trainer.resume_mode == "auto" else "trainer.resume_mode=auto resumes"
    report = _command("verl_relift.report", run, "--watch")
    board = f"tensorboard --logdir {shlex.quote(f'{run}/tensorboard')}, or " if "tensorboard" in trainer.logger else ""
    return [
        first,
        *where,
        f"  saves {_every(trainer.save_freq)}, validates {_every(trainer.test_freq)}; all output is in {run}/{LOG}",
        f"  watch: {board}{report}",
        f"  stop: Ctrl-C, or kill -USR1 {os.getpid()} to save after the running step; {resumes}",
    ]


def devices(config: DictConfig) -> str:
    """Return how many devices of which kind a run takes, and how the model is divided among them."""
    trainer, megatron = config.trainer, config.actor_rollout_ref.actor.megatron
    count = trainer.nnodes * trainer.n_gpus_per_node
    kind = "GPU" if trainer.device == "cuda" else "CPU process"
    text = f"{count} {kind}{'es' * (kind[-1] == 's') or 's' if count > 1 else ''}"
    text += f" of {trainer.nnodes} nodes" if trainer.nnodes > 1 else ""
    sizes = {
        "tensor": megatron.tensor_model_parallel_size,
        "pipeline": megatron.pipeline_model_parallel_size,
        "context": megatron.context_parallel_size,
    }
    rest = count
    for size in sizes.values():
        rest //= size
    divided = [f"{name} parallel {size}" for name, size in {**sizes, "data": rest}.items() if size > 1]
    return f"{text} ({', '.join(divided)})" if divided else text


def _every(steps: int) -> str:
    return "never" if steps <= 0 else "every step" if steps == 1 else f"every {steps} steps"


def _unused(config: DictConfig) -> str:
    """Return a clause about a checkpoint that the run could resume from and doesn't."""
    trainer = config.trainer
    there = checkpoints.latest(Path(trainer.default_local_dir)) if trainer.resume_mode == "disable" else None
    step = checkpoints.step_of(there) if there is not None else 0
    return f"; step {step}, which is there, is not used (trainer.resume_mode=disable)" if step else ""


def closing(config: DictConfig, records: Mapping[str, Mapping[str, Any]], seconds: float) -> list[str]:
    """Return what a finished run has done, and the commands that come next.

    Args:
        config: resolved.
        records: of `Progress`.
        seconds: since the process of this command began.
    """
    run = config.trainer.default_local_dir
    last = records.get("last", {"step": 0})
    first = records.get("first", last)
    # A run that was resumed or restarted has spent time elsewhere, which this process does not know.
    made = f", steps {first['step']} to {last['step']}" if 1 < first["step"] < last["step"] else ""
    facts = [f"done: step {last['step']}{made} in {clock(seconds)}"]
    if last.get("critic/score/mean") is not None:
        facts.append(f"reward {first.get('critic/score/mean') or 0:.2f} to {last['critic/score/mean']:.2f}")
    if "validation" in records:
        validation = records["validation"]
        facts.append(f"validation accuracy {validated(validation)} at step {validation['step']}")
    checkpoint = checkpoints.latest(Path(run))
    lines = [", ".join(facts), f"  report    {_command('verl_relift.report', run)}"]
    if checkpoint is None:
        return [*lines, "  there is no checkpoint: trainer.save_freq=N saves every N steps, and the last one"]
    files = config.data.val_files
    data = [files] if isinstance(files, str) else list(files)
    most = str(config.data.max_response_length)
    weights = ["--model", f"{checkpoint}/actor/model/huggingface", "--data", *data]
    limits = ["--max-tokens", most, "--output", f"{run}/evaluation"]
    evaluate = _command("verl_relift.evaluate", *weights, *limits, *_template(config), *_reward(config))
    export = _command("verl_relift.export", "--checkpoint", str(checkpoint), "--output", f"{run}/hf")
    return [*lines, f"  evaluate  {evaluate}", f"  export    {export}"]


def _template(config: DictConfig) -> list[str]:
    """Return the arguments with which an evaluation renders its prompts as the run did."""
    return _assignments("--chat-template-kwargs", config.data.apply_chat_template_kwargs)


def _reward(config: DictConfig) -> list[str]:
    """Return the arguments with which an evaluation grades as the run did; none if it does so by itself."""
    function = config.reward.custom_reward_function
    kwargs = _assignments("--reward-kwargs", function.get("reward_kwargs"))
    if function.path == GRADER and not kwargs:
        return []
    named = f"{function.path}:{function.name}" if function.path is not None else VERLS_FUNCTION
    arguments = ["--reward-function", named, *kwargs]
    if config.relift.reward.correct_from is not None:
        arguments += ["--correct-from", str(config.relift.reward.correct_from)]
    return arguments


def _assignments(flag: str, group: DictConfig | None) -> list[str]:
    values = OmegaConf.to_container(group or OmegaConf.create({}), resolve=True)
    return [flag, *(f"{key}={json.dumps(value)}" for key, value in values.items())] if values else []


def ending(config: DictConfig, step: int) -> str:
    """Return what a run says as soon as Ctrl-C or SIGTERM ends it: its processes need some seconds.

    Args:
        config: resolved.
        step: the last one that is done.
    """
    return f"stopping now, nothing more is saved; {resumes_from(config, step)}"


def resumes_from(config: DictConfig, step: int = 0) -> str:
    """Return a clause: which checkpoint a run that has ended early resumes from, and which steps it makes again.

    Args:
        config: resolved.
        step: the last one that was done, if that is known.
    """
    checkpoint = checkpoints.latest(Path(config.trainer.default_local_dir))
    saved = 0 if checkpoint is None else checkpoints.step_of(checkpoint)
    steps = f"step {step}" if step == saved + 1 else f"steps {saved + 1} to {step}"
    lost = f", and makes {steps} again" if step > saved else ""
    if checkpoint is None:
        return f"there is no checkpoint yet, so the same command starts again{lost}"
    how = "" if config.trainer.resume_mode == "auto" else " with trainer.resume_mode=auto"
    return f"the same command{how} resumes from step {saved}{lost}"


def _command(module: str, *arguments: str) -> str:
    return shlex.join(["python", "-m", module, *arguments])
