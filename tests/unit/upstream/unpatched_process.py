"""What is replaced in a process that imports verl, Megatron and vLLM: one line of JSON.

Run by the fixture `unpatched_process` with `VERL_RELIFT_SPEED_PATCHES=0`.
"""

import importlib
import json

import verl  # noqa: F401  loads the plugin

from verl_relift.upstream import registry, table
from verl_relift.upstream.cpu import vllm as cpu_vllm


def main() -> None:
    cpu_vllm.install()
    patches = [patch for patch in table.load() if patch.where is not registry.Where.JUDGE]
    for module in {module for patch in patches for module in patch.after if not module.endswith(".*")}:
        importlib.import_module(module)
    print("FINDINGS", json.dumps({"replaced": sorted(registry.ORIGINALS)}))


if __name__ == "__main__":
    main()
