"""What a user of the package can fix: no network, a package that changed, a model of an unknown kind."""


class ModelUnavailable(RuntimeError):
    """A model could not be fetched or converted; the message is one line with the reason and what to do."""
