"""Adapters of diffusion UNets."""
