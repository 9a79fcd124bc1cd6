"""Interventions: a model of which a part is cut, replaced or pushed is a model, and says so wherever it goes."""

from tedlens.interventions.ablation import ablate, without_temporal_layers
from tedlens.interventions.described import intervened
from tedlens.interventions.patching import patch
from tedlens.interventions.steering import steer

__all__ = ["ablate", "intervened", "patch", "steer", "without_temporal_layers"]
