"""Step 9 as a graph: from the grid of patch scores to the anomaly map at the image's own size, as score/anomaly_map.py.

Enlarging to the crop and the Gaussian are one constant matrix an axis. Where a pixel of the image lies between two of the
crop is a ratio of whole numbers, computed in int32, so that no runtime's rounding moves an edge of the crop.
"""

from __future__ import annotations

import torch

from sapatchcore.score.anomaly_score import axis_operator


class Enlarge(torch.nn.Module):
    """(n, gh, gw) float32 and the image's (H, W) → (n, H, W) float32, 0 outside the crop."""

    def __init__(self, grid: tuple[int, int], resize: tuple[int, int], box: tuple[int, int, int, int]) -> None:
        """grid: (gh, gw). resize: (h, w). box: the crop in it, (top, left, height, width)."""
        super().__init__()
        self._resize, self._box = resize, box
        height, width = box[2:]
        # With a crop that is the image itself, axis_operator's last step does nothing.
        self.register_buffer("down", torch.tensor(axis_operator(grid[0], height, 0, height, height)))
        self.register_buffer("across", torch.tensor(axis_operator(grid[1], width, 0, width, width)))
        self.down: torch.Tensor  # (height, gh)
        self.across: torch.Tensor  # (width, gw)

    def forward(self, scores: torch.Tensor, height: int, width: int) -> torch.Tensor:
        top, left, _, _ = self._box
        rows = _sampled(self.down, self._resize[0], top, height)
        columns = _sampled(self.across, self._resize[1], left, width)
        return rows @ scores @ columns.T


def _sampled(blurred: torch.Tensor, resized: int, start: int, pixels: int) -> torch.Tensor:
    """(cropped, cells) at the crop's pixels → (pixels, cells) at the image's own: linear in between, 0 outside."""
    last = len(blurred) - 1
    size = torch.full((1,), pixels, dtype=torch.int32)
    # (i + ½) · resized/size − ½ − start, over 2·size.
    over, under = (2 * torch.arange(pixels, dtype=torch.int32) + 1) * resized - (1 + 2 * start) * size, 2 * size
    inside = ((over >= -size) & (over < (2 * last + 1) * size)).float()
    over = torch.maximum(torch.minimum(over, last * under), torch.zeros_like(over))
    lower = torch.floor(over.float() / under.float()).to(torch.int32)
    rest = over - lower * under  # the division may be off by one where it is nearly whole
    lower = lower + (rest >= under).to(torch.int32) - (rest < 0).to(torch.int32)
    lower = torch.clamp(lower, max=max(last - 1, 0))
    share = ((over - lower * under).float() / under.float())[:, None]
    at = lower.long()
    sampled = blurred[at] * (1 - share) + blurred[torch.clamp(at + 1, max=last)] * share
    return sampled * inside[:, None]
