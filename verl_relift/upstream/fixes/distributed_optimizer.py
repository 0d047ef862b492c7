"""Checkpoints of Megatron's `DistributedOptimizer` with torch's own AdamW.

Four faults of upstream, all hidden where Transformer Engine's or Apex's optimizer is installed:

1. in fp32 the parameter is its own master copy, and loading copies in place into a leaf that requires grad;
2. AdamW keeps `step` per parameter; loading gives all parameters one shared tensor, or writes the value of the
   running process back over the loaded one, so bias correction is wrong after a resume;
3. loading in a fresh process asserts on AdamW's state, which is empty until the first step;
4. the fully reshardable format has no `step` per parameter, but loading it looks for one.
"""

import functools
from types import ModuleType

import torch

from ..registry import Where, patch, replace

_OPTIMIZER = "megatron.core.optimizer.distrib_optimizer:DistributedOptimizer"


@patch(
    where=Where.LOCAL_SPEC,
    replaces=tuple(
        f"{_OPTIMIZER}.{name}"
        for name in ("_set_main_param_and_optimizer_states", "load_state_dict", "sharded_state_dict")
    ),
    versions=("megatron-core",),
    upstream="with torch's AdamW, which Megatron falls back to without Transformer Engine and Apex, its checkpoints "
    "lose the count of steps, or cannot be loaded",
    needed=lambda module: not module.HAVE_APEX_OR_TE,
    canary="test_checkpoints_with_torchs_adamw_are_still_wrong",
)
def save_and_load_torch_adamw(module: ModuleType) -> None:
    optimizer = module.DistributedOptimizer
    set_states = optimizer._set_main_param_and_optimizer_states

    @functools.wraps(set_states)
    @torch.no_grad()
    def set_states_without_step(self, model_param, tensors):
        # `load_with_own_steps` gives the real one.
        set_states(self, model_param, {"step": torch.tensor(0.0), **tensors})

    load_state_dict = optimizer.load_state_dict

    @functools.wraps(load_state_dict)
    def load_with_own_steps(self, state_dict):
        result = load_state_dict(self, state_dict)
        step = state_dict["optimizer"]["param_groups"][0].get("step")
        if step is not None:
            for state in self.optimizer.state.values():
                if torch.is_tensor(state.get("step")):
                    state["step"] = torch.tensor(float(step))
        return result

    sharded_state_dict = optimizer.sharded_state_dict

    @functools.wraps(sharded_state_dict)
    def sharded_with_state(self, model_sharded_state_dict, is_loading=False, *args, **kwargs):
        # Empty before the first update, which a checkpoint may come before, and in a new process.
        for group in self.optimizer.param_groups:
            for param in group["params"]:
                state = self.optimizer.state[param]
                if not state:
                    state["step"] = torch.tensor(0.0)
                    state["exp_avg"] = torch.zeros_like(param.data)
                    state["exp_avg_sq"] = torch.zeros_like(param.data)
        return sharded_state_dict(self, model_sharded_state_dict, is_loading, *args, **kwargs)

    replace(optimizer, "_set_main_param_and_optimizer_states", set_states_without_step)
    replace(optimizer, "load_state_dict", load_with_own_steps)
    replace(optimizer, "sharded_state_dict", sharded_with_state)
