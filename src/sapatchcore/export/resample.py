"""Pillow's LANCZOS as a graph: step 1 of the paper, to the bit, for images of any size; and step 9, from the grid to their size.

Source: Pillow, ``src/libImaging/Resample.c``. Along each axis, the row first, output pixel i is Σ_x c[i, x] · pixel[x] with

    c[i, x] = round(2²² f(t) / Σ_x f(t)),   t = ((x + ½) − (i + ½)·in/out) / max(in/out, 1),   f(t) = sinc(t)·sinc(t/3), |t| < 3

plus ½·2²², shifted down by 22 bits and clipped to 0 … 255. Pillow computes f in double precision; a runtime may have none
(OpenVINO computes 64-bit numbers in 32), and rounding makes small errors visible. So nothing here is rounded unless it is meant:

- t is a ratio of whole numbers, kept as such (int32). f comes from a table of cubics, one for each 1/1024 of t. Values are kept
  as *limbs*: whole numbers of up to 12 bits, whose products and sums float32 holds exactly, and a small rest. f and the
  quotient are right to about 2⁻⁴³; only a coefficient within 2⁻²⁰ of a half could be rounded the other way.
- Pixels times coefficients: two limbs of 16 and 7 bits. Σ_x |c[i, x]| is at most 1.58 · 2²², at any size, and so every product
  and every sum is a whole number below 2²⁴, in any order of summation, as long as a pixel is a mixture of at most 1028 (images up
  to 171 times as large as ``resize``).

Where an axis has its size already, c is the unit matrix: Pillow, which then skips the axis, and this agree.
"""

from __future__ import annotations

import numpy as np
import torch

from sapatchcore.score.anomaly_score import axis_operator

_KNOTS = 1024  # cubics a unit of t
_REACH = 3  # of the kernel
_TOGETHER = (
    16  # output pixels that share one window of the input: more, and zeros are multiplied; fewer, and it is read again
)


