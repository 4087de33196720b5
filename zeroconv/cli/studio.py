"""The commands `studio` and `serve`: the server with its page, and without it."""

from __future__ import annotations

import threading
import webbrowser
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from zeroconv.cli.bases import base_files, with_tiny_vae
from zeroconv.cli.options import (
    Device,
    Dtype,
    Engine,
    Fast,
    Lora,
    Parts,
    Revision,
    Subfolder,
    TinyVae,
    Vae,
    Variant,
)
from zeroconv.cli.terminal.streams import echo_error
from zeroconv.errors import UserError

Host = Annotated[
    str, Option(help="The address to listen at; another than 127.0.0.1 needs --token.")
]
Port = Annotated[int, Option(min=0, max=65535, help="0: one that is free.")]
Base = Annotated[str, Option(help="The frozen model to begin with: playroom, a folder, a file.")]
Bases = Annotated[list[str] | None, Option(help="A further base to choose. May be repeated.")]
Controls = Annotated[
    list[str] | None,
    Option(help="A control to choose beside the embedded ones: a folder, a file. May be repeated."),
]
LoraDirs = Annotated[
    list[Path] | None, Option(help="A folder of LoRAs to choose from. May be repeated.")
]
Datasets = Annotated[
    list[Path] | None, Option(help="A folder of data sets to choose from. May be repeated.")
]
Data = Annotated[Path, Option(help="The folder of the history, pictures and runs.")]
Token = Annotated[
    str | None,
    Option(envvar="ZEROCONV_TOKEN", help="A secret that every client must know."),
]
Hosts = Annotated[
    list[str] | None, Option(help="A further name by which browsers call it. May be repeated.")
]
Training = Annotated[bool, Option(help="Whether the server trains.")]
Memory = Annotated[
    int | None, Option(min=1, max=2**20, help="Most MiB of loaded models; half the machine's.")
]


def studio(
    host: Host = "127.0.0.1",
    port: Port = 7860,
    base: Base = "playroom",
    vae: Vae = None,
    tiny_vae: TinyVae = None,
    parts: Parts = None,
    revision: Revision = None,
    variant: Variant = None,
    subfolder: Subfolder = None,
    lora: Lora = None,
    more_base: Bases = None,
    control: Controls = None,
    lora_dir: LoraDirs = None,
    datasets: Datasets = None,
    data: Data = Path("studio"),
    token: Token = None,
    allow_host: Hosts = None,
    training: Training = True,
    memory: Memory = None,
    fast: Fast = "off",
    engine: Engine = "torch",
    device: Device = "auto",
    dtype: Dtype = "auto",
    browser: Annotated[bool, Option(help="Whether to open the page in the browser.")] = True,
) -> None:
    """Start the studio: a page to draw, generate, train and measure in the browser, and its HTTP
    interface.
    """
    files = base_files(vae, revision, variant, subfolder, lora, parts)
    files = with_tiny_vae(files, tiny_vae, None)
    run(
        page=True, browser=browser, host=host, port=port, base=base, bases=more_base,
        controls=control, loras=lora_dir, datasets=datasets, data=data, token=token,
        hosts=allow_host, allow_training=training, memory=memory, fast=fast, engine=engine,
        device=device, dtype=dtype, files=files,
    )  # fmt: skip


def serve(
    host: Host = "127.0.0.1",
    port: Port = 7860,
    base: Base = "playroom",
    vae: Vae = None,
    tiny_vae: TinyVae = None,
    parts: Parts = None,
    revision: Revision = None,
    variant: Variant = None,
    subfolder: Subfolder = None,
    lora: Lora = None,
    more_base: Bases = None,
    control: Controls = None,
    lora_dir: LoraDirs = None,
    datasets: Datasets = None,
    data: Data = Path("studio"),
    token: Token = None,
    allow_host: Hosts = None,
    training: Training = True,
    memory: Memory = None,
    fast: Fast = "off",
    engine: Engine = "torch",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Start the HTTP interface without the page: ours below /api/v1, and A1111's."""
    files = base_files(vae, revision, variant, subfolder, lora, parts)
    files = with_tiny_vae(files, tiny_vae, None)
    run(
        page=False, browser=False, host=host, port=port, base=base, bases=more_base,
        controls=control, loras=lora_dir, datasets=datasets, data=data, token=token,
        hosts=allow_host, allow_training=training, memory=memory, fast=fast, engine=engine,
        device=device, dtype=dtype, files=files,
    )  # fmt: skip


def run(page: bool, browser: bool, memory: int | None, **options: Any) -> None:
    """Serve until a signal comes. Raises UserError."""
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(
            "the server needs fastapi and uvicorn: install them with pip install 'zeroconv[studio]'"
        ) from error
    from zeroconv.files import shown
    from zeroconv.serving.generation import fast_words
    from zeroconv.serving.running import serve_forever
    from zeroconv.serving.settings import ServerSettings

    options["fast"] = fast_words(options["fast"])
    if options["engine"] != "torch":  # torch's part of the package takes seconds to import
        from zeroconv.generation.engines import check_engine

        check_engine(options["engine"])
    for name in ("bases", "controls", "loras", "datasets", "hosts"):
        options[name] = tuple(options[name] or ())
    settings = ServerSettings(memory=None if memory is None else memory << 20, **options)

    def started(address: str) -> None:
        echo_error(f"pictures and runs are kept in {shown(settings.data.resolve())}")
        echo_error(f"zeroconv listens at {address} (Ctrl-C stops it)")
        if browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    serve_forever(settings, page=page, started=started, note=echo_error)
