"""Every command ends as it should in a process of its own, where modules are postponed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import commands, make_inputs

# a child of one process a command: torch is imported once
DRIVER = """
import json, os, sys
from zeroconv.cli import main
from zeroconv.postponed import postpone
postpone()
import torch
for name, words in json.load(open(sys.argv[1])).items():
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        os.dup2(os.open(f"{sys.argv[2]}/{name.replace('/', '-')}.txt", os.O_CREAT | os.O_RDWR), 1)
        os.dup2(1, 2)
        sys.argv = ["zeroconv", *words]
        code = 1
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sep="\\t")
"""


@pytest.mark.slow
def test_every_command_works_with_postponed_modules(models: Path, tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path / "inputs")
    given = commands(models, inputs)
    out = {name: tmp_path / f"out{i}{one.suffix}" for i, (name, one) in enumerate(given.items())}
    words = {name: command.filled(out[name]) for name, command in given.items()}
    words["info of memory"] = ["info", "playroom", "--memory"]
    words["info of many controls"] = ["info", "playroom", "--memory", "--controls", "2"]
    (tmp_path / "words.json").write_text(json.dumps(words))
    (tmp_path / "logs").mkdir()
    driver = [sys.executable, "-c", DRIVER, str(tmp_path / "words.json"), str(tmp_path / "logs")]
    printed = subprocess.run(driver, capture_output=True, text=True, check=True).stdout
    codes = dict(line.split("\t") for line in printed.splitlines())
    assert set(codes) == set(words)
    for name, code in codes.items():
        expected = given[name].code if name in given else 0
        log = (tmp_path / "logs" / f"{name.replace('/', '-')}.txt").read_text()
        assert int(code) == expected, (name, log[-3000:])
