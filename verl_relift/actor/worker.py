"""The hybrid worker of verl with a supervised update beside its RL update.

Every vLLM server process unpickles a handle to this class, so nothing heavy is imported beyond what verl's own worker
imports.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.engine_workers import ActorRolloutRefWorker
from verl.workers.utils.padding import response_from_nested

from ..methods.weight import Term, TokenStatistics, Weight
from ..run import garbage, threads
from ..types import Role
from ..upstream.fixes.weight_socket import in_private_folder
from ..upstream.speed import malloc
from .gradients import Part, gradient_shares
from .hyperparameters import kept
from .losses import supervised_loss

# Shapes whose kernels oneDNN keeps, which computes bf16 on a CPU; by default 1,024. Nearly every micro-batch has its
# own length, so that only its layers share kernels, and the others' are memory that a rank grows by.
_KERNELS = "64"


def _engine_loss(
    model_output: dict,
    data: TensorDict,
    dp_group=None,
    *,
    entropy_coeff: float,
    weight: float = 1.0,
    token_weight: Weight | None = None,
):
    """`supervised_loss` in the form that verl's engine calls.

    `log_probs[i]` belongs to token i+1, so the mask is shifted by one; what wraps around to another sequence's first
    position is a prompt token and masked. The engine averages gradients over data-parallel ranks, hence the factor
    `dp_size`, as in verl's own losses. `weight` is that of the whole loss beside the RL loss (splice), `token_weight`
    the method's of a demonstration's token.
    """
    mask = data["loss_mask"].values().roll(shifts=-1, dims=0).bool()
    entropy = model_output.get("entropy")
    entropy, log_probs = None if entropy is None else entropy.values(), model_output["log_probs"].values()
    weights = 1.0
    if token_weight is not None:
        statistics = TokenStatistics(log_probs, log_probs.detach(), entropy, torch.ones_like(log_probs))
        weights = token_weight(statistics)
    result = supervised_loss(
        log_probs=log_probs,
        entropy=entropy,
        mask=mask,
        num_tokens=data["batch_num_tokens"],
        entropy_coeff=entropy_coeff,
        weights=weights,
    )
    dp_size = data["dp_size"]
    metrics = {
        "nll": Metric(AggregationType.SUM, result.negative_log_likelihood.detach() * dp_size),
        "entropy": Metric(AggregationType.SUM, result.entropy.detach() * dp_size),
    }
    return weight * result.loss * dp_size, metrics


def _relative_to_own(loss_fn, model_output: dict, data: TensorDict, dp_group=None):
    """`loss_fn` with old log-probs that are those of its own pass, where the trainer has left them out.

    The probability ratio is then 1 and its gradient that of the log-prob, as in the first update after a pass of
    their own. Also measures how far the rollouts' log-probs are from them.
    """
    if "old_log_probs" in data:
        return loss_fn(model_output=model_output, data=data, dp_group=dp_group)
    old = response_from_nested(model_output["log_probs"].detach(), data["response_mask"])
    data["old_log_probs"] = old
    loss, metrics = loss_fn(model_output=model_output, data=data, dp_group=dp_group)
    if "rollout_log_probs" in data:
        sampled = data["response_mask"].values().bool()  # not the forced head of an answer
        ours, theirs = old.values()[sampled], data["rollout_log_probs"].values()[sampled]
        for name, difference in (("log_probs", ours - theirs), ("probs", ours.exp() - theirs.exp())):
            metrics[f"rollout_{name}_diff_max"] = Metric(AggregationType.MAX, difference.abs().max())
    return loss, metrics


class DemonstrationWorker(ActorRolloutRefWorker):
    """`ActorRolloutRefWorker` with supervised updates, and with what an exact resume needs beyond verl's part."""

    def __init__(self, *args, **kwargs):
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _KERNELS)
        threads.apply()
        super().__init__(*args, **kwargs)
        self._moments = None  # of the separate optimizer, from its first use
        self._spliced: TensorDict | None = None  # demonstrations that the next RL update carries
        self._weights: Mapping[Role, Weight] = {}  # the method's, by role
        self._terms: Sequence[Term] = ()  # of the method's policy loss, beside verl's

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def init_model(self) -> None:
        """As verl's, with a socket for the weights that no other run and no other user on the host uses."""
        super().init_model()
        if self.actor is not None:
            self._policy_loss = self.actor.loss_fn
            self.actor.set_loss_fn(partial(_relative_to_own, self._policy_loss))
        if hasattr(self.rollout, "zmq_handle"):
            self.rollout.zmq_handle = in_private_folder(self.rollout.zmq_handle)
        garbage.freeze()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def set_method(self, method: dict[str, Any]) -> None:
        """Train on tokens as a method does.

        Args:
            method: the group `method` of the configuration.
        """
        from ..methods import read_method
        from .losses import all_terms

        cls, settings = read_method(method)
        self._weights = cls.token_weights(settings)
        self._terms = all_terms(self._weights, cls.terms(settings))

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def update_actor_sft(self, data: TensorDict) -> TensorDict | None:
        """Make one supervised update per epoch on a batch of demonstrations.

        The RL update's learning-rate schedule, loss and clipping are as before afterwards.

        Args:
            data: nested (jagged) `input_ids`, `position_ids`, `loss_mask`, each [demonstrations, tokens] int64
                (the mask is 1 on demonstration tokens), and, as non-tensor data, `temperature`,
                `sft_lr`, `sft_clip_grad`, `sft_entropy_coeff`, `sft_epochs` and `sft_separate` (whether the
                update has moments of its own).

        Returns:
            On the rank that collects: non-tensor `metrics` of the last epoch: loss, nll and entropy (nats per
            demonstration token), grad_norm (before clipping), lr. None on other ranks.
        """
        lr = tu.pop(data, "sft_lr")
        clip_grad = tu.pop(data, "sft_clip_grad")
        entropy_coeff = tu.pop(data, "sft_entropy_coeff")
        epochs = tu.pop(data, "sft_epochs")
        separate = tu.pop(data, "sft_separate")
        tu.assign_non_tensor(data, calculate_entropy=True)

        moments = self._own_moments().lent() if separate else nullcontext()
        loss = partial(_engine_loss, entropy_coeff=entropy_coeff, token_weight=self._weights.get(Role.DEMONSTRATION))
        with moments, self._supervised(lr, clip_grad, loss):
            for _ in range(epochs):
                output = self.actor.train_batch(data)
        if output is None:
            return None
        metrics = {name: _to_number(value) for name, value in tu.get(output, "metrics").items()}
        metrics["lr"] = lr
        return tu.get_tensordict(tensor_dict={}, non_tensor_dict={"metrics": metrics}).cpu()

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def splice_sft(self, data: TensorDict) -> TensorDict:
        """Let the next RL update carry these demonstrations in its last mini-batch.

        Args:
            data: as `update_actor_sft` takes it, with `sft_entropy_coeff` and `sft_weight`.
        """
        self._spliced = data
        return tu.get_tensordict(tensor_dict={}, non_tensor_dict={"metrics": {}})

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def update_actor(self, data: TensorDict) -> TensorDict | None:
        """Make verl's RL update, with the method's weights and with the demonstrations that are to join it.

        Args:
            data: as verl's worker takes it, and with jagged `roles` and non-tensor `coefficients` (by the name of
                the role) where the method guides or weighs tokens. With a non-tensor `mini_batches` the batch is
                divided into that many, whatever the number of its rows. With a non-tensor `gradient_shares` it is
                measured how much of the gradient each role gives.

        Returns:
            As verl's worker; where demonstrations joined, with their metrics as `sft_<name>`.
        """
        coefficients = tu.pop(data, "coefficients", default=None)
        mini_batches = tu.pop(data, "mini_batches", default=None)
        if mini_batches is not None:
            tu.pop(data, "mini_batch_size")  # which verl takes first
            tu.assign_non_tensor(data, num_mini_batch=mini_batches)
        measured = tu.pop(data, "gradient_shares", default=False)
        with self._weighing(coefficients):
            parts = self._parts(coefficients) if measured else {}
            if self._spliced is not None:
                return self._update_spliced(data, parts)
            with gradient_shares(self.actor.engine, parts):
                return super().update_actor(data)

    @contextmanager
    def _weighing(self, coefficients: dict[str, float] | None):
        """Put the method's weights and coefficients into the policy loss; verl's own loss where there are none."""
        if coefficients is None:
            yield
            return
        from .roles import role_tokens_counted

        before = self.actor.loss_fn
        self.actor.set_loss_fn(self._loss({Role[name]: value for name, value in coefficients.items()}))
        try:
            with role_tokens_counted(self.actor.engine):
                yield
        finally:
            self.actor.set_loss_fn(before)

    def _loss(self, coefficients: Mapping[Role, float]):
        """Return the method's policy loss with these coefficients, in the form that verl's engine calls."""
        from .roles import role_loss

        loss = partial(
            role_loss,
            self._policy_loss,
            self._weights,
            self._terms,
            coefficients,
            config=self._policy_loss.keywords["config"],
            vocabulary=self.actor.model_config.hf_config.vocab_size,
        )
        return partial(_relative_to_own, loss)

    def _parts(self, coefficients: dict[str, float] | None) -> dict[str, Part]:
        """Return the loss of each role alone, by its name."""
        if coefficients is None:
            return {"own": (self.actor.loss_fn, None)}
        roles = sorted({Role.OWN, *(term.role for term in self._terms)})
        given = {role: coefficients.get(role.name, 1.0) for role in Role}
        alone = {role: {other: value * (other is role) for other, value in given.items()} for role in roles}
        return {role.name.lower(): (self._loss(alone[role]), None) for role in roles}

    def _update_spliced(self, data: TensorDict, parts: dict[str, Part]) -> TensorDict | None:
        from .splice import spliced

        demonstrations, self._spliced = self._spliced, None
        weight = tu.pop(demonstrations, "sft_weight")
        loss = partial(
            _engine_loss,
            entropy_coeff=tu.pop(demonstrations, "sft_entropy_coeff"),
            weight=weight,
            token_weight=self._weights.get(Role.DEMONSTRATION),
        )
        tu.assign_non_tensor(demonstrations, calculate_entropy=True, use_remove_padding=True)
        if parts:
            parts["demonstration"] = (loss, demonstrations)
        with spliced(self.actor.engine, demonstrations, loss) as sft_output, gradient_shares(self.actor.engine, parts):
            output = super().update_actor(data)
        if not self.actor.engine.is_mp_src_rank_with_outputs():
            return output
        sft_output.pop("model_output")
        of_demonstrations = self.actor._postprocess_output(
            sft_output, global_token_num=None, delta_time=1.0, forward_only=False, images_seqlens=None
        )
        metrics, of_demonstrations = tu.get(output, "metrics"), tu.get(of_demonstrations, "metrics")
        metrics["sft_loss"] = _to_number(of_demonstrations["loss"]) / weight
        metrics["sft_nll"], metrics["sft_entropy"] = (
            _to_number(of_demonstrations[name]) for name in ("nll", "entropy")
        )
        return output

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_checkpoint(self, *args, **kwargs) -> None:
        """As verl's, in the memory that updates have freed: a checkpoint's copies do not fit into their gaps."""
        malloc.give_back()
        super().save_checkpoint(*args, **kwargs)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_extra(self, folder: str) -> None:
        """Save what verl's checkpoint leaves out: every rank's generators, and the separate optimizer's moments.

        Args:
            folder: made if need be; gets `random/rank_R.pt` and, after the first update, `sft_optimizer/`.
        """
        from .random_state import random_state

        path = Path(folder) / "random" / f"rank_{self.rank}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"layout": self._layout(), "state": random_state()}, path)
        if self._moments is not None and self._moments.used:
            with self._moments.lent(), self._optimizer_only():
                self.actor.engine.save_checkpoint(str(Path(folder) / "sft_optimizer"))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def load_extra(self, folder: str, separate: bool) -> None:
        """Undo `save_extra`. Generators are left alone if the parallel layout is another one now."""
        from .random_state import set_random_state

        moments, engine = Path(folder) / "sft_optimizer", self.actor.engine
        if separate and moments.exists():
            own = kept(engine.optimizer, engine.lr_scheduler)
            with self._own_moments().lent(), self._optimizer_only(), own:
                self.actor.engine.load_checkpoint(str(moments), del_local_after_load=False)
        path = Path(folder) / "random" / f"rank_{self.rank}.pt"
        saved = torch.load(path, weights_only=True) if path.exists() else None
        if saved is not None and saved["layout"] == self._layout():
            set_random_state(saved["state"])

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def load_checkpoint(self, *args, **kwargs) -> None:
        """As verl's, with the learning rates and other settings of this run instead of the checkpoint's."""
        with kept(self.actor.engine.optimizer, self.actor.engine.lr_scheduler):
            super().load_checkpoint(*args, **kwargs)

    def _layout(self) -> list[int]:
        from megatron.core import parallel_state

        return [
            parallel_state.get_tensor_model_parallel_world_size(),
            parallel_state.get_pipeline_model_parallel_world_size(),
            parallel_state.get_context_parallel_world_size(),
            parallel_state.get_data_parallel_world_size(),
        ]

    def _own_moments(self):
        if self._moments is None:
            from .moments import Moments

            engine = self.actor.engine
            self._moments = Moments(engine.optimizer, offload=engine.is_optimizer_offload_enabled)
        return self._moments

    @contextmanager
    def _optimizer_only(self):
        """verl's checkpoint manager saves and loads the optimizer and nothing else.

        Not the learning-rate schedule either: Megatron's adds what it loads to where it is.
        """
        manager = self.actor.engine.checkpoint_mananager
        names = ("checkpoint_save_contents", "checkpoint_load_contents", "use_checkpoint_opt_param_scheduler")
        before = [getattr(manager, name) for name in names]
        for name, value in zip(names, (["optimizer"], ["optimizer"], False), strict=True):
            setattr(manager, name, value)
        try:
            yield
        finally:
            for name, value in zip(names, before, strict=True):
                setattr(manager, name, value)

    @contextmanager
    def _supervised(self, lr: float, clip_grad: float, loss_fn):
        """Lend the optimizer to the supervised update: its loss, learning rate and clipping, then RL's again."""
        optimizer = self.actor.engine.optimizer
        # Clipping is read from the config that all of a chained optimizer's parts share.
        configs = {id(o.config): o.config for o in getattr(optimizer, "chained_optimizers", [optimizer])}.values()
        rl_loss = self.actor.loss_fn
        rl_lrs = [group["lr"] for group in optimizer.param_groups]
        rl_clips = [config.clip_grad for config in configs]
        self.actor.set_loss_fn(loss_fn)
        try:
            for group in optimizer.param_groups:
                group["lr"] = lr
            for config in configs:
                config.clip_grad = clip_grad
            yield
        finally:
            self.actor.set_loss_fn(rl_loss)
            for group, rl_lr in zip(optimizer.param_groups, rl_lrs, strict=True):
                group["lr"] = rl_lr
            for config, rl_clip in zip(configs, rl_clips, strict=True):
                config.clip_grad = rl_clip


def _to_number(value: Any) -> Any:
    """A scalar from what the engine gathered: a Metric, a list of one per data-parallel rank, or a number."""
    if isinstance(value, list):
        value = Metric.aggregate_dp(value) if isinstance(value[0], Metric) else value[0]
    if isinstance(value, Metric):
        value = value.aggregate()
    return float(value)