class Lanczos(torch.nn.Module):
    """(n, h, w, 3) uint8, h and w free → (n, height, width, 3) float32, whole numbers 0 to 255, as ``pixels.prepare``."""

    def __init__(self, resize: tuple[int, int], box: tuple[int, int, int, int]) -> None:
        """resize: (h, w). box: the crop in it, (top, left, height, width)."""
        super().__init__()
        self._resize, self._box = resize, box
        for name, values in _cubics().items():
            self.register_buffer(name, torch.from_numpy(values))
        self.value: torch.Tensor  # (3, knots): of f, in limbs
        self.slope: torch.Tensor  # (2, knots): of its first derivative
        self.bend: torch.Tensor  # (2, knots): second and third

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        top, left, height, width = self._box
        n, h, w = images.shape[0], images.shape[1], images.shape[2]
        # Colours apart first: of all ways to turn the image, the cheapest in both runtimes.
        columns = images.permute(0, 2, 3, 1).reshape(n, w, 3 * h)
        narrow = self._axis(columns, w, self._resize[1], left, width).reshape(n, width, 3, h)
        rows = narrow.permute(0, 3, 1, 2).reshape(n, h, width * 3)
        return self._axis(rows, h, self._resize[0], top, height).reshape(n, height, width, 3)

    def _axis(self, x: torch.Tensor, pixels: int, resized: int, start: int, cropped: int) -> torch.Tensor:
        """x: (n, pixels, m), any type, values 0 to 255 → (n, cropped, m) float32, the same."""
        window, weights = self._coefficients(pixels, resized, start, cropped)
        blocks, taps = window.shape
        seen = x.index_select(1, window.flatten()).float().unflatten(1, (blocks, taps))  # (n, blocks, taps, m)
        high = torch.round(weights * 2.0**-7)
        limbs = torch.cat((high, weights - high * 2.0**7), dim=1)  # (blocks, 2·together, taps)
        sums = limbs @ seen  # (n, blocks, 2·together, m)
        high, low = sums[:, :, :_TOGETHER], sums[:, :, _TOGETHER:]
        # ⌊(high·2⁷ + low + 2²¹) / 2²²⌋, a limb at a time.
        shifted = torch.floor((high + torch.floor(low * 2.0**-7) + 2.0**14) * 2.0**-15)
        return shifted.clamp(0, 255).flatten(1, 2)[:, :cropped]

    def _coefficients(self, pixels: int, resized: int, start: int, cropped: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pillow's coefficients of the output pixels ``start`` … in blocks of ``_TOGETHER``.

        Returns window (blocks, taps) int64, the input pixels that a block looks at, and weights (blocks, together, taps)
        float32, whole numbers, 2²² in all.
        """
        blocks = -(-cropped // _TOGETHER)
        size = torch.full((1,), pixels, dtype=torch.int32)
        wide = torch.clamp(size, min=resized)
        out = torch.arange(start, start + blocks * _TOGETHER, dtype=torch.int32).reshape(blocks, _TOGETHER)
        # From two pixels before the first one that counts: this division may be off by less than one.
        first = ((2 * out[:, :1] + 1) * size - 2 * _REACH * wide).float() / (2 * resized)
        taps = ((_TOGETHER - 1) * pixels + 2 * _REACH * (pixels + resized)) // resized + 6
        x = torch.floor(first).to(torch.int32) - 2 + torch.arange(taps, dtype=torch.int32)  # (blocks, taps)
        inside = (x >= 0) & (x < size)
        window = torch.maximum(torch.minimum(x, size - 1), torch.zeros_like(size)).long()

        over, under = (2 * x[:, None, :] + 1) * resized - (2 * out[:, :, None] + 1) * size, 2 * wide  # t = over / under
        over = over.abs()
        used = ((over < _REACH * under) & inside[:, None, :]).float()
        over = torch.minimum(over, _REACH * under)
        a, b, c = (limb * used for limb in self._kernel(over, under))
        whole = [limb.sum(2, keepdim=True) for limb in (a, b, c)]
        return window, _quotient((a, b, c), whole)

    def _kernel(self, over: torch.Tensor, under: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """f(over / under) for int32 numbers, as a·2⁻¹¹ + b·2⁻²² + c: a and b whole, c below 2⁻²⁰."""
        knot = torch.round(over.float() / under.float() * _KNOTS).to(torch.int32)  # the nearest, or one as near
        beside = over * _KNOTS - knot * under  # exactly
        whole = torch.round(beside.float() / under.float() * 2.0**12)
        rest = (beside * 4096 - whole.to(torch.int32) * under).float() / under.float() * 2.0**-12
        s = whole * 2.0**-12 + rest  # from the knot, in knots: −½ … ½
        at = knot.long()
        product = whole * self.slope[0][at]  # in 2⁻³³, exactly
        carried = torch.round(product * 2.0**-11)
        small = rest * (self.slope[0][at] * 2.0**-21 + self.slope[1][at]) + whole * 2.0**-12 * self.slope[1][at]
        curve = s * s * (self.bend[0][at] + s * self.bend[1][at])
        c = self.value[2][at] + (product - carried * 2.0**11) * 2.0**-33 + small + curve
        return self.value[0][at], self.value[1][at] + carried, c


def _quotient(part: tuple[torch.Tensor, torch.Tensor, torch.Tensor], whole: list[torch.Tensor]) -> torch.Tensor:
    """round(2²² · part / whole), both in limbs as of ``_kernel``: first nearly, then corrected by the exact remainder."""
    a, b, c = part
    s0, s1, s2, s3 = _carried(whole)
    divisor = s0 + s1 * 2.0**-11 + s2 * 2.0**-22
    near = torch.round((a * 2.0**-11 + b * 2.0**-22 + c) / divisor * 2.0**22)
    high = torch.round(near * 2.0**-11)
    low = near - high * 2.0**11
    # 2²² part − near · whole, by limbs: what is large cancels, as whole numbers.
    cross = high * s2 + low * s1
    carry = torch.round(cross * 2.0**-11)
    large = (a - high * s0) * 2.0**11 + (b - high * s1 - low * s0) - carry
    small = c * 2.0**22 - (cross * 2.0**-11 - carry) - low * s2 * 2.0**-22 - near * s3
    return near + torch.round((large + small) / divisor)


def _carried(limbs: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A sum a·2⁻¹¹ + b·2⁻²² + c as s0 + s1·2⁻¹¹ + s2·2⁻²² + s3: whole numbers, s1 and s2 up to 2¹⁰, and a rest."""
    a, b, c = limbs
    up = torch.round(c * 2.0**22)
    b, c = b + up, c - up * 2.0**-22
    up = torch.round(b * 2.0**-11)
    a, b = a + up, b - up * 2.0**11
    up = torch.round(a * 2.0**-11)
    return up, a - up * 2.0**11, b, c


def _cubics() -> dict[str, np.ndarray]:
    """For each knot t = k/1024, the cubic that runs through f nearby, its numbers in limbs; float32."""
    nodes = np.cos(np.pi * (np.arange(6) + 0.5) / 6) * 0.505
    knots = np.arange(_REACH * _KNOTS + 1)[:, None]
    t = (knots + nodes) / _KNOTS  # (knots, 6)
    values = (np.sinc(t) * np.sinc(t / 3)).T
    cubic = np.linalg.lstsq(np.vander(nodes, 4, increasing=True), values, rcond=None)[0]  # (4, knots)
    a = np.round(cubic[0] * 2.0**11)
    b = np.round((cubic[0] - a * 2.0**-11) * 2.0**22)
    slope = np.round(cubic[1] * 2.0**21)
    tables = {
        "value": np.stack((a, b, cubic[0] - a * 2.0**-11 - b * 2.0**-22)),
        "slope": np.stack((slope, cubic[1] - slope * 2.0**-21)),
        "bend": cubic[2:],
    }
    return {name: table.astype(np.float32) for name, table in tables.items()}


class Enlarge(torch.nn.Module):
    """Step 9, as score/anomaly_score.py: (n, gh, gw) float32 and the image's (H, W) → (n, H, W) float32, 0 outside the crop.

    Enlarging to the crop and the Gaussian are one constant matrix an axis. Where a pixel of the image lies between two of the
    crop is a ratio of whole numbers, computed in int32, so that no runtime's rounding moves an edge of the crop.
    """

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
