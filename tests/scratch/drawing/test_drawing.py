"""Shards hold the playroom's own pictures as the embedded VAE sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zeroconv import playroom
from zeroconv.errors import UserError
from zeroconv.playroom import stickers
from zeroconv.scratch.corpus.shards import PIXELS, load_shard, save_shard, shard_names
from zeroconv.scratch.drawing.draw import draw
from zeroconv.scratch.drawing.encoding import encode, encode_shards
from zeroconv.scratch.drawing.jobs import Job, draw_stickers, jobs
from zeroconv.scratch.embedded import encoding_vae


def test_any_beginning_of_the_shards_is_a_fair_mixture() -> None:
    order = [job.kind for job in jobs(4_000, 3_000, 1_000)]

    assert order == ["scenes", "scenes", "stickers"] * 2 + ["stickers"]
    assert len({job.name for job in jobs(4_000, 3_000, 1_000)}) == 7


def test_drawn_scenes_are_the_train_split_at_both_sizes(tmp_path: Path) -> None:
    draw(tmp_path, tmp_path, scenes=6, drawings=0, shard=3)
    shard = load_shard(tmp_path, "scenes-train-001")
    seed = playroom.split_seeds("train", 1, start=4)[0]
    picture = playroom.render_image(seed)[0]
    small = np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BOX))

    for side, pixels in ((128, picture), (64, small)):
        x = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1
        expected = encoding_vae().encode(x).latent_dist.parameters[0].numpy()
        assert np.abs(shard.arrays[side][1] - expected).max() < 0.1
    assert set(playroom.all_captions(playroom.sample_scene(seed))) < set(shard.captions[1])


def test_a_shard_that_is_there_is_not_drawn_again(tmp_path: Path) -> None:
    draw(tmp_path, tmp_path, scenes=2, drawings=0, shard=2)
    before = (tmp_path / "scenes-train-000.json").stat().st_mtime_ns
    draw(tmp_path, tmp_path, scenes=4, drawings=0, shard=2)

    assert (tmp_path / "scenes-train-000.json").stat().st_mtime_ns == before
    assert shard_names(tmp_path) == ["scenes-train-000", "scenes-train-001"]


def test_a_shard_without_captions_does_not_count(tmp_path: Path) -> None:
    moments = {side: np.zeros((1, 16, side // 8, side // 8), np.float16) for side in (64, 128)}
    save_shard(tmp_path, "scenes-train-000", moments, [["x"]])
    (tmp_path / "scenes-train-000.json").unlink()

    assert shard_names(tmp_path) == []


def a_sticker(folder: Path, **facts) -> stickers.Sticker:
    """A red square on nothing."""
    rgba = np.zeros((96, 96, 4), np.uint8)
    rgba[20:70, 20:70] = (200, 0, 0, 255)
    Image.fromarray(rgba).save(folder / "square.png")
    facts_of = {
        "file_name": "square.png",
        "text": "a red square, noto style",
        "concept": "red-square",
        "name": "a red square",
        "style": "noto",
        "group": "objects",
        "subgroup": "tool",
        "source": "noto",
        "licence": "Apache-2.0",
        "split": "train",
        "folder": folder,
    }
    return stickers.Sticker(**{**facts_of, **facts})


def test_sticker_captions_name_the_sticker_and_one_ground(tmp_path: Path) -> None:
    pictures, captions = draw_stickers(Job("stickers", 0, 8), [a_sticker(tmp_path)], 64)

    assert pictures.shape == (8, 64, 64, 3)
    assert len({picture.tobytes() for picture in pictures}) == 8
    for variants in captions:
        grounds = {text.partition(", on ")[2] for text in variants} - {""}
        assert len(grounds) == 1 and len(variants) == len(set(variants))
        assert all(text.startswith("a red square") for text in variants)


def test_drawing_refuses_stickers_that_have_a_ground_already(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="background"):
        draw(tmp_path, stickers.sample_folder(), scenes=0, drawings=4)


def test_drawing_without_stickers_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sticker"):
        draw(tmp_path, tmp_path / "none", scenes=0, drawings=4)


def test_pictures_are_shrunk_by_area_before_the_vae() -> None:
    picture = np.zeros((1, 128, 128, 3), np.uint8)
    picture[:, ::2] = 200

    grey = np.full((1, 64, 64, 3), 100, np.uint8)
    assert (
        np.abs(encode(encoding_vae(), picture, 64) - encode(encoding_vae(), grey, 64)).max() < 0.05
    )


def test_shards_of_pictures_are_encoded_to_the_moments_of_drawing_them_so(tmp_path: Path) -> None:
    asked = {"scenes": 2, "drawings": 0, "shard": 2}
    draw(tmp_path / "moments", tmp_path, **asked)  # type: ignore[arg-type]
    draw(tmp_path / "pictures", tmp_path, pixels=True, **asked)  # type: ignore[arg-type]
    encode_shards(tmp_path / "pictures", tmp_path / "later", encoding_vae())

    name = "scenes-train-000"
    at_once, later = (load_shard(tmp_path / folder, name) for folder in ("moments", "later"))
    assert at_once.captions == later.captions
    assert all(np.array_equal(at_once.arrays[side], later.arrays[side]) for side in (64, 128))


def test_a_validation_split_is_drawn_from_other_seeds(tmp_path: Path) -> None:
    draw(tmp_path, tmp_path, scenes=2, drawings=0, shard=2, split="val", pixels=True)
    shard = load_shard(tmp_path, "scenes-val-000", [PIXELS])
    seed = playroom.split_seeds("val", 1)[0]

    assert shard_names(tmp_path) == [] and shard_names(tmp_path, "val") == ["scenes-val-000"]
    assert np.array_equal(shard.arrays[PIXELS][0], playroom.render_image(seed)[0])
