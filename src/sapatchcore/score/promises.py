"""What every scorer of images promises from its calibration: thresholds, and a watch on drift."""

from __future__ import annotations

import numpy.typing as npt

from sapatchcore.errors import NotFittedError
from sapatchcore.score.calibration import NO_CALIBRATION, Calibration
from sapatchcore.score.drift import Drift, drift
from sapatchcore.score.threshold import FALSE_REJECT, threshold
from sapatchcore.settings import Settings


class Calibrated:
    """A detector, or an exported model: it has ``settings``, and says by ``_known`` what its verdicts are measured against."""

    settings: Settings

    def _known(self) -> Calibration | None:
        raise NotImplementedError

    @property
    def calibration(self) -> Calibration:
        """The scores of good images that verdicts are measured against, as far as they are kept. Raises NotFittedError where
        there are none."""
        known = self._known()
        if known is None:
            raise NotFittedError(NO_CALIBRATION)
        return known

    @property
    def is_calibrated(self) -> bool:
        """Whether ``calibration`` is there, so that verdicts can be given."""
        return self._known() is not None

    def threshold(self, false_reject: float = FALSE_REJECT) -> float:
        """The score above which an image is rejected, so that of good parts like the calibration ones at most the share
        ``false_reject`` is (conformal prediction; see score/threshold.py).

        Raises NotFittedError without calibration; SettingsError, with the smallest rate possible, where the calibration
        images are too few.
        """
        return threshold(self.calibration.scores, false_reject)

    def pixel_threshold(self, false_reject: float = FALSE_REJECT) -> float:
        """The map value such that at most ``false_reject`` of good images show any pixel above it; as ``threshold``."""
        return threshold(self.calibration.peaks, false_reject)

    def drift(self, p_values: npt.ArrayLike, *, false_alarm: float = 0.01) -> Drift:
        """Whether a stream of p-values of good parts, (t,) in their order, has ceased to look like the calibration's.

        false_alarm: the chance, at most, of an alarm at any time while nothing changes; see score/drift.py.
        """
        return drift(p_values, len(self.calibration), false_alarm=false_alarm, seed=self.settings.seed)
