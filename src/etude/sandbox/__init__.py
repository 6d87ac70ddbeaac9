"""Where model-written code runs."""

__all__: list[str] = []
