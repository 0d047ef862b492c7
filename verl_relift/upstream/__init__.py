"""Every patch of somebody else's code, sorted by why it exists. README.md has the table.

| module | what it holds |
|---|---|
| `registry` | how a patch is declared, installed and turned off; every replacement goes through it |
| `plugin` | entry point `verl.plugins`: decides what this process needs, and stops it with the reason if that fails |
| `post_import` | runs a patch right after the module it belongs to is imported, so that unused modules cost nothing |
| `transformer_engine` | whether Megatron's layers come from Transformer Engine in this process |
| `versions` | the versions of upstream that the patches were written for |
| `view` | a module as some other modules should see it |
| `table` | README.md's table, made from the declarations |
| `cpu/` | running without CUDA; `cpu/vllm.py` is the entry point `vllm.general_plugins` |
| `local_spec/` | running without Transformer Engine, on a CPU or on CUDA |
| `fixes/` | faults of upstream |
| `speed/` | the same results sooner |
"""
