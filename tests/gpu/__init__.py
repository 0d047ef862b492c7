"""The kit for the first GPU: what no CPU can prove, as steps that write what they find; docs/gpu.md says how to run it.

`python -m tests.gpu run` runs the steps, `bundle` and `install` carry the stack to a machine without a network. The
same steps rehearse on a CPU in small.
"""
