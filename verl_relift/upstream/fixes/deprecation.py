"""verl's warning that mbridge will go."""

import warnings
from types import ModuleType

from ..registry import Where, patch


@patch(
    where=Where.EVERYWHERE,
    after=("verl.workers.config.engine",),
    sets=("warnings: a filter for the `FutureWarning` about `vanilla_mbridge`",),
    versions=("verl",),
    upstream="warns in every process that mbridge is deprecated in favor of Megatron-Bridge, of which no release can "
    "be installed beside the vLLM and the transformers that verl pins (docs/install.md)",
    canary="test_verl_still_warns_of_mbridge",
)
def silence_mbridge(_engine: ModuleType) -> None:
    warnings.filterwarnings("ignore", message="The legacy mbridge backend selected by", category=FutureWarning)
