"""Functions that run right after, or right before, a module is imported."""

import importlib
import sys

from verl_relift.upstream import post_import


def test_hooks_run_after_import_and_only_then_in_the_order_of_registration(tmp_path, monkeypatch):
    package = tmp_path / "hooked_package"
    package.mkdir()
    (package / "__init__.py").write_text("value = 1\n")
    (package / "part.py").write_text("value = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    post_import.after_import("hooked_package.part", lambda module: seen.append(("first", module.value)))
    post_import.after_import("hooked_package.*", lambda module: seen.append(("package", module.__name__)))
    post_import.after_import("hooked_package.part", lambda module: seen.append(("last", module.value)))
    assert seen == []
    importlib.import_module("hooked_package.part")
    assert seen == [("package", "hooked_package"), ("first", 2), ("package", "hooked_package.part"), ("last", 2)]


def test_modules_that_are_there_are_not_waited_for():
    seen = []
    post_import.after_import("verl_relift.upstream.post_import", seen.append)
    post_import.after_import("verl_relift.upstream.*", lambda module: seen.append(module.__name__))
    assert seen[0] is post_import and "verl_relift.upstream" in seen[1:]


def test_names_of_modules_and_of_packages():
    assert post_import.matches("a.b", "a.b") and not post_import.matches("a.b", "a.b.c")
    assert post_import.matches("a.b.*", "a.b") and post_import.matches("a.b.*", "a.b.c.d")
    assert not post_import.matches("a.b.*", "a.bc")


def test_a_function_runs_before_an_import_once(tmp_path, monkeypatch):
    (tmp_path / "awaited_module.py").write_text("import sys\nfirst = sys.awaited\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "awaited", 0, raising=False)
    post_import.before_import("awaited_module", lambda: setattr(sys, "awaited", sys.awaited + 1))
    assert importlib.import_module("awaited_module").first == 1
    del sys.modules["awaited_module"]
    importlib.import_module("awaited_module")
    assert sys.awaited == 1
    post_import.before_import("importlib", lambda: setattr(sys, "awaited", 5))
    assert sys.awaited == 5
