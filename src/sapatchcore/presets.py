"""The defaults of ``preset`` "recommended": what goes beyond the paper and found most on made defects."""

from __future__ import annotations

from typing import Any

from sapatchcore.networks import joined, names_of


def recommended(backbone: str) -> dict[str, Any]:
    """The defaults of ``preset`` "recommended", chosen on made defects.

    The whole image is inspected, in its own shape. Combinations of parts are told by the global part, so that layer 3 need not be
    mixed by self-attention, which costs fine local defects. Whitening pays where features were trained on ImageNet: of several
    networks each has its own metric.
    """
    values: dict[str, Any] = {
        "attention": "none",
        "temperature": "auto",  # for whoever asks for self-attention
        "resize": 256,
        "keep_aspect": True,
        "crop": None,
        "image_score": "smoothed",
        "global_part": "pooled",
    }
    metric = joined("whitened" if name.startswith("efficientnet_lite") else "euclidean" for name in names_of(backbone))
    return values if metric == "euclidean" else {**values, "metric": metric}
