"""The error that ends a report with one line instead of a traceback."""


class ReportError(Exception):
    """Something about a run's folder that the user can put right; the message says how."""
