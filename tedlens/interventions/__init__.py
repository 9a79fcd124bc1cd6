"""Interventions: a model of which a part is cut, replaced or pushed is a model, and says so wherever it goes."""

from tedlens.interventions.ablation import ablate, without_temporal_layers
from tedlens.interventions.described import intervened

__all__ = ["ablate", "intervened", "without_temporal_layers"]
