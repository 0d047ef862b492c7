"""verl's platform without an accelerator, and what torch's device module lacks for it."""

import pytest
import torch
import verl  # noqa: F401  loads the plugin
from verl.plugin.platform import get_platform

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU platform is not used beside a GPU")


def test_verl_finds_the_cpu_platform():
    platform = get_platform()
    assert (platform.device_name, platform.communication_backend_name()) == ("cpu", "gloo")
    assert platform.ray_resource_name() == "GPU"
    assert torch.zeros(2).to(platform.current_device()).device.type == "cpu"


def test_torch_still_lacks_the_functions_of_a_device_module(bare_process):
    """The day this fails, `fill_device_module_gaps` can lose the functions that torch has."""
    from verl_relift.upstream.cpu.platform import _DEVICE_MODULE_GAPS, fill_device_module_gaps

    assert fill_device_module_gaps.adds == tuple(f"torch.cpu:{name}" for name in _DEVICE_MODULE_GAPS)
    assert all(hasattr(torch.cpu, name) for name in _DEVICE_MODULE_GAPS)
    assert set(bare_process["torch.cpu"]).isdisjoint(_DEVICE_MODULE_GAPS)
