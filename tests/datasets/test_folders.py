"""Every layout in a tiny tree, recognised and named; every refusal with its sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sapatchcore.datasets.folders import find_categories, open_dataset, training_images, validation_images
from sapatchcore.datasets.samples import LAYOUTS, Dataset
from sapatchcore.errors import DataError, SettingsError

WriteTree = Callable[[Path, str], Path]

MVTEC = """
    train/good/001.png train/good/000.png
    test/good/000.png test/crack/000.png test/crack/001.png test/bent/000.png
    ground_truth/crack/000_mask.png ground_truth/crack/001.png ground_truth/bent/000_mask.bmp
"""
LOCO = """
    train/good/0.png validation/good/0.png test/good/0.png test/logical_anomalies/7.png
    test/structural_anomalies/8.png ground_truth/logical_anomalies/7/001.png
    ground_truth/logical_anomalies/7/000.png ground_truth/structural_anomalies/8/000.png
"""
CAD_SD = """
    train/0_good/a.jpg test/0_good/b.jpg test/1_scratch/c.jpg test/2_paint/d.jpg test/3_over-coupling/e.jpg
    test/4_lacking/f.jpg
"""
BTAD = "train/ok/0.bmp test/ok/1.bmp test/ko/2.bmp test/ko/3.bmp ground_truth/ko/2.png ground_truth/ko/3.bmp"
VISA = """
    Data/Images/Normal/0.JPG Data/Images/Normal/1.JPG Data/Images/Normal/2.JPG Data/Images/Anomaly/0.JPG
    Data/Masks/Anomaly/0.png
