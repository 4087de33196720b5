"""How waiting threads wait: decided before torch is loaded, and never over the user's head."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from zeroconv import threads

NAMES = ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT")
SHOW = "import os; print([os.environ.get(name) for name in {names!r}])"


def environment_after(code: str, **given: str) -> list[str | None]:
    """Of a process that runs `code`."""
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    words = [sys.executable, "-c", f"{code}\n{SHOW.format(names=NAMES)}"]
    done = subprocess.run(words, env={**kept, **given}, capture_output=True, text=True, check=True)
    return eval(done.stdout)


@pytest.mark.parametrize(
    "code", ["import zeroconv", "import zeroconv.cli", "import zeroconv.files"]
)
def test_waiting_threads_do_not_spin_for_long_whatever_is_imported_first(code: str) -> None:
    assert environment_after(code) in (["PASSIVE", "0", None], [None, None, "10000"])


@pytest.mark.parametrize(
    ("running", "asleep"), [(0, False), (1, True), (4, True)], ids=["idle", "one", "four"]
)
def test_waiting_threads_sleep_at_once_beside_busy_processes(
    monkeypatch, running: int, asleep: bool
) -> None:
    monkeypatch.setattr(os, "environ", dict[str, str]())
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(threads, "_running", lambda: running)
    threads.set_waiting()
    values = [os.environ.get(name) for name in NAMES]
    assert values == (["PASSIVE", "0", None] if asleep else [None, None, "10000"])


def test_a_busy_process_is_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            seen = [threads.others_running() for _ in range(50)]
        finally:
            busy.kill()
    assert max(seen) >= 1


@pytest.mark.parametrize("name", NAMES)
def test_what_the_user_says_of_waiting_threads_stays(name: str) -> None:
    values = dict(zip(NAMES, environment_after("import zeroconv", **{name: "7"}), strict=True))
    assert values == {**dict.fromkeys(NAMES), name: "7"}


def test_nothing_is_set_where_torch_has_read_it_already() -> None:
    code = "import sys, types\nsys.modules['torch'] = types.ModuleType('torch')\nimport zeroconv"
    assert environment_after(code) == [None, None, None]


def test_importing_the_package_does_not_load_torch() -> None:
    code = "import sys, zeroconv, zeroconv.cli\nassert 'torch' not in sys.modules"
    environment_after(code)
