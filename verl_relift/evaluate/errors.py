"""Defines the error that ends an evaluation with one line instead of a traceback."""


class EvaluationError(Exception):
    """A problem with the model, the data or the output folder that the user can fix; the message says how."""
