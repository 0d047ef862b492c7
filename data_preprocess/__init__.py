"""Data sets converted to parquet files that verl reads: `python -m data_preprocess.NAME --input ... --output DIR`.

| module          | makes                                                              |
|-----------------|--------------------------------------------------------------------|
| `openr1_math`   | OpenR1-Math, the training set of ReLIFT                            |
| `gsm8k`         | GSM8K                                                              |
| `svamp`         | SVAMP, for `make pretrained`                                       |
| `math`          | MATH                                                               |
| `arithmetic`    | arithmetic chains from a seed, for the quickstart and tests        |
| `jsonl`         | your own data                                                      |
| `benchmarks`    | evaluation sets, from AIME to ARC-Challenge                        |
| `check`         | a report on whether parquet files are fit to train on or evaluate  |
| `prepare_model` | a copy of a base model for long reasoning                          |

Shared parts: `cli` (flags), `pipeline` (read, map, filter, write), `output` (files that appear complete or not at all),
`template` (system prompts), `answers` (boxed answers), `vocabulary` (tokenizer against weights), `plot` (histograms).
The schema, the filters and the checks are in `verl_relift.data`, which never imports this package.
"""
