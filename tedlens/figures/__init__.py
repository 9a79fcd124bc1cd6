"""A paper's figures and tables from the stores of sweeps: `tedlens figures`."""

from tedlens.figures.writing import Made, write_figures

__all__ = ["Made", "write_figures"]
