"""The keys of the configuration that this program, or what it hands them to, reads; and what each may be.

- `rules`: what a value may be, and in which runs its key acts
- `algorithm`, `model`, `actor`, `rollout`, `data`, `run`, `method`: the keys, by group
- `keys`: all of them, and which one is meant by a name that does not exist
- `composition`: what of a composed configuration breaks a rule, or is read by nothing
- `flags`: what is wrong with the options of the command line
- `overrides`: what is wrong with an override that can't be composed; `quoting`: with one that can't be read
- `types`: groups whose keys are the fields of another package's class

A key that no rule names must keep the value that `config/relift.yaml` or verl gives it: nothing reads it, so setting
it would be ignored.
"""

from .composition import problems
from .flags import flag_problems
from .overrides import refusal
from .rules import shown
from .types import field_problems, name_problems

__all__ = ["field_problems", "flag_problems", "name_problems", "problems", "refusal", "shown"]
