"""Single-turn rollouts: one call per vLLM server for a whole batch, graded and stored as groups finish.

verl's agent loop makes a Ray call and a dozen Python objects per rollout, which multi-turn tools need. A question that
is answered in one turn needs none of it; with small models it is most of a step. Set
`relift.rollout.batched=false` to use verl's agent loop instead.

    server.py    vLLM's server in verl, with a method that answers a batch of questions n times each
    worker.py    tokenise -> ask the servers -> grade -> TransferQueue
    manager.py   shares a batch out among the workers
"""
