"""Running the server: its socket, uvicorn, and how it ends."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from zeroconv.errors import Interrupted, UserError
from zeroconv.serving.app import create_app
from zeroconv.serving.settings import ServerSettings
from zeroconv.serving.studio import Studio

MOST_CONNECTIONS = 500
SECONDS_TO_END = 5


def open_socket(host: str, port: int) -> socket.socket:
    """Listening. Raises UserError where another program has the port."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, proto)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(256)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"{host}:{port} cannot be listened at ({error}); give another --host or --port."
        ) from error
    return opened


def address_of(opened: socket.socket) -> str:
    """What a browser on this machine calls; of a socket that listens everywhere, loopback."""
    host, port = opened.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve_forever(
    settings: ServerSettings,
    *,
    page: bool,
    started: Callable[[str], None],
    note: Callable[[str], None],
) -> None:
    """Serve until SIGINT or SIGTERM. `started` hears the address. Raises UserError."""
    import uvicorn

    from zeroconv.serving.connections import Protocol

    opened = open_socket(settings.host, settings.port)
    try:
        app = create_app(settings, page=page)
        if app.state.studio.lost:
            count = app.state.studio.lost
            jobs = f"{count} jobs were" if count > 1 else "a job was"
            note(f"{jobs} not finished when the last server ended; the list of jobs says lost")
        server = _server(
            _config(uvicorn, app, Protocol), app.state.studio, lambda: started(address_of(opened))
        )
        try:
            server.run(sockets=[opened])
        except Interrupted:  # by SIGTERM or SIGHUP, which uvicorn sends again when it has ended
            pass
        except KeyboardInterrupt:
            pass
    finally:
        opened.close()


def _config(uvicorn: Any, app: Any, protocol: Any) -> Any:
    return uvicorn.Config(
        app,
        http=protocol,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=SECONDS_TO_END,
        proxy_headers=False,
        ws="none",
    )


def _server(config: Any, studio: Studio, started: Callable[[], None]) -> Any:
    """A uvicorn server that tells when it listens, and ends streams when it is to end."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets=sockets)
            if not self.should_exit:
                started()

        async def shutdown(self, sockets: Any = None) -> None:
            studio.end_streams()  # else it would wait for those who listen
            await super().shutdown(sockets=sockets)

    return Server(config)
