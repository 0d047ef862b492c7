"""The error that ends an evaluation with one line instead of a traceback."""


class EvaluationError(Exception):
    """Something about the model, the data or the output folder that the user can put right; the message says how."""
