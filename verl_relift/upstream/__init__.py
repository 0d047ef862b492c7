"""Running verl, Megatron-Core and vLLM where CUDA or Transformer Engine is missing.

Nothing in this package is imported by the rest of verl_relift: the entry points `verl.plugins` (`plugin.py`) and
`vllm.general_plugins` (`vllm_cpu.py`) load it into every process that imports verl or starts a vLLM engine.

| module | what it holds |
|---|---|
| `plugin` | decides what this process needs, and stops it with the reason if that fails |
| `post_import` | runs a patch right after the module it belongs to is imported, so that unused modules cost nothing |
| `upstream` | the versions each patch was made for |
| `cpu` | verl's `cpu` platform |
| `verl_rollout` | verl's request router, started only where it is used |
| `transfer_queue`, `packing_unit` | TransferQueue's columns as one buffer each |
| `verl_rows` | what verl does for each row of a batch, as one operation a column |
| `verl_weights` | the transfer of weights to vLLM over what the first one set up |
| `verl_cpu` | two gaps in verl on a platform without an accelerator |
| `megatron_local`, `local_layers`, `local_rotary` | Megatron's local layer spec with packed sequences |
| `megatron_cpu` | Megatron's hard-wired CUDA calls; its optimizer checkpoints without Transformer Engine |
| `vllm_cpu` | vLLM's CPU engine under repeated weight updates |
"""
