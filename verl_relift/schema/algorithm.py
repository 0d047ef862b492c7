"""`algorithm`: advantages, KL terms, group filter, corrections of the rollouts' log-probs."""

from .actor import KL_ESTIMATORS
from .rules import Choice, Flag, Number, Only, Text, Unchecked, Whole, under, when, when_set

# verl's estimators that need neither a critic, nor a greedy rollout beside the group, nor rewards by dimension.
ESTIMATORS = (
    "grpo",  # as adv_estimator
    "grpo_vectorized",
    "grpo_passk",
    "rloo",
    "rloo_vectorized",
    "opo",
    "gpg",
    "reinforce_plus_plus",
    "reinforce_plus_plus_baseline",
)

_KL_IN_REWARD = when("algorithm.use_kl_in_reward", True)
_ADAPTIVE = when("algorithm.kl_ctrl.type", "adaptive")
_FILTER = when("algorithm.filter_groups.enable", True)
_CORRECTION = "algorithm.rollout_correction"
_RECOMPUTED = when(f"{_CORRECTION}.bypass_mode", False)
_WEIGHTS = when(f"{_CORRECTION}.rollout_is", "token", "sequence")

NULLABLE = (_CORRECTION,)  # groups that null turns off

KEYS = under(
    "algorithm",
    {
        "adv_estimator": Choice(ESTIMATORS),
        "norm_adv_by_std_in_grpo": Flag(when=when("algorithm.adv_estimator", "grpo", "grpo_passk")),
        "gamma": Number(low=0, high=1, when=when("algorithm.adv_estimator", "reinforce_plus_plus")),
        "use_kl_in_reward": Flag(),
        "kl_penalty": Choice(KL_ESTIMATORS, when=_KL_IN_REWARD),
        "kl_ctrl": {
            "type": Choice(("fixed", "adaptive"), when=_KL_IN_REWARD),
            "kl_coef": Number(low=0, when=_KL_IN_REWARD),
            "horizon": Whole(1, when=_ADAPTIVE),
            "target_kl": Number(above=0, when=_ADAPTIVE),
        },
        "filter_groups": {
            "enable": Flag(),
            "metric": Text(null=True, when=_FILTER),
            "max_num_gen_batches": Only(0, "the sampler draws until a step is full"),
            "max_inflight_gen_batches": Whole(1, when=_FILTER),
        },
        "rollout_correction": {
            "rollout_is": Choice((None, "token", "sequence"), when=_RECOMPUTED),
            "rollout_is_threshold": Unchecked(when=_WEIGHTS),
            "rollout_is_batch_normalize": Flag(when=_WEIGHTS),
            "rollout_rs": Text(null=True, when=_RECOMPUTED),
            "rollout_rs_threshold": Unchecked(when=when_set(f"{_CORRECTION}.rollout_rs")),
            "bypass_mode": Flag(),
        },
        "use_pf_ppo": Only(False, "it reweighs what a critic has valued"),
    },
)
