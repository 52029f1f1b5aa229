"""Let readers tell real from synthetic in the browser; draw, serve and analyse such a study."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from gyri.errors import UsageError, nearest

USAGE = """usage: gyri read new STUDY.yaml [--out FOLDER]   draw cases, encode, check for cues, seal
       gyri read serve FOLDER                     the readers' page on this machine
       gyri read analyse FOLDER                   results.csv, answers.csv, results.html
       gyri read plan [--margin 0.1 ...]          how many trials an equivalence needs"""


@dataclass(frozen=True)
class New:
    """Draw matched cases, encode them alike, check for cues and seal order and truth."""

    study: tyro.conf.Positional[Path]
    """YAML file: name, cohort, synthetic, readers, and what is not to be as usual."""
    out: Path | None = None
    """New folder; by default the study's name beside its file."""
    allow_cues: bool = False
    """Make the study although the cue check fails, as a pilot; its pages and results say CUES."""

    def run(self) -> None:
        """Make the study."""
        from gyri.reading.new import new_study
        from gyri.reading.study import load_study
        from gyri.runtime.progress import progress_bar

        study = load_study(self.study)
        out = self.out or self.study.resolve().parent / study.name
        with progress_bar("read new", None) as advance:
            made = new_study(
                study,
                out,
                allow_cues=self.allow_cues,
                progress=lambda what, done, of: advance(completed=done, total=of, note=what),
            )
        matched = ", ".join(f"{column} {rule}" for column, rule in made.matched.items())
        print(f"matched on {matched or 'nothing'}")
        for folder, check in made.cues.items():
            print(f"{made.num_pairs[folder]} pairs with {folder}")
            print(f"cue check {'passed' if check.passed else 'FAILED'}: {check.sentence()}")
        print(f"{out}: links in readers.txt; complete preregistration.md and consent.md, then")
        print(f"gyri read serve {out}")


@dataclass(frozen=True)
class Serve:
    """Open a study's page for its readers, by default for this machine only."""

    folder: tyro.conf.Positional[Path]
    """Folder made by gyri read new."""
    port: int = 8765
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
        from gyri.reading.new import LINKS
        from gyri.reading.server import create_app

        def ready(address: str) -> None:
            if not serve.is_loopback(self.host):
                print(serve.REMOTE, file=sys.stderr)
            base = f"http://{self.name[0]}:{address.rsplit(':', 1)[1]}" if self.name else address
            for line in (self.folder / LINKS).read_text(encoding="utf-8").splitlines():
                reader, token = line.split("\t")
                print(f"{reader}: {base}#{token}")
            print("Stop with Ctrl-C; readers go on later where they were.", flush=True)

        serve.listen(
            lambda port: create_app(self.folder, self.host, port, self.name),
            self.host,
            self.port,
            ready,
        )


@dataclass(frozen=True)
class Analyse:
    """Analyse a study's answers; says at once if the sealed file was tampered with."""

    folder: tyro.conf.Positional[Path]
    """Folder made by gyri read new, read or being read."""
    out: Path | None = None
    """Folder of the results; by default FOLDER/results."""

    def run(self) -> None:
        """Write the results."""
        from gyri.reading.analysis import analyse, summary
        from gyri.reading.results import write_results

        sheet = analyse(self.folder)
        print("\n".join(summary(sheet)))
        for path in write_results(self.folder, sheet, self.out or self.folder / "results"):
            print(path)


@dataclass(frozen=True)
class Plan:
    """Say how many trials are needed to show that readers cannot tell."""

    margin: float = 0.1
    """How far from 50 % an accuracy may be to count as guessing."""
    power: float = 0.8
    """Probability of showing it, if readers guess."""
    icc: float = 0.0
    """Intraclass correlation of the answers of one reader, or to one case."""
    readers: int = 4
    """Readers who share the trials."""
    trials: int | None = None
    """Trials a reader, to learn what they can show."""

    def run(self) -> None:
        """Print the numbers."""
        from gyri.reading.equivalence import plan_lines

        print("\n".join(plan_lines(self.margin, self.power, self.icc, self.readers, self.trials)))


def main(arguments: list[str]) -> None:
    """Dispatch to new, serve, analyse and plan."""
    verbs = {"new": New, "serve": Serve, "analyse": Analyse, "plan": Plan}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
    elif arguments[0] in verbs:
        verb = arguments[0]
        tyro.cli(verbs[verb], prog=f"gyri read {verb}", args=arguments[1:]).run()
    else:
        raise UsageError(
            f"There is no `gyri read {arguments[0]}`.{nearest(arguments[0], verbs)}\n{USAGE}"
        )
