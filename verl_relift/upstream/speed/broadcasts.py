"""mbridge's export of weights without collectives that have one member."""

import functools
from collections.abc import Callable
from types import ModuleType

from ..registry import Where, patch, replace

_BROADCASTS = ("broadcast_from_megatron_pp", "broadcast_str_from_megatron_pp")


@patch(
    where=Where.EVERYWHERE,
    replaces=tuple(f"mbridge.core.bridge:{name}" for name in _BROADCASTS),
    versions=("mbridge",),
    upstream="gathers a description of every weight that it exports, broadcasts its name and then the weight itself "
    "over the pipeline stages, also where there is only one",
    canary="test_mbridge_still_broadcasts_within_one_stage",
    issue="ISEEKYAN/mbridge#121",
)
def keep_to_one_stage(bridge: ModuleType) -> None:
    for name in _BROADCASTS:
        replace(bridge, name, _where_there_are_several_stages(getattr(bridge, name)))


def _where_there_are_several_stages(broadcast: Callable) -> Callable:
    @functools.wraps(broadcast)
    def broadcast_over_stages(value):
        from megatron.core import parallel_state

        return value if parallel_state.get_pipeline_model_parallel_world_size() == 1 else broadcast(value)

    return broadcast_over_stages
