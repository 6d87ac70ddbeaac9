"""Language models: back ends, prompting and judges."""

__all__: list[str] = []
