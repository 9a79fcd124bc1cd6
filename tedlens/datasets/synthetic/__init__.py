"""The built-in test bed: a scene, how its bodies move, and pictures of them."""

from tedlens.datasets.synthetic.clip import similar as similar
