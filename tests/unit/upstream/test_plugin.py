"""verl's plugin: it stops what cannot run, and costs nothing where it is not needed."""

import pytest
import verl  # noqa: F401  loads the plugin


def test_a_plugin_that_fails_to_load_stops_the_process_with_its_reason(python):
    result = python(
        """
        import verl_relift.upstream.versions as versions
        versions.SUPPORTED["verl"] = "0.1.0"
        import verl
        print("went on")
        """
    )
    assert result.returncode != 0
    assert "went on" not in result.stdout
    assert "the patches in verl_relift/upstream are written for 0.1.0" in result.stderr


def test_importing_verl_does_not_import_megatron_or_vllm(megatron_process):
    """Ten processes import verl; what they don't use must not cost them seconds."""
    assert megatron_process["imported by verl"] == []


def test_a_platform_that_verl_does_not_know_is_refused():
    from verl_relift.upstream.plugin import _refuse_unknown

    for platform in ("", "cpu", "nvidia"):
        _refuse_unknown(platform)
    with pytest.raises(ValueError, match="VERL_PLATFORM=cuda: verl knows amd, cpu, huawei, nvidia"):
        _refuse_unknown("cuda")


def test_vllms_cuda_build_without_a_gpu_loads(tmp_path, python):
    """Preparing data, plan, report and export work on a login node, where this is how the GPU stack looks."""
    information = tmp_path / "vllm-0.24.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.24.0\n")
    result = python(
        """
        import importlib.metadata
        import verl
        print("LOADED", importlib.metadata.version("vllm"))
        """,
        PYTHONPATH=str(tmp_path),
        VERL_PLATFORM="",
    )
    assert result.returncode == 0, result.stderr
    assert "LOADED 0.24.0\n" in result.stdout
