"""Compare Megatron through verl's engine with Hugging Face and plain PyTorch.

`batch` and `reference` define the inputs and the expected values. `ranks` starts `engine_worker` or
`checkpoint_worker` once per rank. tests/parity runs this on CPU processes, tests/gpu on CUDA, and benchmarks/engine
times the same engine.
"""
