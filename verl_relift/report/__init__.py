"""Makes one self-contained page from the folders of one or more runs.

    metrics.jsonl, config.yaml, validation/, evaluations -> runs, samples -> charts (SVG by matplotlib) -> page (HTML)

The page has no scripts and makes no network requests. All text from models and file names is escaped.

| module | contents |
|---|---|
| `runs` | reads a run's folder as arrays and lists its problems |
| `timing` | reads the seconds of a run by stage |
| `thin` | reduces the number of points of a curve |
| `charts` | draws curves as SVG, and a PNG of the main ones |
| `samples` | pairs answers to the same questions before and after training |
| `tables` | builds the tables of totals, settings, stages, evaluations and metrics |
| `page` | fills in the template `templates/report.html.j2` |
| `errors` | defines the error that ends the command with one line |
"""
