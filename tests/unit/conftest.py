"""For the tests that hypothesis runs."""

from hypothesis import settings

# A deadline measures the machine, which other work may slow down.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
