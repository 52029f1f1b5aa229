"""Archives as data sets come in: looked through first, unpacked only when nothing in them is odd.

An archive can hold names that climb out of the folder it is unpacked into, links, devices, or a
few bytes that become terabytes. One such member and the whole archive is refused, before the first
file is written.
"""

from __future__ import annotations

import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from gyri.cohort.table import listed
from gyri.errors import DataError

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TABLES = (".csv", ".tsv", ".xls", ".xlsx", ".json")
MAX_RATIO = 1000
RATIO_FROM_BYTES = 1 << 26
MAX_NAME = 255


@dataclass(frozen=True)
class Member:
    """One entry of an archive."""

    name: str
    kind: str
    """``"file"``, ``"folder"``, or what else it is."""
    size: int
    open: Callable[[], IO[bytes] | None]


@contextmanager
def opened(src: Path, work: Path | None = None) -> Iterator[Path]:
    """Give the folder of a data set: `src` itself, or what the archive `src` unpacks to.

    Parameters
    ----------
    src : folder, or a file that ends in one of `ENDINGS`.
    work : existing folder in which a temporary one is made; None takes the system's.

    Raises
    ------
    DataError
        No archive, or one with a member that must not be unpacked.
    """
    if not (src.is_file() and src.name.lower().endswith(ENDINGS)):
        yield src
        return
    with tempfile.TemporaryDirectory(prefix="gyri-unpacked-", dir=work) as folder:
        unpack(src, Path(folder))
        yield _top(Path(folder))


def _top(folder: Path) -> Path:
    """Return the data set's own folder: most archives wrap it in one more.

    A lone folder of nothing but images (``IXI-T1``) is part of a layout and stays.
    """
    inside = list(folder.iterdir())
    if len(inside) != 1 or not inside[0].is_dir():
        return folder
    wraps = any(path.is_dir() or path.suffix.lower() in TABLES for path in inside[0].iterdir())
    return inside[0] if wraps else folder


def unpack(archive: Path, out: Path) -> None:
    """Unpack a zip or tar archive into the folder `out`, or refuse it as a whole.

    Raises
    ------
    DataError
        It is damaged, holds a name that leads out of `out`, a link, a device, the same name
        twice, something encrypted, or more than can be true for its size.
    """
    try:
        if archive.name.lower().endswith(".zip"):
            with zipfile.ZipFile(archive) as file:
                _unpack(archive, _zipped(file), out)
        else:
            with tarfile.open(archive) as tar:
                _unpack(archive, _tarred(tar), out)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, RuntimeError) as error:
        raise DataError(f"{archive}: damaged ({error}). Copy or download it again.") from None


def _zipped(file: zipfile.ZipFile) -> list[Member]:
    return [
        Member(info.filename, _zip_kind(info), info.file_size, lambda info=info: file.open(info))  # type: ignore[misc]
        for info in file.infolist()
    ]


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if info.flag_bits & 1:
        return "encrypted"
    if stat.S_ISLNK(mode):
        return "a link"
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a device"
    return "folder" if info.is_dir() else "file"


def _tarred(tar: tarfile.TarFile) -> list[Member]:
    return [
        Member(info.name, _tar_kind(info), info.size, lambda info=info: tar.extractfile(info))  # type: ignore[misc]
        for info in tar.getmembers()
    ]


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "a link"
    if info.isdir():
        return "folder"
    return "file" if info.isreg() else "a device"


def _unpack(archive: Path, members: list[Member], out: Path) -> None:
    _refuse_odd(archive, members)
    for member in members:
        path = out / PurePosixPath(member.name)
        if member.kind == "folder":
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        source = member.open()
        if source is not None:
            with source, path.open("xb") as target:
                shutil.copyfileobj(source, target)


def _refuse_odd(archive: Path, members: list[Member]) -> None:
    """Raise `DataError` that lists every member that must not be unpacked."""
    odd = [f"{member.name[:80]!r} ({fault})" for member in members if (fault := _fault_of(member))]
    files = Counter(str(PurePosixPath(m.name)).casefold() for m in members if m.kind == "file")
    odd += [f"{name[:80]!r} (comes twice)" for name, count in files.items() if count > 1]
    if odd:
        raise DataError(
            f"{archive}: nothing was unpacked; {len(odd)} of its {len(members)} members must not "
            f"be: {listed(odd)}. Get the archive from where it is published."
        )
    size, packed = sum(member.size for member in members), archive.stat().st_size
    if size > max(MAX_RATIO * packed, RATIO_FROM_BYTES):
        raise DataError(
            f"{archive}: nothing was unpacked; its {packed} bytes declare {size}, too many to be "
            "true. Get the archive from where it is published."
        )


def _fault_of(member: Member) -> str:
    """Return why a member must not be unpacked, "" where it may."""
    name = member.name
    parts = PurePosixPath(name).parts
    if member.kind not in ("file", "folder"):
        return member.kind
    if name.startswith("/") or "\\" in name or name[1:2] == ":" or ".." in parts:
        return "leads out of the folder"
    if any(len(part) > MAX_NAME for part in parts) or (member.kind == "file" and not parts):
        return "no name of a file"
    return ""
