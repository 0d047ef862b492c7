"""Exports a training checkpoint as a Hugging Face folder that loads anywhere.

    global_step_N -> complete? -> weights, shard by shard -> tokenizer, configs -> checks -> model card -> folder

| module | contents |
|---|---|
| `checkpoint` | finds the parts of a checkpoint and rejects an incomplete one |
| `weights` | copies safetensors in bounded memory, optionally to another dtype |
| `folder` | writes everything else and defines the order of the export |
| `check` | loads the exported folder with transformers and compares it with the checkpoint |
| `card` | writes the model card from the run; its template is `templates/model_card.md.j2` |
| `push` | uploads the folder to the Hugging Face hub |
| `errors` | defines the error that ends the command with one line |
"""
