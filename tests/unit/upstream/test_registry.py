"""Every replacement goes through the registry, which says what it is and turns it off where it may be."""

import ast
import importlib
import operator
import sys
import types
from pathlib import Path

import pytest
import torch
import verl  # noqa: F401  loads the plugin

from verl_relift.upstream import registry, table, versions
from verl_relift.upstream.registry import Kind, Where, add, patch, replace, replaced_during

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "verl_relift/upstream"


# ---- the declarations ------------------------------------------------------------------------------------------------


def test_the_readme_has_the_table():
    text = table.README.read_text()
    found = text.split(table.BEGIN)[1].split(table.END)[0]
    assert found == table.markdown(), "run `python -m verl_relift.upstream.table --write`"


def test_every_canary_is_a_test():
    tests = {
        node.name
        for file in (ROOT / "tests").rglob("test_*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    assert [declared.name for declared in table.load() if declared.canary not in tests] == []
    assert "test_verl_still_names_its_socket_after_the_job_alone" in tests  # README.md, not in the table


def test_every_patch_knows_its_versions():
    for declared in table.load():
        assert set(declared.versions) <= versions.SUPPORTED.keys()
        ours = ("torch", "importlib", "os", "sympy", "model_hosting_container_standards")
        if any(not target.startswith(ours) for target in declared.after):
            assert declared.versions, f"{declared.name} names no distribution"


def attributes(patches: list[registry.Patch]) -> set[str]:
    return {target for declared in patches for target in declared.replaces}


def of_where(*where: Where) -> list[registry.Patch]:
    return [declared for declared in table.load() if declared.where in where]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a process beside a GPU installs fewer patches")
def test_a_process_replaces_what_is_declared_and_nothing_else(vllm_process, bare_process):
    patches = of_where(Where.EVERYWHERE, Where.LOCAL_SPEC, Where.CPU)
    for module in {module for declared in patches for module in declared.after if not module.endswith(".*")}:
        importlib.import_module(module)
    declared = {target for target in attributes(patches) if ".*:" not in target}
    torch_views = {target for target in registry.ORIGINALS if target.endswith(":torch")}
    sockets = {target for target in registry.ORIGINALS if target.endswith(":create_zmq_socket")}
    vllm = attributes(of_where(Where.VLLM_CPU))  # other tests of this process may have loaded vLLM's plugins
    assert registry.ORIGINALS.keys() - torch_views - sockets - vllm == declared - torch_views
    assert sockets and all(target.startswith("transfer_queue.") for target in sockets)
    assert any(target.startswith("mbridge.") for target in torch_views) and len(torch_views) > 100
    for target in (target for one in patches for target in one.adds):
        module, _, name = target.partition(":")
        assert operator.attrgetter(name)(importlib.import_module(module)) is not None
    assert set(vllm_process["replaced"]) == vllm
    assert set(bare_process["replaced in a judge"]) == attributes(of_where(Where.JUDGE))


def test_nothing_of_speed_is_replaced_where_speed_patches_are_off(unpatched_process):
    replaced = set(unpatched_process["replaced"])
    speed = attributes([declared for declared in table.load() if declared.kind is Kind.SPEED])
    others = attributes([d for d in table.load() if d.kind is not Kind.SPEED and d.where is not Where.JUDGE])
    # TransferQueue's storage process has a fix, and a faster one beside it.
    shared = {"transfer_queue.storage.bootstrap.simple_storage_bootstrap:SimpleStorageUnit"}
    assert len(speed) > 20 and replaced & speed == speed & others == shared
    assert {target for target in others if ".*:" not in target} <= replaced


# Assignments to objects that are not code of upstream.
ALLOWED = {
    "spec.loader",  # of the import that is under way
    "module._results_queue",  # Megatron's own variable, as the function does that is replaced
    "self.weight.sequence_parallel",  # a mark on a parameter, which Megatron reads
    "starts._relift_turns",
    "rotary.inv_freq",  # of one model
    "rotary.seq_len_interpolation_factor",
    "self.config.softmax_scale",
    "params._relift_groups",
    "self._interp.in_context",
    "parallel.distributed_executor_backend",  # of one engine's configuration
    "matmul.fp32_precision",  # torch's setting, for one product
}
SPECS = FOLDER / "local_spec/layers.py"  # puts modules into a spec, which is data, made to be changed


@pytest.mark.parametrize(
    "file",
    [file for file in FOLDER.rglob("*.py") if file.name != "registry.py" and file != SPECS],
    ids=lambda file: str(file.relative_to(FOLDER)),
)
def test_no_module_replaces_attributes_by_itself(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("setattr", "delattr"), f"{file}:{node.lineno}"
        if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store | ast.Del):
            continue
        own = isinstance(node.value, ast.Name) and node.value.id in ("self", "ctx")
        assert own or ast.unparse(node) in ALLOWED, f"{file}:{node.lineno}: {ast.unparse(node)}"


# ---- the registry ----------------------------------------------------------------------------------------------------


@pytest.fixture
def upstream(monkeypatch):
    """A module to patch, and a registry in which nothing is declared."""
    module = types.ModuleType("some_upstream")
    module.value = 1
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(registry, "PATCHES", [])
    monkeypatch.setattr(registry, "ORIGINALS", {})
    monkeypatch.setattr(registry, "_INSTALLED", set())
    monkeypatch.setattr(registry, "_warned", set())
    monkeypatch.setitem(versions.SUPPORTED, "mbridge", "0.1")
    monkeypatch.delenv(registry.SPEED_VARIABLE, raising=False)
    return module


def declare(folder: str, function, **declaration):
    function.__module__ = f"verl_relift.upstream.{folder}.some_file"
    declaration = {"replaces": ("some_upstream:value",), **declaration}
    return patch(where=Where.EVERYWHERE, upstream="-", canary="-", **declaration)(function)


def replace_value(module):
    replace(module, "value", 2)


def test_a_patch_replaces_what_it_declares_once(upstream):
    declared = declare("fixes", replace_value)
    assert (declared.kind, declared.name) == (Kind.FIX, "fixes/some_file.py:replace_value")
    registry.install(Where.CPU)
    assert upstream.value == 1
    registry.install(Where.EVERYWHERE)
    assert upstream.value == 2 and registry.ORIGINALS == {"some_upstream:value": 1}
    upstream.value = 3
    declared()
    assert upstream.value == 3


def test_what_is_not_declared_or_not_there_is_refused(upstream):
    with pytest.raises(ValueError, match="some_upstream:other, which its declaration does not name"):
        declare("fixes", lambda module: replace(module, "other", 2))()
    upstream_has_not = declare("fixes", lambda module: replace(module, "gone", 2), replaces=("some_upstream:gone",))
    with pytest.raises(AttributeError, match="gone"):
        upstream_has_not()
    with pytest.raises(ValueError, match="no patch declares"), replaced_during(torch.Tensor, "cpu", None):
        pass


def test_what_is_there_is_not_added(upstream):
    both = ("some_upstream:value", "some_upstream:new")
    declare("cpu", lambda module: [add(module, name, 5) for name in ("value", "new")], replaces=(), adds=both)()
    assert (upstream.value, upstream.new) == (1, 5)


def test_a_patch_that_is_not_needed_asks_for_no_version(upstream):
    declare("fixes", replace_value, versions=("mbridge",), needed=lambda module: False)()
    assert upstream.value == 1


@pytest.mark.parametrize("folder", ["cpu", "local_spec", "fixes"])
def test_correctness_patches_stop_on_a_version_they_do_not_know(upstream, monkeypatch, folder):
    monkeypatch.setenv(registry.SPEED_VARIABLE, "0")
    with pytest.raises(versions.UnsupportedVersion, match=r"mbridge 0\.15\.1 is installed.* written for 0\.1;"):
        declare(folder, replace_value, versions=("mbridge",))()


def test_speed_patches_turn_off_on_a_version_they_do_not_know_with_one_warning(upstream, capfd):
    for _ in range(2):
        declare("speed", replace_value, versions=("mbridge",))()
    assert upstream.value == 1
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("verl_relift: warning: mbridge 0.15.1 is installed") and "speed patches" in line


@pytest.mark.parametrize(("value", "expected"), [("0", 1), ("1", 2)])
def test_the_environment_turns_speed_patches_off(upstream, monkeypatch, capfd, value, expected):
    monkeypatch.setenv(registry.SPEED_VARIABLE, value)
    declare("speed", replace_value)()
    assert upstream.value == expected and capfd.readouterr().err == ""


def test_any_other_value_is_refused(upstream, monkeypatch):
    monkeypatch.setenv(registry.SPEED_VARIABLE, "off")
    with pytest.raises(ValueError, match=r"VERL_RELIFT_SPEED_PATCHES=off: expected 0 .* or 1"):
        declare("speed", replace_value)()
