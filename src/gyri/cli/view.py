"""Look at a cohort or at samples in the browser, real beside the nearest synthetic."""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Command:
    """Open a viewer of three planes for any folder of volumes, on this machine only.

    Cases are filtered by their conditions; keys and wheel scroll, window and level.
    """

    folder: tyro.conf.Positional[Path]
    """Prepared cohort, folder made by gyri sample, or raw BIDS cohort."""
    beside: Path | None = None
    """Folder on the same grid; its nearest volume is shown beside each."""
    channel: str = ""
    """Channel that is shown; by default the first."""
    port: int = 8766
    """Port; 0 takes a free one."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than the loopback address lets other machines in."""
    name: tuple[str, ...] = ()
    """Names under which other machines reach the server, with --host."""

    def run(self) -> None:
        """Serve until interrupted."""
        from gyri.reading import serve

        serve.needs_server()
        serve.refuse_unnamed(self.host, self.name)
        from gyri.reading.folder import open_folder
        from gyri.reading.viewing import create_app

        folder = open_folder(self.folder, self.channel)
        beside = open_folder(self.beside, self.channel) if self.beside else None
        token = secrets.token_urlsafe(24)

        def ready(address: str) -> None:
            if not serve.is_loopback(self.host):
                print(serve.REMOTE, file=sys.stderr)
            print(f"{len(folder.table)} volumes of {folder.name}: {address}#{token}")
            print("Stop with Ctrl-C.", flush=True)

        serve.listen(
            lambda port: create_app(folder, beside, token, self.host, port, self.name),
            self.host,
            self.port,
            ready,
        )


def main(arguments: list[str]) -> None:
    """Parse and run."""
    tyro.cli(Command, prog="gyri view", args=arguments).run()
