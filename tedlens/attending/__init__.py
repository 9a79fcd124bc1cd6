"""What attention layers look at: their weights, read without changing the model, and statistics of single heads."""

from tedlens.attending.heads import head_statistics
from tedlens.attending.maps import attention

__all__ = ["attention", "head_statistics"]
