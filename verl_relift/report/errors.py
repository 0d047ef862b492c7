"""Defines the error that ends a report with one line instead of a traceback."""


class ReportError(Exception):
    """A problem with a run's folder that the user can fix; the message says how."""


class NoStepYet(ReportError):
    """A run in progress has no metrics yet."""
