"""A member of Megatron's `ModelType` that mbridge asks for and Megatron no longer has."""

from types import ModuleType

from ..registry import Where, patch, replace


class _ModelTypes:
    """Megatron's `ModelType` with the member that mbridge still compares with."""

    encoder_and_decoder = object()

    def __init__(self, known: type):
        self.encoder_or_decoder = known.encoder_or_decoder


@patch(
    where=Where.EVERYWHERE,
    replaces=("mbridge.core.util:ModelType",),
    versions=("mbridge",),
    upstream="compares with `ModelType.encoder_and_decoder`, which Megatron removed. No model of "
    "mbridge's is of that type, so the comparison only has to be possible",
    canary="test_mbridge_still_asks_for_the_removed_model_type",
    issue="ISEEKYAN/mbridge#155",
)
def know_removed_model_type(util: ModuleType) -> None:
    replace(util, "ModelType", _ModelTypes(util.ModelType))
