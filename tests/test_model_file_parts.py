"""A model file whose checksum fits, but whose parts do not: whoever writes a file can compute one."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import SMALL, made_images

from sapatchcore import ModelFileError, SAPatchCore, SettingsError
from sapatchcore.model_file import Stored, load_model_file, read_model, write_model


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    SAPatchCore(**SMALL, coreset_ratio=0.05).fit(made_images(3)).save(path)
    return read_model(path)


def unfit(stored: Stored) -> Iterator[tuple[str, Stored]]:
    """The stored model with one part that does not fit the others, and what that is."""
    for name in ("settings", "channels", "grid", "covering_radius", "calibration"):
        for value in ("x", -1, []):
            header = copy.deepcopy(stored.header)
            header[name] = value
            yield f"{name} is {value!r}", replace(stored, header=header)
        header = copy.deepcopy(stored.header)
        del header[name]
        yield f"no {name}", replace(stored, header=header)
    for name in stored.more:
        if not name.startswith("thumbnails"):
            if name != "training.appearance":  # which earlier versions did not keep
                yield f"no {name}", replace(stored, more={k: v for k, v in stored.more.items() if k != name})
            yield f"one {name}", replace(stored, more={**stored.more, name: stored.more[name][:1]})
    whole = stored.more["training.appearance"]
    for what, looks in (("narrow", whole[:, :2]), ("of NaN", torch.full_like(whole, torch.nan))):
        yield f"appearance {what}", replace(stored, more={**stored.more, "training.appearance": looks})
    bad = torch.full_like(stored.more["training.name"], 255)
    yield "a name that is no text", replace(stored, more={**stored.more, "training.name": bad})
    for name in (name for name in stored.more if name.endswith(".end")):
        for what, ends in (("falls", stored.more[name].flip(0)), ("is beyond", stored.more[name] + 1)):
            yield f"{name} {what}", replace(stored, more={**stored.more, name: ends})
        yield f"{name} of fractions", replace(stored, more={**stored.more, name: stored.more[name] + 0.5})
    yield "a bank of one dimension", replace(stored, bank=stored.bank[0])
    yield "a narrow bank", replace(stored, bank=stored.bank[:, :7])
    yield "a bank of NaN", replace(stored, bank=torch.full_like(stored.bank, torch.nan))
    yield "rows of unknown images", replace(stored, images=stored.images + 1000)
    yield "rows of unknown cells", replace(stored, cells=stored.cells - 1000)
    yield "fewer owners than rows", replace(stored, images=stored.images[:-1])


def test_nothing_in_the_header_grows_with_the_images(stored: Stored, tmp_path: Path) -> None:
    """safetensors reads no header above 100 MB."""
    path = tmp_path / "more.safetensors"
    SAPatchCore(**SMALL, coreset_ratio=0.01).fit(made_images(30), calibrate=made_images(20, seed=1)).save(path)
    longer = read_model(path)
    for header in (stored.header, longer.header):
        assert "image 1" not in json.dumps(header)
    assert len(json.dumps(longer.header)) < len(json.dumps(stored.header)) + 50  # other numbers, no more of them
    assert SAPatchCore.load(path).calibration.names[:2] == ("image 0", "image 1")


def test_parts_that_do_not_fit_are_refused_with_a_sentence(stored: Stored, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    said: dict[str, str] = {}
    for what, model in unfit(stored):
        try:
            write_model(path, model)
            load_model_file(path, {"device": "cpu"})
        except (ModelFileError, SettingsError) as error:
            said[what] = str(error)
        else:
            said[what] = "loaded"
    assert [what for what, words in said.items() if words == "loaded" or "\n" in words] == []
    write_model(path, stored)
    _, _, bank, calibration = load_model_file(path, {"device": "cpu"})
    assert torch.equal(bank.rows, stored.bank)
    assert calibration is not None


def test_loading_says_it(stored: Stored, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_model(path, replace(stored, bank=stored.bank[:, :7]))
    with pytest.raises(ModelFileError, match="does not hold what a model of sapatchcore holds"):
        SAPatchCore.load(path, device="cpu")
