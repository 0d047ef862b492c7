"""One self-contained page from the folders of one or more runs.

    metrics.jsonl, config.yaml, validation/, evaluations -> runs, samples -> charts (SVG by matplotlib) -> page (HTML)

The page has no script and asks the network for nothing. All text that a model or a file name brings is escaped.

| module | what it holds |
|---|---|
| `runs` | a run's folder as arrays, with what is wrong with it |
| `thin` | fewer points for the same curve |
| `charts` | curves as SVG, `curves.png` |
| `samples` | answers to the same questions before and after training |
| `tables` | settings, totals, evaluations, evidence of each metric |
| `page` | the template filled in |
"""
