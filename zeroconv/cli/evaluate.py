"""What `zeroconv evaluate` does: measure, write the report and its page, show it as a table."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zeroconv.cli.terminal.answers import to_json
from zeroconv.errors import UserError
from zeroconv.files import atomic_write, check_not_input, check_output, is_stdout, is_stream

if TYPE_CHECKING:
    from zeroconv.evaluation.fidelity import Shown


PROMPTS = ("empty", "insufficient", "conflicting", "own")  # of the paper's figure 8


def run(
    control: str,
    base: str,
    settings: dict[str, Any],
    out: Path | None,
    page: Path | None,
    files: Mapping[str, Any] | None = None,
    device: str = "auto",
    dtype: str = "float32",
) -> list[dict[str, Any]]:
    """Measure, show and write one report a prompt setting ("all": the paper's four).

    out: a JSON file, "-" for stdout, where no table is shown. page: an HTML file; with several
    settings their names go before its suffix. Both are tried before any work, and written after
    every setting. files: of the base, see `base_files`. Raises UserError.
    """
    from zeroconv.annotators.placing import reading_on
    from zeroconv.backbones import load_backbone
    from zeroconv.backbones.devices import dtype_name, pick_device, pick_dtype
    from zeroconv.control.naming import control_name, split_kind
    from zeroconv.evaluation import evaluate
    from zeroconv.generation.engines import check_engine

    check_engine(settings.get("engine", "torch"))
    files, asked = files or {}, settings.pop("prompts")
    wanted = PROMPTS if asked == "all" else (asked,)
    outputs = _outputs(out, page, wanted)
    _check_outputs(
        outputs.file,
        outputs.pages.values(),
        [split_kind(control)[0], base, *_files(files), *_inputs(settings)],
    )
    device = pick_device(device)
    numbers = pick_dtype(dtype, device)
    backbone = load_backbone(base, device=device, dtype=numbers, **files)
    name = control_name(control, base)
    reports = []
    for prompts in wanted:
        shown: list[Shown] = []
        with reading_on(device):
            report = evaluate(name, base=backbone, prompts=prompts, pictures=shown, **settings)
        report |= {"device": device, "dtype": dtype_name(numbers)}
        report |= {"base_files": dict(files)} if files else {}
        reports.append(report)

        # first to the screen: a file that fails must not take the figures with it
        if not outputs.printed:
            show(report)
        _write(reports, report, shown[0], outputs.file, outputs.pages[prompts])
    if outputs.dash:
        sys.stdout.write(_text(reports))
    elif outputs.file is not None and is_stream(outputs.file):  # takes what comes only once
        _put(outputs.file, _text(reports))
    return reports


@dataclass(frozen=True)
class Outputs:
    """Where reports go."""

    dash: bool  # the figures as JSON on stdout
    file: Path | None
    pages: dict[str, Path | None]  # by prompt setting
    printed: bool  # stdout takes one thing: the figures as JSON, a page, or the table


def _outputs(out: Path | None, page: Path | None, wanted: Sequence[str]) -> Outputs:
    dash = out is not None and str(out) == "-"
    file = None if dash else out
    pages = {name: _page_of(page, name, len(wanted)) for name in wanted}
    printed = dash or any(p is not None and is_stdout(p) for p in (file, *pages.values()))
    return Outputs(dash, file, pages, printed)


def _page_of(page: Path | None, prompts: str, count: int) -> Path | None:
    if page is None or count == 1:
        return page
    if is_stream(page):
        raise UserError(f"{page} takes one page, and there will be {count}; name a file.")
    return page.with_stem(f"{page.stem}-{prompts}")


def _files(files: Mapping[str, Any]) -> list[Any]:
    """What may be paths among a base's files."""
    vae = [files[name] for name in ("vae", "tiny_vae") if name in files]
    return [*files.get("lora", []), *vae, *files.get("parts", [])]


def _inputs(settings: dict[str, Any]) -> list[Any]:
    """What may be files among the settings."""
    return [settings.get(name) for name in ("data", "judge", "features", "clip")]


def _check_outputs(out: Path | None, pages: Iterable[Path | None], inputs: list[Any]) -> None:
    """Raise UserError where an output cannot be written, is an input, or is two outputs at once."""
    targets = [path for path in (out, *pages) if path is not None]
    for path in targets:
        check_not_input(path, inputs)
        check_output(path, "file", ours=True)
    places = {os.path.realpath(path) for path in targets if not is_stream(path)}
    if len(places) < sum(not is_stream(path) for path in targets):
        raise UserError(f"--json and --html both name {out}; give each a file of its own.")


def _write(
    reports: list[dict[str, Any]],
    report: dict[str, Any],
    shown: Shown,
    out: Path | None,
    page: Path | None,
) -> None:
    from zeroconv.evaluation.page import write_page

    if out is not None and not is_stream(out):
        _put(out, _text(reports))
    if page is not None:
        _put(page, write_page(report, shown))


def _put(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _text(reports: list[dict[str, Any]]) -> str:
    from zeroconv import __version__

    # by this sign the file is known as ours, and may be written again
    signed = [{"zeroconv": __version__, **report} for report in reports]
    return to_json(signed[0] if len(signed) == 1 else signed) + "\n"


def show(report: dict[str, Any]) -> None:
    """Print the report for a person: one line a metric, mean and 95% interval in every column."""
    from rich.console import Console
    from rich.table import Table

    names = list(report["n"])
    table = Table(
        report["prompts"],
        *(f"{name} (n={report['n'][name]})" for name in names),
        "lift (over shuffled)",
    )
    for metric, columns in report["metrics"].items():
        lift = report["lift"][metric].get("over shuffled")
        table.add_row(metric, *(_span(columns.get(name)) for name in names), _span(lift))
    for name, columns in {**report["pictures"], **report["caption"]}.items():
        if isinstance(columns, dict) and "mean" not in columns:
            table.add_row(name, *(_span(columns.get(column)) for column in names), "")
    Console().print(table)


def _span(value: dict[str, float | None] | None) -> str:
    if value is None or value["mean"] is None:
        return "–"
    low, high = value["low"], value["high"]
    return f"{value['mean']:.3f}" + (
        "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    )
