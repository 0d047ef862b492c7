"""From a training checkpoint to a Hugging Face folder that loads anywhere.

    global_step_N -> complete? -> weights, shard by shard -> tokenizer, configs -> checks -> model card -> folder

| module | what it holds |
|---|---|
| `checkpoint` | finding a checkpoint's parts, and refusing an incomplete one |
| `weights` | safetensors to safetensors in bounded memory, with a dtype by choice |
| `folder` | everything beside the weights, and the order in which a folder comes to be |
| `card` | the model card, written from the run |
| `push` | upload to the Hugging Face hub |
| `check` | the exported folder, loaded by transformers, against the checkpoint |
"""
