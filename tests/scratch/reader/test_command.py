"""`python -m zeroconv.scratch.reader`: a second reader, and how it reads beside the judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from zeroconv.errors import UserError
from zeroconv.evaluation.reader import ASSET, open_reader
from zeroconv.scratch.reader.__main__ import main


def test_the_second_reader_never_replaces_the_judge(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the judge's file"):
        main([str(tmp_path), "--out", str(ASSET)])


@pytest.mark.slow
def test_a_second_reader_is_trained_and_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "second.safetensors"
    sizes = "--scenes 4 --steps 1 --batch 2 --width 8 --count 4".split()
    main([str(tmp_path / "run"), "--out", str(out), *sizes])
    assert open_reader(out).stem.out_channels == 8
    printed = capsys.readouterr().out
    for name in ("depth delta1", "normal angle", "segmentation miou", "pose pck"):
        assert f"{name}: " in printed
    assert "(the judge 0.9" in printed
