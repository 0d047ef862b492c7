"""Defines the error that ends an export with one line instead of a traceback."""


class ExportError(Exception):
    """A problem with the checkpoint or the output folder that the user can fix; the message says how."""
