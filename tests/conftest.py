"""Settings of all tests."""

from hypothesis import settings

settings.register_profile("etude", deadline=None)  # a busy machine is no failure
settings.load_profile("etude")
