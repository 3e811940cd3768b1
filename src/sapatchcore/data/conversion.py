"""Pixels of other kinds as 8-bit RGB: arrays, 16-bit and 32-bit grey, floats.

A kind's full range is scaled, never clipped or wrapped.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sapatchcore.errors import DataError


def rgb_from_array(array: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.uint8]:
    """A uint8 array (h, w, 3) RGB, (h, w) or (h, w, 1) grey as contiguous (h, w, 3); not copied needlessly.

    Raises DataError, with the shape and dtype got and what to do, for every other array.
    """
    grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    colour = array.ndim == 3 and array.shape[2] == 3
    if array.dtype != np.uint8 or not (grey or colour) or 0 in array.shape:
        raise DataError(
            f"{name} must be (h, w, 3) uint8 RGB, or (h, w) uint8 grey, with at least one pixel. "
            f"Got shape {array.shape}, {array.dtype}.{_array_hint(array)}"
        )
    pixels = np.asarray(array, dtype=np.uint8)
    return np.ascontiguousarray(pixels) if colour else repeated(pixels.reshape(pixels.shape[:2]))


def repeated(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(h, w) grey as (h, w, 3) uint8 RGB."""
    return np.repeat(grey[:, :, None], 3, axis=2)  # (h, w, 3)


def from_integers(values: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.uint8]:
    """(h, w) whole numbers from 0 to 65535 as (h, w) uint8. Raises DataError for others; name: what messages call them."""
    wide = values.astype(np.int64)
    low, high = int(wide.min()), int(wide.max())
    if low < 0 or high > 65535:
        raise DataError(
            f"{name} holds 32-bit integers from {low} to {high}; its range is unknown. Allowed: 0 to 65535. "
            "Scale it to 8 or 16 bits."
        )
    # 65535 = 255 · 257; adding 128 rounds to nearest (257 is odd, so there are no ties).
    return ((wide + 128) // 257).astype(np.uint8)


def from_floats(values: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.uint8]:
    """(h, w) floats from 0 to 1 as (h, w) uint8. Raises DataError for others; name: what messages call them."""
    floats = values.astype(np.float64)
    if not np.isfinite(floats).all():
        raise DataError(f"{name} holds NaN or infinite values. Replace them, then scale the image to 0..1.")
    low, high = float(floats.min()), float(floats.max())
    if low < 0 or high > 1:
        raise DataError(f"{name} holds floats from {low:g} to {high:g}. Allowed: 0 to 1. Scale it to 0..1.")
    return np.rint(floats * 255).astype(np.uint8)


def _array_hint(array: npt.NDArray[np.generic]) -> str:
    shape = array.shape
    if array.ndim == 4:
        return " Give the images one by one, in a list."
    if array.ndim == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4):
        return " Channels come last here: use array.transpose(1, 2, 0)."
    if array.ndim == 3 and shape[2] == 4:
        return " Drop the alpha channel: array[:, :, :3]."
    if array.dtype == np.bool_:
        return " Use array.astype(np.uint8) * 255."
    if array.dtype == np.uint16:
        return " Scale it to 8 bits: np.round(array / 257).astype(np.uint8)."
    if np.issubdtype(array.dtype, np.floating):
        if np.isnan(array).any():
            return " It holds NaN: replace these values, then scale it to 0..255 and use astype(np.uint8)."
        return " Scale it to 0..255 and use np.round(array).astype(np.uint8)."
    return ""
