"""The judge: math-verify in worker processes that can be killed at a limit of time or memory.

    WorkerPool (worker_pool) -> wire -> fork server (fork_server) -> forked worker (sandbox, verdict, separate)

| module        | runs in             | holds                                                        |
|---------------|---------------------|--------------------------------------------------------------|
| `worker_pool` | the grading process | `WorkerPool`: hands out comparisons, kills and replaces workers |
| `fork_server` | the fork server     | the process that loads math-verify once and forks workers    |
| `wire`        | all of them         | messages between these processes: JSON with a length         |
| `sandbox`     | a worker            | limits that a worker puts on itself                          |
| `verdict`     | a worker            | `judge`: whether one of several pairs of answers is equal    |
| `separate`    | a worker            | a fast test that tells different answers apart               |

Only `verdict` and `separate` import sympy and math-verify. The grading process never imports either module.
"""
