"""The kinds of training steps that take turns in benchmarks/step/__main__.py, in this order."""

VERL, RELIFT, SFT = "verl", "relift", "sft"
KINDS = (VERL, RELIFT, SFT)
