"""Scripts that make data elsewhere, with software that tedlens does not need."""
