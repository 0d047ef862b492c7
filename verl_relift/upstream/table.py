"""README.md's table of patches, made from their declarations: `python -m verl_relift.upstream.table --write`."""

import argparse
import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from . import __name__ as package
from . import __path__ as folders
from .registry import PATCHES, Kind, Patch, Where

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"

_WHERE = {
    Where.EVERYWHERE: "CPU, local spec, CUDA with Transformer Engine",
    Where.LOCAL_SPEC: "CPU, local spec",
    Where.CPU: "CPU",
    Where.VLLM_CPU: "CPU: vLLM",
    Where.JUDGE: "judge processes, on any device",
}
_HEADER = ("patch", "replaces", "what upstream does, and why it is changed", "versions", "active on", "issue", "canary")


def load() -> list[Patch]:
    """Import every module of this package, and return what they declare, sorted by folder and file."""
    for kind in Kind:
        for module in pkgutil.iter_modules([f"{folders[0]}/{kind}"]):
            if module.name not in ("packing_unit", "queue_processes"):  # declare nothing, and import TransferQueue
                importlib.import_module(f"{package}.{kind}.{module.name}")
    order = list(Kind)
    return sorted(PATCHES, key=lambda patch: (order.index(patch.kind), patch.name.partition(":")[0]))


def markdown() -> str:
    """Return the counts and the table."""
    from .versions import SUPPORTED

    patches = load()
    lines = [*_counts(patches), "", _row(_HEADER), _row(["---"] * len(_HEADER))]
    for patch in patches:
        changed = _by_module("", patch.replaces) + _by_module("adds to ", patch.adds)
        changed += _by_module("during calls: ", patch.during) + [f"sets {one}" for one in patch.sets]
        versions = [f"{name} {SUPPORTED[name]}" for name in patch.versions]
        cells = (_code(patch.name), "<br>".join(changed), patch.upstream, ", ".join(versions) or "-")
        lines.append(_row((*cells, _WHERE[patch.where], _link(patch.issue), _code(patch.canary))))
    return "\n".join(lines) + "\n"


def _counts(patches: list[Patch]) -> list[str]:
    def attributes(of: Iterable[Patch], field: str) -> set[str]:
        return {one for patch in of for one in getattr(patch, field)}

    def count(of: list[Patch]) -> list[str]:
        kinds = Counter(patch.kind for patch in of for _ in patch.replaces)
        numbers = [len(attributes(of, field)) for field in ("replaces", "adds", "during")]
        return [*map(str, numbers), *(str(kinds[kind]) for kind in Kind)]

    with_engine = [patch for patch in patches if patch.where is Where.EVERYWHERE]
    judges = [patch for patch in patches if patch.where is Where.JUDGE]
    local = [patch for patch in patches if patch.where in (Where.EVERYWHERE, Where.LOCAL_SPEC)]
    return [
        _row(("attributes of upstream", "replaced", "added", "during calls", *(f"of them {kind}/" for kind in Kind))),
        _row(["---"] * 8),
        _row(("in total", *count(patches))),
        _row(("on CUDA with Transformer Engine", *count(with_engine))),
        _row(("on CUDA without it (local spec)", *count(local))),
        _row(("in judge processes, on any device", *count(judges))),
    ]


def _by_module(verb: str, targets: tuple[str, ...]) -> list[str]:
    """Return a line for each module: `a.b:c` and `a.b:d` as "`a.b`: `c`, `d`"."""
    attributes: dict[str, list[str]] = {}
    for target in targets:
        module, _, attribute = target.partition(":")
        attributes.setdefault(module, []).append(_code(attribute))
    return [f"{verb}{_code(module)}: {', '.join(names)}" for module, names in attributes.items()]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    return f"`{text}`"


def _link(issue: str | None) -> str:
    if issue is None:
        return "-"
    repository, _, number = issue.partition("#")
    return f"[{issue}](https://github.com/{repository}/issues/{number})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    if not parser.parse_args().write:
        return print(markdown(), end="")
    text = README.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    README.write_text(f"{before}{BEGIN}{markdown()}{END}{after}")


if __name__ == "__main__":
    main()
