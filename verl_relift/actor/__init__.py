"""What the Megatron workers do beyond verl's RL update.

| module | what it holds |
|---|---|
| `worker` | the hybrid worker: supervised updates, spliced demonstrations, exact resume |
| `losses` | losses as pure functions of tensors |
| `roles` | the policy loss of methods that weigh tokens by who wrote them |
| `gradients` | the share of each role in an update's gradient |
| `splice` | two losses in one optimizer step |
| `moments` | AdamW moments of the supervised update alone |
| `batch` | demonstrations as a batch of verl's engines |
| `random_state` | a rank's random generators, for the checkpoint |
"""
