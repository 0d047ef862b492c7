"""Names the kinds of training steps that take turns, in this order."""

VERL = "verl"  # verl's own GRPO step
RELIFT = "relift"  # ReLIFT's step without a supervised update
SFT = "sft"  # ReLIFT's step with one supervised update
KINDS = (VERL, RELIFT, SFT)
