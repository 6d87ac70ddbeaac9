"""Language models: back ends, prompting and judges."""