"""
VISA_TABLE = """object,split,label,image,mask
pcb1,train,normal,pcb1/Data/Images/Normal/2.JPG,
pcb1,train,normal,pcb1/Data/Images/Normal/0.JPG,
pcb1,test,normal,pcb1/Data/Images/Normal/1.JPG,
pcb1,test,anomaly,pcb1/Data/Images/Anomaly/0.JPG,pcb1/Data/Masks/Anomaly/0.png
pcb2,train,normal,pcb2/Data/Images/Normal/0.JPG,
"""


def _write_visa(root: Path, write_tree: WriteTree, table: str = VISA_TABLE) -> Path:
    (root / "split_csv").mkdir(parents=True)
    (root / "split_csv" / "1cls.csv").write_text(table)
    return write_tree(root / "pcb1", VISA)


def _told(dataset: Dataset, folder: Path) -> dict[str, list[tuple[str, list[str] | None]]]:
    """label → (image, masks) of the test samples, as paths below ``folder``."""
    told: dict[str, list[tuple[str, list[str] | None]]] = {}
    for sample in dataset.test:
        masks = None if sample.masks is None else [str(mask.relative_to(folder)) for mask in sample.masks]
        told.setdefault(sample.label, []).append((str(sample.path.relative_to(folder)), masks))
    return told


@pytest.mark.parametrize("layout", ["auto", "mvtec"])
def test_mvtec(tmp_path: Path, write_tree: WriteTree, layout: str) -> None:
    folder = write_tree(tmp_path / "screw", MVTEC)
    (folder / "train" / "good" / "._000.png").touch()
    (folder / "test" / ".thumbnails").mkdir()
    dataset = open_dataset(folder, layout)
    assert (dataset.name, dataset.layout, dataset.note) == ("screw", "mvtec", "")
    assert [sample.path.name for sample in dataset.train] == ["000.png", "001.png"]
    assert all(sample.is_good and sample.masks == () for sample in dataset.train)
    assert _told(dataset, folder) == {
        "bent": [("test/bent/000.png", ["ground_truth/bent/000_mask.bmp"])],
        "crack": [
            ("test/crack/000.png", ["ground_truth/crack/000_mask.png"]),
            ("test/crack/001.png", ["ground_truth/crack/001.png"]),
        ],
        "good": [("test/good/000.png", [])],
    }
    assert training_images(folder, layout) == tuple(sample.path for sample in dataset.train)


def test_mvtec_without_masks_says_that_none_are_known(tmp_path: Path, write_tree: WriteTree) -> None:
    folder = write_tree(tmp_path, "train/good/0.png test/good/0.png test/crack/0.png test/dent/0.png")
    assert [sample.masks for sample in open_dataset(folder).test] == [None, None, ()]
    write_tree(folder, "ground_truth/dent/0_mask.png")
    assert [sample.masks is None for sample in open_dataset(folder).test] == [True, False, False]
    write_tree(folder, "test/dent/1.png")
    with pytest.raises(DataError, match=r"test/dent/1\.png has no mask.*Expected 1_mask\.png"):
        open_dataset(folder)
    write_tree(folder, "ground_truth/dent/1_mask.png ground_truth/dent/1_mask.bmp")
    with pytest.raises(DataError, match=r"holds both 1_mask\.bmp and 1_mask\.png"):
        open_dataset(folder)


@pytest.mark.parametrize("layout", ["auto", "loco"])
def test_loco(tmp_path: Path, write_tree: WriteTree, layout: str) -> None:
    folder = write_tree(tmp_path / "pushpins", LOCO)
    dataset = open_dataset(folder, layout)
    assert (dataset.layout, dataset.note, dataset.saturation) == ("loco", "", {})
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [1, 1, 3]
    assert validation_images(folder, layout) == (folder / "validation/good/0.png",)
    truth = "ground_truth/logical_anomalies/7"
    assert _told(dataset, folder)["logical_anomalies"] == [
        ("test/logical_anomalies/7.png", [f"{truth}/000.png", f"{truth}/001.png"])
    ]
    write_tree(folder, "test/logical_anomalies/9.png")
    with pytest.raises(DataError, match=r"9\.png has no mask.*Expected 9/000\.png"):
        open_dataset(folder, layout)


@pytest.mark.parametrize("layout", ["auto", "cad_sd"])
def test_cad_sd(tmp_path: Path, write_tree: WriteTree, layout: str) -> None:
    folder = write_tree(tmp_path / "CAD-SD", CAD_SD)
    dataset = open_dataset(folder, layout)
    assert (dataset.name, dataset.layout) == ("CAD-SD", "cad_sd")
    labels = [sample.label for sample in dataset.test]
    assert labels == ["good", "scratch", "paint", "over-coupling", "lacking"]
    assert [sample.masks for sample in dataset.test] == [(), None, None, None, None]
    assert training_images(folder, layout) == (folder / "train" / "0_good" / "a.jpg",)
    write_tree(folder, "ground_truth/2_paint/d_mask.png")
    assert open_dataset(folder).test[2].masks == (folder / "ground_truth" / "2_paint" / "d_mask.png",)
    write_tree(folder, "train/1_good/a.jpg")
    with pytest.raises(DataError, match=r"one numbered good folder\. Got 0_good, 1_good"):
        training_images(folder)


@pytest.mark.parametrize("layout", ["auto", "btad"])
def test_btad(tmp_path: Path, write_tree: WriteTree, layout: str) -> None:
    folder = write_tree(tmp_path / "01", BTAD)
    dataset = open_dataset(folder, layout)
    assert (dataset.layout, len(dataset.train)) == ("btad", 1)
    assert _told(dataset, folder) == {
        "ko": [("test/ko/2.bmp", ["ground_truth/ko/2.png"]), ("test/ko/3.bmp", ["ground_truth/ko/3.bmp"])],
        "good": [("test/ok/1.bmp", [])],
    }


@pytest.mark.parametrize("layout", ["auto", "visa"])
def test_visa(tmp_path: Path, write_tree: WriteTree, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _write_visa(tmp_path, write_tree)
    dataset = open_dataset(folder, layout)
    assert (dataset.name, dataset.layout) == ("pcb1", "visa")
    assert [sample.path.name for sample in dataset.train] == ["0.JPG", "2.JPG"]
    assert _told(dataset, folder) == {
        "anomaly": [("Data/Images/Anomaly/0.JPG", ["Data/Masks/Anomaly/0.png"])],
        "good": [("Data/Images/Normal/1.JPG", [])],
    }
    assert [path.name for path in training_images(folder, layout)] == ["0.JPG", "2.JPG"]
    monkeypatch.chdir(folder)
    assert open_dataset(".", layout).name == "pcb1"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("object,split", "object,part", r"lacks the columns split\. It must have object, split"),
        ("pcb1,train", "pcb9,train", r"no training image of 'pcb1'\. It lists pcb1, pcb2, pcb9"),
        ("Normal/2.JPG", "Normal/5.JPG", r"lists pcb1/Data/Images/Normal/5\.JPG, which does not exist"),
        ("Anomaly/0.png", "Anomaly/5.png", r"lists the mask pcb1/Data/Masks/Anomaly/5\.png, which"),
        ("test,anomaly", "train,anomaly", r"puts the anomaly image .* into 'train'"),
        ("test,normal", "val,normal", r"puts the normal image .* into 'val'"),
    ],
)
def test_visa_tables_that_do_not_fit(tmp_path: Path, write_tree: WriteTree, old: str, new: str, message: str) -> None:
    folder = _write_visa(tmp_path, write_tree, VISA_TABLE.replace(old, new))
    with pytest.raises(DataError, match=message):
        open_dataset(folder)


def test_visa_without_its_table_says_where_it_comes_from(tmp_path: Path, write_tree: WriteTree) -> None:
    folder = write_tree(tmp_path / "pcb1", VISA)
    for entry in (open_dataset, training_images):
        with pytest.raises(DataError, match=r"split_csv/1cls\.csv is missing beside it.*spot-diff"):
            entry(folder)


def test_plain_folder_of_images(tmp_path: Path, write_tree: WriteTree) -> None:
    folder = write_tree(tmp_path / "parts", "b.png a.png rejects/c.png")
    dataset = open_dataset(folder)
    assert (dataset.name, dataset.layout, dataset.test) == ("parts", "plain", ())
    assert [sample.path.name for sample in dataset.train] == ["a.png", "b.png"]
    assert "no test images" in dataset.note
    assert "rejects were not read" in dataset.note
    assert [path.name for path in training_images(folder)] == ["a.png", "b.png"]


def test_plain_good_beside_defects_holds_every_fifth_out(tmp_path: Path, write_tree: WriteTree) -> None:
    names = " ".join(f"good/{number:02}.png" for number in range(11))
    folder = write_tree(tmp_path, f"{names} dent/x.png torn/y.png")
    for layout in ("auto", "plain"):
        dataset = open_dataset(folder, layout)
        good = [sample.path.stem for sample in dataset.test if sample.is_good]
        assert good == ["04", "09"]
        assert [sample.path.stem for sample in dataset.train] == [
            "00",
            "01",
            "02",
            "03",
            "05",
            "06",
            "07",
            "08",
            "10",
        ]
        assert [(s.label, s.masks) for s in dataset.test if not s.is_good] == [("dent", None), ("torn", None)]
        assert "every fifth good image (2 of 11) is held out" in dataset.note
        assert len(training_images(folder, layout)) == 11


@pytest.mark.parametrize("beside", ["ground_truth/dent/0.png", "masks/0.png", "0.png"])
def test_plain_good_beside_what_is_no_defect_is_refused(tmp_path: Path, write_tree: WriteTree, beside: str) -> None:
    folder = write_tree(tmp_path, f"good/0.png {beside}")
    for entry in (open_dataset, training_images):
        with pytest.raises(DataError, match="unclear what is good"):
            entry(folder)


def test_two_layouts_at_once_are_refused_unless_one_is_named(tmp_path: Path, write_tree: WriteTree) -> None:
    folder = write_tree(tmp_path, f"{MVTEC} train/ok/0.png")
    for entry in (open_dataset, training_images):
        with pytest.raises(DataError, match="fits several layouts: mvtec, btad"):
            entry(folder)
    assert open_dataset(folder, "mvtec").layout == "mvtec"
    beside = write_tree(tmp_path / "beside", f"{MVTEC} good/0.png")
    with pytest.raises(DataError, match="fits several layouts: mvtec, plain"):
        open_dataset(beside)


def test_a_stray_picture_beside_train_changes_nothing(tmp_path: Path, write_tree: WriteTree) -> None:
    folder = write_tree(tmp_path, f"{MVTEC} overview.png")
    assert open_dataset(folder).layout == "mvtec"
    assert len(training_images(folder)) == 2


def test_what_fits_nothing_is_shown_with_what_is_expected(tmp_path: Path, write_tree: WriteTree) -> None:
    folder = write_tree(tmp_path, "training/good/0/0.png other/0/0.png")
    for entry in (open_dataset, training_images):
        with pytest.raises(DataError) as caught:
            entry(folder / "other")
        assert "Got the sub-folders 0 and 0 images" in str(caught.value)
        assert all(f"{layout}: " in str(caught.value) for layout in LAYOUTS)


def test_a_root_of_categories_names_them(tmp_path: Path, write_tree: WriteTree) -> None:
    write_tree(tmp_path / "screw", MVTEC)
    with pytest.raises(DataError, match="no data set itself, but its sub-folders screw are"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("tree", "layout", "missing"),
    [
        ("test/good/0.png", "mvtec", "train is missing"),
        ("train/fine/0.png", "mvtec", "train/good is missing"),
        (LOCO, "mvtec", "without LOCO's kinds is missing"),
        (MVTEC, "loco", "test/logical_anomalies or .* is missing"),
        (MVTEC, "cad_sd", "train/0_good is missing"),
        (MVTEC, "visa", "Data/Images/Normal is missing"),
        (MVTEC, "btad", "train/ok is missing"),
        (MVTEC, "plain", "good/, or an image, is missing"),
        ("train/good/0.png", "mvtec", "test is missing or has no sub-folders"),
    ],
)
def test_a_named_layout_that_does_not_fit_says_what_is_missing(
    tmp_path: Path, write_tree: WriteTree, tree: str, layout: str, missing: str
) -> None:
    with pytest.raises(DataError, match=missing):
        open_dataset(write_tree(tmp_path, tree), layout)


def test_missing_folder_file_empty_folder_and_unknown_layout(tmp_path: Path, write_tree: WriteTree) -> None:
    folder = write_tree(tmp_path, "train/good/0.png test/good/0.png")
    for entry in (open_dataset, training_images, find_categories):
        with pytest.raises(DataError, match="does not exist"):
            entry(folder / "no")
        with pytest.raises(DataError, match="is a file, where"):
            entry(folder / "train" / "good" / "0.png")
        with pytest.raises(SettingsError, match=r"Got 'mvtecc'\. Did you mean 'mvtec'\?"):
            entry(folder, "mvtecc")
    (folder / "train" / "good" / "0.png").unlink()
    for entry in (open_dataset, training_images):
        with pytest.raises(DataError, match="train/good holds no image"):
            entry(folder)


def test_fit_needs_no_test_folder(tmp_path: Path, write_tree: WriteTree) -> None:
    folder = write_tree(tmp_path, "train/good/0.png")
    assert training_images(folder) == (folder / "train" / "good" / "0.png",)
    assert training_images(folder / "train" / "good") == (folder / "train" / "good" / "0.png",)
    assert training_images(folder / "train") == (folder / "train" / "good" / "0.png",)


def test_categories_of_a_root(tmp_path: Path, write_tree: WriteTree, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path / "screw", MVTEC)
    write_tree(tmp_path / "bolts", LOCO)
    write_tree(tmp_path / "mine", "good/0.png dent/0.png")
    write_tree(tmp_path / "pictures", "0.png")
    (tmp_path / "license.txt").touch()
    assert find_categories(tmp_path) == {name: tmp_path / name for name in ("bolts", "mine", "screw")}
    assert list(find_categories(tmp_path)) == ["bolts", "mine", "screw"]
    assert list(find_categories(tmp_path, "loco")) == ["bolts"]
    assert list(find_categories(tmp_path, "plain")) == ["mine", "pictures"]
    assert find_categories(tmp_path / "screw") == {"screw": tmp_path / "screw"}
    assert find_categories(tmp_path / "pictures") == {"pictures": tmp_path / "pictures"}
    monkeypatch.chdir(tmp_path / "screw")
    assert list(find_categories(".")) == ["screw"]


def test_the_test_folder_of_half_a_category_is_no_category(tmp_path: Path, write_tree: WriteTree) -> None:
    folder = write_tree(tmp_path, "test/good/0.png test/crack/0.png")
    with pytest.raises(DataError, match=r"holds no category\. Got the sub-folders test"):
        find_categories(folder)
    with pytest.raises(DataError, match="none of the known layouts"):
        open_dataset(folder)
