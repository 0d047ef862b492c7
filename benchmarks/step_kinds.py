"""The kinds of training steps that take turns in benchmarks/step.py, in this order."""

VERL, RELIFT, SFT = "verl", "relift", "sft"
KINDS = (VERL, RELIFT, SFT)
