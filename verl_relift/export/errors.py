"""The error that ends an export with one line instead of a traceback."""


class ExportError(Exception):
    """Something about the checkpoint or the output folder that the user can put right; the message says how."""
