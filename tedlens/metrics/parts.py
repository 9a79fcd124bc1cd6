"""Body parts, as VIP scores them: mean intersection over union of classes."""

from __future__ import annotations

import numpy as np
import xarray as xr

from tedlens.errors import TedlensError
from tedlens.metrics.given import Given, matched

CLASSES = 20  # of VIP: the background, and 19 parts


def evaluate_parts(labels: Given, truth: Given, *, classes: int = CLASSES) -> xr.Dataset:
    """Intersection over union of each class, and their mean, as the evaluators of CRW and VFS compute it.

    All pixels of all given frames are counted in one confusion matrix; the background is a class. This includes the
    first frame: to exclude it, remove it from both inputs. Pixels with no class in the truth (255) do not count. A
    class that only the prediction has scores 0; a class in neither is NaN and enters no mean. For the scores of several
    clips, sum the counts with `combine_parts`.

    Parameters
    ----------
    labels, truth
        Classes over (frame, y, x), 0 to one less than `classes`; the truth may hold 255.
    classes
        Number of classes, including the background.

    Returns
    -------
    Dataset
        ``confusion`` (true, predicted), ``IoU`` and ``accuracy`` over ``true``, and ``mIoU``, ``mean_accuracy`` and
        ``pixel_accuracy``; 0 to 1.

    Raises
    ------
    TedlensError
        For different shapes, or a label that is no class.
    """
    _, predicted, true = matched(labels, truth)
    counted = true < classes
    strange = predicted[counted] >= classes
    if strange.any():
        raise TedlensError(
            f"labels hold the class {predicted[counted][strange][0]}, but classes go from 0 to {classes - 1}; "
            "set such pixels to the class that they mean."
        )
    pairs = true[counted].astype(np.intp) * classes + predicted[counted]
    counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    names = {axis: np.arange(classes) for axis in ("true", "predicted")}
    return _figures(xr.DataArray(counts, names, ("true", "predicted")))


def combine_parts(scores: xr.Dataset, dim: str = "clip") -> xr.Dataset:
    """Scores of all clips together, from the sum of their confusion matrices along `dim`."""
    return _figures(scores["confusion"].sum(dim))


def _figures(confusion: xr.DataArray) -> xr.Dataset:
    confusion = confusion.transpose(..., "true", "predicted")
    true = confusion.sum("predicted")
    hit = true.copy(data=np.diagonal(confusion, axis1=-2, axis2=-1))
    predicted = confusion.sum("true").rename(predicted="true")
    either = true + predicted - hit
    iou, accuracy = hit / either.where(either > 0), hit / true.where(true > 0)
    return xr.Dataset(
        {
            "confusion": confusion,
            "IoU": iou,
            "accuracy": accuracy,
            "mIoU": iou.mean("true"),
            "mean_accuracy": accuracy.mean("true"),
            "pixel_accuracy": hit.sum("true") / true.sum("true"),
        }
    )
