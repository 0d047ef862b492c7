"""Transformer Engine: present means that it loads. Installed and broken is the local spec, or the end if demanded."""

import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from verl_relift.upstream import transformer_engine

UNDEFINED = "libtransformer_engine.so: undefined symbol: cublasLtGroupedMatrixLayoutInit_internal"
KINDS = {
    "absent": None,
    "works": ("", ""),
    "its library doesn't load": (f"raise OSError('{UNDEFINED}')", ""),
    "its part for torch is missing": ("", "raise FileNotFoundError('no shared object file')"),
    "versions differ": ("assert False, 'package version mismatch'", ""),
}
REASONS = {
    "absent": "Transformer Engine is not installed",
    "works": None,
    "its library doesn't load": f"Transformer Engine is installed but doesn't load ({UNDEFINED})",
    "its part for torch is missing": "Transformer Engine is installed but doesn't load (no shared object file)",
    "versions differ": "Transformer Engine is installed but doesn't load (package version mismatch)",
}


def install(kind: str, folder: Path) -> Path:
    """Write a stand-in for Transformer Engine to `folder`, and return the folder."""
    if KINDS[kind] is not None:
        for package, code in zip(("transformer_engine", "transformer_engine/pytorch"), KINDS[kind], strict=True):
            (folder / package).mkdir(parents=True)
            (folder / package / "__init__.py").write_text(code + "\n")
    return folder


@pytest.fixture
def installed(tmp_path, monkeypatch, request):
    """Make this process see the stand-in, which nothing has imported."""
    transformer_engine.usable.cache_clear()
    monkeypatch.delenv(transformer_engine.VARIABLE, raising=False)
    monkeypatch.delitem(sys.modules, transformer_engine.NAME, raising=False)
    if request.param == "absent":
        monkeypatch.setitem(sys.modules, transformer_engine.NAME, None)
    monkeypatch.syspath_prepend(install(request.param, tmp_path))
    yield request.param
    transformer_engine.hide()
    transformer_engine.usable.cache_clear()


@pytest.mark.parametrize("installed", KINDS, indirect=True)
def test_present_means_that_it_loads(installed, capfd):
    assert transformer_engine.usable() == (installed == "works")
    said = capfd.readouterr().err
    if installed in ("works", "absent"):
        assert said == ""
    else:
        assert said.startswith(
            f"verl_relift: warning: {REASONS[installed]}. Megatron's local layer spec takes its place"
        )
        assert said.count("\n") == 1
        with pytest.raises(ModuleNotFoundError):
            import transformer_engine as engine  # noqa: F401


@pytest.mark.parametrize("installed", KINDS, indirect=True)
def test_what_is_demanded_and_missing_ends_with_the_reason(installed, monkeypatch):
    monkeypatch.setenv(transformer_engine.VARIABLE, "1")
    if installed == "works":
        assert transformer_engine.usable()
        return
    with pytest.raises(transformer_engine.TransformerEngineMissing) as raised:
        transformer_engine.usable()
    assert str(raised.value) == f"VERL_RELIFT_TRANSFORMER_ENGINE=1, but {REASONS[installed]}"


@pytest.mark.parametrize("installed", ["works"], indirect=True)
def test_it_can_be_turned_off(installed, monkeypatch, capsys):
    monkeypatch.setenv(transformer_engine.VARIABLE, "0")
    assert not transformer_engine.usable()
    assert capsys.readouterr().err == ""


def test_another_value_is_refused(monkeypatch):
    monkeypatch.setenv(transformer_engine.VARIABLE, "yes")
    with pytest.raises(ValueError, match="VERL_RELIFT_TRANSFORMER_ENGINE=yes: expected 1"):
        transformer_engine.demanded()


def test_what_of_a_configuration_demands_it(monkeypatch):
    megatron = {"context_parallel_size": 1, "override_transformer_config": {"fp8": None, "attention_backend": "auto"}}
    config = OmegaConf.create({"actor_rollout_ref": {"actor": {"megatron": megatron}, "ref": {"megatron": megatron}}})
    assert list(transformer_engine.who_demands(config)) == []
    actor = config.actor_rollout_ref.actor.megatron
    actor.context_parallel_size, actor.override_transformer_config.fp8 = 2, "hybrid"
    assert list(transformer_engine.who_demands(config)) == [
        "actor_rollout_ref.actor.megatron.context_parallel_size=2",
        "actor_rollout_ref.actor.megatron.override_transformer_config.fp8=hybrid",
    ]


_MEGATRON = """
    import verl
    import peft
    import mbridge.core.llm_bridge
    from megatron.core.extensions.transformer_engine import HAVE_TE
    from verl_relift.upstream.registry import ORIGINALS
    print("FOUND", HAVE_TE, "mbridge.core.llm_bridge:LLMBridge._get_transformer_layer_spec" in ORIGINALS)
"""


def test_megatron_and_peft_live_with_one_that_is_broken(tmp_path, python):
    path = str(install("its library doesn't load", tmp_path))
    ran = python(_MEGATRON, PYTHONPATH=path, VERL_PLATFORM="nvidia", VERL_RELIFT_TRANSFORMER_ENGINE="")
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "FOUND False True" in ran.stdout
    assert ran.stderr.count(REASONS["its library doesn't load"]) == 1


def test_a_demand_ends_before_megatron_is_imported(tmp_path, python):
    path = str(install("its library doesn't load", tmp_path))
    ran = python(_MEGATRON, PYTHONPATH=path, VERL_PLATFORM="nvidia", VERL_RELIFT_TRANSFORMER_ENGINE="1")
    assert ran.returncode == 1 and "FOUND" not in ran.stdout
    reason = REASONS["its library doesn't load"]
    assert ran.stderr.splitlines()[-1].endswith(f"VERL_RELIFT_TRANSFORMER_ENGINE=1, but {reason}")


def test_a_cpu_has_none(python):
    ran = python("import verl", VERL_PLATFORM="cpu", VERL_RELIFT_TRANSFORMER_ENGINE="1")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == (
        "verl_relift: the plugin failed to load: VERL_RELIFT_TRANSFORMER_ENGINE=1, but Transformer Engine's layers run "
        "on CUDA only, and this process is to use the CPU"
    )
