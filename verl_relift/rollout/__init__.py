"""Single-turn rollouts: one call per vLLM server for a whole batch, graded and stored as groups finish.

verl's agent loop makes a Ray call and a dozen Python objects per rollout, which multi-turn tools need. A question that
is answered in one turn needs none of it; with small models it is most of a step. Set
`relift.rollout.batched=false` to use verl's agent loop instead.

| module | what it holds |
|---|---|
| `server` | verl's vLLM server, with a method that answers a batch of prompts n times each |
| `worker` | tokenize -> ask the servers -> grade -> TransferQueue |
| `manager` | shares a batch out among the workers |
| `sampler` | verl's replay buffer, woken when rollouts are stored |
| `questions`, `groups` | from a batch of the data set to questions; from TransferQueue back to groups |
| `prompts` | a question's token ids |
"""
