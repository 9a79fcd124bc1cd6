"""What attention layers look at: their weights, taken without touching the model, and what single heads do."""

from tedlens.attending.heads import head_statistics
from tedlens.attending.maps import attention

__all__ = ["attention", "head_statistics"]
