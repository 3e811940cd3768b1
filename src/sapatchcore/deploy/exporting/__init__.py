"""How a fitted detector becomes one artefact."""
