"""Scripts that make data with software that tedlens itself does not need."""
