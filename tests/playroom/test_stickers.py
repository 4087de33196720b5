"""The sticker art: offline, on the sample in the package and on a tiny hand-made folder of npm
packages.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.sticker_packages import write, write_packages
from zeroconv.errors import UserError
from zeroconv.playroom import stickers
from zeroconv.playroom.sticker_captions import noun_phrase, with_article
from zeroconv.playroom.sticker_compose import BACKGROUND_COLOURS, Background, colour
from zeroconv.playroom.sticker_records import family


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    return write_packages(tmp_path / "packages")


def build(out: Path, packages: Path, **kwargs) -> stickers.BuildSummary:
    options = {
        "sources": ["noto", "twemoji"],
        "size": 32,
        "packages": packages,
        "workers": 1,
    } | kwargs
    return stickers.build_stickers(out, **options)


def test_build_drops_flags_skin_tones_hidden_and_twins(tmp_path: Path, packages: Path) -> None:
    summary = build(tmp_path / "out", packages)
    records = stickers.load_stickers(tmp_path / "out")
    assert {(r.source, r.concept) for r in records} == {
        (s, c) for s in ("noto", "twemoji") for c in ("red-apple", "minus", "waving-hand")
    }
    assert (summary.pictures, summary.rendered, summary.failed) == (6, 6, [])
    assert summary.by_source == {"noto": 3, "twemoji": 3}
    assert sorted(p.stem for p in (tmp_path / "out" / "images" / "noto").iterdir()) == [
        "minus",
        "red-apple",
        "waving-hand",
    ]


def test_pictures_are_tight_centred_rgba(tmp_path: Path, packages: Path) -> None:
    build(tmp_path / "out", packages)
    apple = next(r for r in stickers.load_stickers(tmp_path / "out") if r.concept == "red-apple")
    assert apple.image().mode == "RGBA"
    rgba = apple.rgba()
    assert rgba.shape == (32, 32, 4)
    alpha = rgba[..., 3]
    assert alpha[0, 0] == 0
    assert alpha[16, 16] == 255
    ys, xs = np.nonzero(alpha > 127)
    # drawn at (10, 9) with radius 6 of 32: cropped, it fills the frame but for the margin,
    # and stands in its middle
    assert min(np.ptp(xs), np.ptp(ys)) >= 28
    assert abs((xs.min() + xs.max()) / 2 - 15.5) <= 1
    assert abs((ys.min() + ys.max()) / 2 - 15.5) <= 1
    assert (rgba[16, 16, :3] == (255, 0, 0)).all()


def test_card_and_licences(tmp_path: Path, packages: Path) -> None:
    build(tmp_path / "out", packages)
    card = (tmp_path / "out" / "README.md").read_text()
    for word in (
        "Apache-2.0",
        "CC-BY-4.0",
        "noto 9.9.9",
        "github.com/jdecked/twemoji",
        "Twitter, Inc.",
    ):
        assert word in card
    licences = tmp_path / "out" / "licences"
    assert "TERMS AND CONDITIONS FOR USE" in (licences / "noto.txt").read_text()
    assert "creativecommons.org/licenses/by/4.0" in (licences / "twemoji.txt").read_text()
    assert (licences / "unicode-emoji-json.txt").read_text() == "MIT, of the names"


def test_second_run_touches_nothing(tmp_path: Path, packages: Path) -> None:
    out = tmp_path / "out"
    build(out, packages)
    files = [p for p in out.rglob("*") if p.is_file()]
    for path in files:
        os.utime(path, ns=(10**18, 10**18))
    assert build(out, packages).rendered == 0
    assert {p: p.stat().st_mtime_ns for p in files} == dict.fromkeys(files, 10**18)
    assert sorted(p for p in out.rglob("*") if p.is_file()) == sorted(files)

    lost = out / "images" / "noto" / "minus.png"
    lost.unlink()
    assert build(out, packages).rendered == 1
    assert lost.is_file()


def test_parallel_equals_serial(
    tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[int, int]] = []
    build(tmp_path / "one", packages)
    monkeypatch.setattr(stickers, "_JOBS_A_WORKER", 1)
    build(
        tmp_path / "two",
        packages,
        workers=2,
        progress=lambda done, total: heard.append((done, total)),
    )
    assert heard[-1] == (6, 6)
    for path in (tmp_path / "one" / "images").rglob("*.png"):
        assert (
            path.read_bytes()
            == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
        )


def test_limit_keeps_the_same_concepts_in_every_source(tmp_path: Path, packages: Path) -> None:
    build(tmp_path / "out", packages, limit=2)
    records = stickers.load_stickers(tmp_path / "out")
    kept = {
        source: {r.concept for r in records if r.source == source} for source in ("noto", "twemoji")
    }
    assert kept["noto"] == kept["twemoji"]
    assert len(kept["noto"]) == 2


def test_a_drawing_that_cannot_be_drawn_is_reported(tmp_path: Path, packages: Path) -> None:
    path = packages / "node_modules" / "@iconify-json" / "noto" / "icons.json"
    data = json.loads(path.read_text())
    data["icons"]["minus"]["body"] = "<path d="
    data["icons"]["waving-hand"]["body"] = "<g/>"
    write(path, data)
    summary = build(tmp_path / "out", packages)
    assert sorted(summary.failed) == ["noto/minus", "noto/waving-hand"]
    assert summary.pictures == 4


def test_aliases_are_drawn_mirrored(tmp_path: Path, packages: Path) -> None:
    path = packages / "node_modules" / "@iconify-json" / "noto" / "icons.json"
    data = json.loads(path.read_text())
    wedge = '<path fill="#080" d="M2 2L30 16L2 30z"/>'
    data["icons"]["minus"]["body"] = wedge
    del data["icons"]["waving-hand"]
    data["aliases"] = {"waving-hand": {"parent": "minus", "hFlip": True}}
    write(path, data)
    build(tmp_path / "out", packages, sources=["noto"])
    alpha = {
        r.concept: r.rgba()[..., 3].astype(int) for r in stickers.load_stickers(tmp_path / "out")
    }
    assert np.abs(alpha["waving-hand"] - alpha["minus"][:, ::-1]).max() <= 2
    assert np.abs(alpha["waving-hand"] - alpha["minus"]).max() > 200


def break_json(modules: Path) -> None:
    (modules / "@iconify-json" / "noto" / "icons.json").write_text('{"icons": ')


def break_layout(modules: Path) -> None:
    write(modules / "@iconify-json" / "noto" / "icons.json", {"icons": ["minus"]})


def break_names(modules: Path) -> None:
    write(modules / "unicode-emoji-json" / "data-by-emoji.json", {"x": 3})


def lose_icons(modules: Path) -> None:
    (modules / "@iconify-json" / "noto" / "icons.json").unlink()


def lose_package(modules: Path) -> None:
    (modules / "@iconify-json" / "noto" / "package.json").unlink()


@pytest.mark.parametrize(
    "damage", [break_json, break_layout, break_names, lose_icons, lose_package]
)
def test_broken_packages_are_a_user_error(tmp_path: Path, packages: Path, damage) -> None:
    damage(packages / "node_modules")
    with pytest.raises(UserError, match=r"icons\.json|data-by-emoji\.json|@iconify-json/noto"):
        build(tmp_path / "out", packages)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sources": ["emojione"]}, "unknown sticker source 'emojione'"),
        ({"sources": []}, "no sticker source"),
        ({"size": 4}, "size is 4"),
        ({"limit": 0}, "limit is 0"),
    ],
)
def test_wrong_options_are_a_user_error(
    tmp_path: Path, packages: Path, options: dict, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        build(tmp_path / "out", packages, **options)


def test_one_folder_holds_one_size_and_one_version(tmp_path: Path, packages: Path) -> None:
    build(tmp_path / "out", packages)
    with pytest.raises(UserError, match="32 pixels, not 64"):
        build(tmp_path / "out", packages, size=64)
    write(
        packages / "node_modules" / "@iconify-json" / "noto" / "package.json", {"version": "10.0.0"}
    )
    with pytest.raises(UserError, match=r"noto 9\.9\.9, the packages have 10\.0\.0"):
        build(tmp_path / "out", packages)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        build(tmp_path / "file", packages)


def test_npm_missing_or_failing_is_a_user_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UserError, match="npm is not installed"):
        stickers.build_stickers(tmp_path / "out")
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho 'npm error network getaddrinfo' >&2\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(UserError, match="npm error network getaddrinfo"):
        stickers.build_stickers(tmp_path / "out")


def test_split_is_by_concept_and_stable(tmp_path: Path, packages: Path) -> None:
    build(tmp_path / "out", packages)
    for record in stickers.load_stickers(tmp_path / "out"):
        assert record.split == stickers.split_of(record.concept)
    # frozen: a change of the hash would put test pictures of shipped weights into train
    frozen = {
        "red-apple": "train",
        "lemon": "test",
        "lion": "test",
        "tiger": "val",
        "light-bulb": "val",
    }
    assert {concept: stickers.split_of(concept) for concept in frozen} == frozen
    shares = [stickers.split_of(f"concept-{n}") for n in range(4000)]
    assert 0.88 < shares.count("train") / 4000 < 0.92
    assert 0.04 < shares.count("test") / 4000 < 0.06


def test_look_alikes_share_a_split() -> None:
    assert (
        family("woman-firefighter")
        == family("man-firefighter")
        == family("firefighter")
        == "firefighter"
    )
    assert family("man-walking-facing-right") == family("person-walking")
    assert family("two-thirty") == family("ten-o-clock")
    assert family("woman") == "woman"
    assert family("red-apple") != family("green-apple")


@pytest.mark.parametrize(
    ("label", "subgroup", "phrase"),
    [
        ("red apple", "food-fruit", "a red apple"),
        ("orange heart", "heart", "an orange heart"),
        ("unicorn", "animal-mammal", "a unicorn"),
        ("hourglass not done", "time", "a running hourglass"),
        ("OK hand", "hand-fingers-partial", "an ok hand"),
        ("grapes", "food-fruit", "grapes"),
        ("glasses", "clothing", "glasses"),
        ("cactus", "plant-other", "a cactus"),
        ("men wrestling", "person-sport", "men wrestling"),
        ("person lifting weights", "person-sport", "a person lifting weights"),
        ("face with tears of joy", "face-smiling", "a face with tears of joy"),
        ("face with open mouth", "face-concerned", "a face with an open mouth"),
        ("man: red hair", "person", "a man with red hair"),
        ("woman: bald", "person", "a bald woman"),
        ("family: man, woman, girl, girl", "family", "a family of a man, a woman and two girls"),
        ("kiss: man, man", "family", "a kiss between two men"),
        ("person walking: facing right", "person-activity", "a person walking, facing right"),
        ("twelve o’clock", "time", "a clock at twelve o'clock"),
        ("Aries", "zodiac", "the aries zodiac sign"),
        ("Japanese “here” button", "alphanum", 'a japanese "here" button'),
        ("piñata", "game", "a pinata"),
        ("keycap: 5", "keycap", "a keycap with the number 5"),
        ("no smoking", "warning", "a no smoking sign"),
        ("bread", "food-prepared", "bread"),
    ],
)
def test_noun_phrases(label: str, subgroup: str, phrase: str) -> None:
    assert noun_phrase(label, subgroup) == phrase


def test_captions_name_the_thing_and_the_style(tmp_path: Path, packages: Path) -> None:
    assert with_article("one-piece swimsuit") == "a one-piece swimsuit"
    build(tmp_path / "out", packages)
    for record in stickers.load_stickers(tmp_path / "out"):
        assert record.name in record.text
        assert f"{record.source} style" in record.text
        assert record.text == record.text.lower()
    plain = stickers.load_stickers(tmp_path / "out")[0]
    assert stickers.compose_caption(plain) == plain.text
    assert stickers.compose_caption(plain, "orange") == f"{plain.text}, on an orange background"
    two = Background("red and blue", (255, 0, 0), (0, 0, 255))
    assert stickers.compose_caption(plain, two).endswith(", on a red and blue background")


def disc(size: int = 128, hidden: int = 0) -> np.ndarray:
    """An anti-aliased red disc; the colour of its transparent pixels, `hidden`, must never be
    seen.
    """
    y, x = np.mgrid[:size, :size] + 0.5 - size / 2
    alpha = np.clip(size * 0.48 - np.hypot(x, y) + 0.5, 0, 1)
    rgba = np.full((size, size, 4), hidden, np.uint8)
    rgba[alpha > 0, :3] = (255, 0, 0)
    rgba[..., 3] = np.rint(255 * alpha)
    return rgba


BLUE = Background("blue", (0.0, 0.0, 255.0), (0.0, 0.0, 255.0))


@pytest.mark.parametrize("hidden", [0, 255])
@pytest.mark.parametrize("size", [64, 128, 256])
def test_composition_has_no_fringes(hidden: int, size: int) -> None:
    for seed in range(5):
        picture = stickers.compose_sticker(
            disc(hidden=hidden), np.random.default_rng(seed), size, BLUE
        )
        assert picture.shape == (size, size, 3)
        assert picture.dtype == np.uint8
        # every pixel is a mixture of red and blue: red + blue = 255, no green, so none is
        # darker or lighter than both
        red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
        assert green.max() == 0
        assert np.abs(red + blue - 255).max() <= 2
        assert red.max() == 255


def test_composition_is_deterministic_placed_inside_and_scaled() -> None:
    sides = []
    for seed in range(60):
        picture = stickers.compose_sticker(disc(), np.random.default_rng(seed), 100, BLUE)
        assert (
            picture == stickers.compose_sticker(disc(), np.random.default_rng(seed), 100, BLUE)
        ).all()
        _, xs = np.nonzero(picture[..., 0] > 127)
        sides.append((np.ptp(xs) + 1) / 0.96)
    assert 43 <= min(sides) < 55
    assert 85 < max(sides) <= 97
    one, two = (
        stickers.compose_sticker(disc(), np.random.default_rng(seed), 100) for seed in (1, 2)
    )
    assert (one != two).any()


def test_mirroring_happens_only_where_asked() -> None:
    half = disc()
    half[:, 64:, 3] = 0
    seen = {False: set(), True: set()}
    for mirror, sides in seen.items():
        for seed in range(20):
            picture = stickers.compose_sticker(
                half, np.random.default_rng(seed), 64, BLUE, mirror, scale=(1.0, 1.0)
            )
            sides.add("left" if picture[32, 16, 0] > 127 else "right")
    assert seen == {False: {"left"}, True: {"left", "right"}}


def test_what_may_be_mirrored() -> None:
    records = {r.concept: r for r in stickers.load_stickers(stickers.sample_folder())}
    assert stickers.mirrorable(records["horse"])
    assert stickers.mirrorable(records["lemon"])
    for concept in (
        "eleven-o-clock",
        "magnifying-glass-tilted-left",
        "zzz",
        "yen-banknote",
        "rightwards-hand",
    ):
        assert not stickers.mirrorable(records[concept])


def test_backgrounds_have_the_colour_they_are_named_after() -> None:
    centres = {
        "red": (200, 10, 10),
        "orange": (250, 140, 30),
        "yellow": (250, 235, 60),
        "green": (60, 190, 70),
        "cyan": (60, 240, 240),
        "blue": (50, 80, 220),
        "purple": (125, 50, 180),
        "pink": (250, 150, 200),
        "white": (250, 250, 250),
        "black": (10, 10, 10),
        "grey": (135, 135, 135),
    }
    assert set(centres) == set(BACKGROUND_COLOURS)
    rng = np.random.default_rng(0)
    right = 0
    for _ in range(50):
        for name in centres:
            shade = np.array(colour(name, rng))
            assert shade.min() >= 0
            assert shade.max() <= 255
            nearest = min(centres, key=lambda n: float(np.linalg.norm(shade - centres[n])))
            right += nearest == name
    # dark and pastel shades are nearer to black or white in RGB
    assert right / (50 * len(centres)) > 0.75
    names = {stickers.sample_background(rng).name for _ in range(400)}
    assert set(centres) <= names
    assert any(" and " in name for name in names)
    assert {stickers.sample_background(rng, "green").name for _ in range(50)} == {"green"}


def test_sample_is_a_valid_training_folder() -> None:
    folder = stickers.sample_folder()
    records = stickers.load_stickers(folder)
    assert len(records) == 150
    assert {r.licence for r in records} == {"MIT", "Apache-2.0"}
    assert len(stickers.load_stickers(folder, "train")) == 90
    assert len(stickers.load_stickers(folder, "test")) == 60
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) <= 2_000_000
    assert {p.name for p in (folder / "images").iterdir()} == {r.path.name for r in records}
    for record in records:
        assert record.split == stickers.split_of(record.concept)
        with Image.open(record.path) as picture:
            assert (picture.mode, picture.size) == ("RGB", (128, 128))
        assert record.text.endswith(
            f"on {'an' if record.background == 'orange' else 'a'} {record.background} background"
        )
    for source in {r.source for r in records}:
        assert (folder / "licences" / f"{source}.txt").stat().st_size > 1000


def test_sample_gives_its_alpha_back() -> None:
    for record in stickers.load_stickers(stickers.sample_folder())[::10]:
        rgba = record.rgba()
        alpha = rgba[..., 3:].astype(float) / 255
        assert alpha[0, 0] == 0
        assert alpha.max() == 1
        again = rgba[..., :3] * alpha + np.array(record.background_rgb) * (1 - alpha)
        assert np.abs(again - np.asarray(record.image(), float)).max() <= 1.0


def test_sample_cannot_be_made_of_too_few(tmp_path: Path, packages: Path) -> None:
    build(tmp_path / "out", packages)
    with pytest.raises(UserError, match="too few"):
        stickers.build_sample(tmp_path / "sample", tmp_path / "out")


def test_loading_what_is_no_sticker_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no metadata\.jsonl"):
        stickers.load_stickers(tmp_path)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png"}\n')
    with pytest.raises(UserError, match="line 1"):
        stickers.load_stickers(tmp_path)
    with pytest.raises(UserError, match="unknown split 'dev'"):
        stickers.load_stickers(stickers.sample_folder(), "dev")


def test_a_lost_picture_is_a_user_error(tmp_path: Path, packages: Path) -> None:
    build(tmp_path / "out", packages)
    record = stickers.load_stickers(tmp_path / "out")[0]
    record.path.unlink()
    with pytest.raises(UserError, match="cannot read the sticker"):
        record.rgba()
