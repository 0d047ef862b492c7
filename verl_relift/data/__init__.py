"""Training data: reading it, filtering it, and checking parquet files before training.

`data_preprocess` makes parquet files with these modules; training and evaluation use them to check and read the files.

| module       | holds                                                             |
|--------------|-------------------------------------------------------------------|
| `errors`     | `Reason` and `DataError`: why a row is left out, and where it is  |
| `fields`     | typed values of a record                                          |
| `schema`     | `Row` and `SCHEMA`: the one parquet schema of the project         |
| `tokens`     | `TokenCounter`: lengths as training counts them                   |
| `background` | `read_ahead`: an iterator that runs in a thread                   |
| `sources`    | `Source`: records of parquet, jsonl, json, csv or hub data        |
| `overlap`    | `NGramIndex`: questions shared with evaluation sets               |
| `filters`    | filters that decide which rows stay                               |
| `hints`      | the column with hints                                             |
| `stats`      | `Ledger`: counts and length histograms for `stats.json`           |
| `findings`   | `Kind`, `Finding` and `Report`: the results of a check            |
| `inspection` | the checks of one file                                            |
| `check`      | `check_files`: the checks of all files together                   |
"""
