"""The tiny detector and its files, for all tests of export/."""

from exporting import exported, exporter_done, program, tiny

__all__ = ["exported", "exporter_done", "program", "tiny"]
