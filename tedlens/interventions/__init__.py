"""Interventions cut, replace or steer a part of a model. The result is again a model; its results record the change."""

from tedlens.interventions.ablation import ablate, without_temporal_layers
from tedlens.interventions.described import intervened
from tedlens.interventions.patching import patch
from tedlens.interventions.steering import steer

__all__ = ["ablate", "intervened", "patch", "steer", "without_temporal_layers"]
