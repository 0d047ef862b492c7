"""Checks the GPU stack of requirements.txt on a machine without a GPU."""
