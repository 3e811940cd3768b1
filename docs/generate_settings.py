"""Print docs/settings.md, the table of all options, from settings.py: ``python docs/generate_settings.py``."""

from __future__ import annotations

from sapatchcore.settings import Settings

HEAD = """# Settings

Every option, from `src/sapatchcore/settings.py`. The same names are keyword arguments of `SAPatchCore`, options of
`sapatchcore fit`, `evaluate` and `benchmark` (with `-` for `_`: `--coreset-ratio 0.1`), and keys of a model file's header.
A value outside its range is refused with a sentence that says what is allowed.

Written by `python docs/generate_settings.py`; a test compares the two.

| option | default | allowed | meaning |
|---|---|---|---|
"""

TAIL = """
`device`, `precision`, `batch_size`, `workers`, `search`, `weights`, `image_score` and `neighbors` may differ when a model file is
loaded; everything else is part of what was learned. For another `image_score` the calibration is taken anew from the kept patch
scores; for `reweighted`, which does not follow from them, and for other `neighbors` of it, there is none until
`detector.calibrate`. `workers` changes no score; `batch_size`, `device` and the exact kinds of `search` may change the last
digits, since sums are then taken in another order; `precision` and `search` faiss change more than that.
"""


def settings_page() -> str:
    """The page as text."""
    return HEAD + "".join(_row(name) for name in Settings.model_fields) + TAIL


def _row(name: str) -> str:
    field = Settings.model_fields[name]
    about = field.json_schema_extra
    assert isinstance(about, dict)  # settings.py sets it
    return f"| `{name}` | `{_default(field.default)}` | {about['allowed']} | {field.description} |\n"


def _default(value: object) -> str:
    if isinstance(value, tuple):
        return ("x" if isinstance(value[0], int) else ",").join(str(part) for part in value)
    return "none" if value is None else str(value)


if __name__ == "__main__":
    print(settings_page(), end="")
