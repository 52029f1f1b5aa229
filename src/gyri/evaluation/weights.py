"""Weights of pretrained networks: files that the user gives, checked, converted and kept.

gyri downloads nothing. A file is added once: its SHA-256 must be the known one, it is read in a
process of its own (``unpickle.py``), its tensors must be exactly those of the
architecture, and they are kept as safetensors with a manifest. Every later use checks the hash
again. There is no fallback: what is missing or wrong is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gyri.errors import DataError, GyriError, UnavailableError, UsageError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

FOLDER = "GYRI_WEIGHTS"
"""Environment variable that names the folder of weights."""
SCHEMA = 1
TENSORS, MANIFEST = "weights.safetensors", "manifest.json"
LARGEST_BYTES = 2**30
"""The largest published file has a third of it."""
TIMEOUT_S = 300
READER = Path(__file__).with_name("unpickle.py")
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
"""All that the reader's process inherits."""
COUNTER = "num_batches_tracked"
"""Batch normalisation's count of training batches: in some files, and of no use here."""


@dataclass(frozen=True)
class Published:
    """A published file of weights.

    Parameters
    ----------
    file, origin : its name and where it is found.
    licence : under which it is given.
    build : returns the network without weights.
    sha256_prefix : the leading digits that its publisher states; empty if none are stated.
    heads : prefixes of tensors that the features do not need.
    """

    file: str
    origin: str
    licence: str
    build: Callable[[], nn.Module]
    sha256_prefix: str = ""
    heads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What is known of weights that were added.

    Parameters
    ----------
    source_sha256 : of the file that was given.
    sha256 : of the tensors that are kept.
    added : day, ISO 8601.
    """

    name: str
    source: str
    source_sha256: str
    sha256: str
    licence: str
    added: str
    schema: int = SCHEMA


def _inception() -> nn.Module:
    from gyri.evaluation.extractors.inception import InceptionV3

    return InceptionV3()


def _medicalnet_50() -> nn.Module:
    from gyri.evaluation.extractors.medicalnet import medicalnet

    return medicalnet(50)


def _medicalnet_101() -> nn.Module:
    from gyri.evaluation.extractors.medicalnet import medicalnet

    return medicalnet(101)


def _radimagenet() -> nn.Module:
    from gyri.evaluation.extractors.radimagenet import RadImageNet

    return RadImageNet()


MEDICALNET = "MIT (github.com/Tencent/MedicalNet)"
PUBLISHED: dict[str, Published] = {
    "inception-tf": Published(
        file="weights-inception-2015-12-05-6726825d.pth",
        origin="https://github.com/toshas/torch-fidelity/releases/tag/v0.2.0",
        licence="Apache-2.0 (TensorFlow models, converted by torch-fidelity)",
        build=_inception,
        sha256_prefix="6726825d",
        heads=("fc.",),
    ),
    "medicalnet-50": Published(
        file="resnet_50.pth",
        origin="https://huggingface.co/TencentMedicalNet/MedicalNet-Resnet50",
        licence=MEDICALNET,
        build=_medicalnet_50,
    ),
    "medicalnet-50-23datasets": Published(
        file="resnet_50_23dataset.pth",
        origin="https://huggingface.co/TencentMedicalNet/MedicalNet-Resnet50",
        licence=MEDICALNET,
        build=_medicalnet_50,
    ),
    "medicalnet-101": Published(
        file="resnet_101.pth",
        origin="https://huggingface.co/TencentMedicalNet/MedicalNet-Resnet101",
        licence=MEDICALNET,
        build=_medicalnet_101,
    ),
    "radimagenet-resnet50": Published(
        file="RadImageNet-ResNet50_notop.pth",
        origin="https://huggingface.co/MONAI/checkpoints",
        licence="MIT (github.com/BMEII-AI/RadImageNet); CC BY 4.0 (RSNA model card)",
        build=_radimagenet,
    ),
}


def published(name: str) -> Published:
    """Return the file of that name; raises `UsageError` naming the nearest right one."""
    if name not in PUBLISHED:
        raise UsageError(
            f"There are no weights {name!r}.{nearest(name, PUBLISHED)} "
            f"Known: {', '.join(PUBLISHED)}."
        )
    return PUBLISHED[name]


def root() -> Path:
    """Return the folder of weights: ``$GYRI_WEIGHTS``, else the user's cache folder."""
    if os.environ.get(FOLDER):
        return Path(os.environ[FOLDER])
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "gyri" / "weights"


def add(name: str, file: Path, sha256: str | None = None) -> Manifest:
    """Check a file of weights, convert it and keep it.

    Parameters
    ----------
    name : of the weights, see `PUBLISHED`.
    file : the file as it was published.
    sha256 : its hash, 64 hexadecimal digits; needed where its publisher states none.

    Raises
    ------
    UsageError
        If there are no such weights, or a hash is needed; the message says which one was found.
    DataError
        If the file is another one than the hash says, or holds anything but the network's finite
        tensors.
    """
    known = published(name)
    digest = _checked_hash(name, Path(file), sha256)
    folder = root() / name
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".adding-") as temporary:
        raw = Path(temporary) / "raw.safetensors"
        _convert(Path(file), raw)
        tensors = _verified(known, raw.read_bytes(), str(file))
        kept = Path(temporary) / TENSORS
        _write(tensors, kept)
        manifest = Manifest(
            name=name,
            source=Path(file).name,
            source_sha256=digest,
            sha256=hashlib.sha256(kept.read_bytes()).hexdigest(),
            licence=known.licence,
            added=date.today().isoformat(),
        )
        note = Path(temporary) / MANIFEST
        note.write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
        kept.replace(folder / TENSORS)
        note.replace(folder / MANIFEST)
    return manifest


def _checked_hash(name: str, file: Path, stated: str | None) -> str:
    """Return the file's SHA-256 if it is the one that is known, stated or pinned."""
    if not file.is_file():
        raise DataError(f"{file} is no file. {_where(name)}")
    if file.stat().st_size > LARGEST_BYTES:
        raise DataError(
            f"{file} has {file.stat().st_size / 2**30:.1f} GiB; no file of weights has more than "
            f"{LARGEST_BYTES / 2**30:.0f}. {_where(name)}"
        )
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if stated is not None and not re.fullmatch("[0-9a-fA-F]{64}", stated):
        raise UsageError(f"--sha256 is {stated!r}; expected 64 hexadecimal digits.")
    prefix = PUBLISHED[name].sha256_prefix
    for said, start in (("published", prefix), ("stated", (stated or "").lower())):
        if not digest.startswith(start):
            raise DataError(
                f"{file} has SHA-256 {digest}; the {said} one is {start}{'…' * (len(start) < 64)}. "
                f"It is another file, or was damaged on its way. {_where(name)}"
            )
    manifest = read_manifest(name)
    if manifest and manifest.source_sha256 != digest:
        raise DataError(
            f"{name} is pinned to a file with SHA-256 {manifest.source_sha256} (added "
            f"{manifest.added}); this one has {digest}. Results with both could not be compared. "
            f"To replace it, delete {root() / name}."
        )
    if not (prefix or stated or manifest):
        raise UsageError(
            f"Nobody publishes a hash of {PUBLISHED[name].file}. This file's SHA-256 is {digest}. "
            f"If you trust where it came from: gyri weights add {name} {file} --sha256 {digest}"
        )
    return digest


def read_pickled(source: Path) -> dict[str, Tensor]:
    """Return the tensors of a pickled file by name, read in a process of its own.

    Raises
    ------
    DataError
        If it holds anything but tensors.
    """
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory(prefix="gyri-") as temporary:
        raw = Path(temporary) / "raw.safetensors"
        _convert(source, raw)
        return dict(load_file(raw))


def _convert(source: Path, target: Path) -> None:
    """Let another process turn the pickled `source` into safetensors."""
    if sys.platform == "win32":
        raise UnavailableError(
            "Weights are read under resource limits, which Windows lacks. Add them under Linux, "
            f"macOS or WSL, and copy the folder that ${FOLDER} names."
        )
    command = [sys.executable, "-I", "-B", str(READER), str(source.resolve()), str(target)]
    quiet = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    quiet |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(
            command, env=quiet, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{source} was not read within {TIMEOUT_S} s; nothing was kept.") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"its reader was stopped, exit {done.returncode}"
        raise DataError(
            f"{source} cannot be read as plain tensors ({reason}). Nothing in it was run and "
            "nothing was kept."
        )


def _verified(known: Published, content: bytes, where: str) -> dict[str, Tensor]:
    """Return the network's own tensors as float32; refuse all others, wrong shapes and NaN."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(content)
    except SafetensorError as error:
        raise DataError(f"{where} is no valid safetensors file: {error}.") from error
    found = {
        key: tensor
        for key, tensor in found.items()
        if not key.startswith(known.heads) and not key.endswith(COUNTER)
    }
    with torch.device("meta"):
        state = known.build().state_dict()
    expected = {k: tuple(v.shape) for k, v in state.items() if not k.endswith(COUNTER)}
    faults = [*_differences(expected, {k: tuple(v.shape) for k, v in found.items()})]
    for key, tensor in found.items():
        if not tensor.is_floating_point():
            faults.append(f"{key} is {tensor.dtype}, not floating point")
        elif not bool(torch.isfinite(tensor).all()):
            faults.append(f"{key} holds NaN or infinity")
    if faults:
        more = f" and {len(faults) - 5} more faults" if len(faults) > 5 else ""
        raise DataError(
            f"{where} does not hold the network of {known.file}: {'; '.join(faults[:5])}{more}. "
            f"Get that file from {known.origin}."
        )
    return {key: tensor.float() for key, tensor in found.items()}


def _differences(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> list[str]:
    faults = [f"{key} is missing" for key in expected if key not in found]
    faults += [f"{key} is unknown" for key in found if key not in expected]
    faults += [
        f"{key} has shape {found[key]}, expected {shape}"
        for key, shape in expected.items()
        if key in found and found[key] != shape
    ]
    return faults


def _write(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(dict(tensors), path)


def read_manifest(name: str) -> Manifest | None:
    """Return what is known of weights that were added; None if they were not.

    Raises
    ------
    DataError
        If the manifest is damaged or of a newer schema.
    """
    path = root() / name / MANIFEST
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        manifest = Manifest(**content)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Delete {path.parent} and add {name} again."
        ) from error
    if manifest.schema != SCHEMA:
        raise DataError(
            f"{path} has schema {manifest.schema}, this gyri reads {SCHEMA}. Delete "
            f"{path.parent} and add {name} again."
        )
    return manifest


def load(name: str) -> nn.Module:
    """Return the network with its weights, in evaluation mode and without gradients.

    Raises
    ------
    UnavailableError
        If the weights were not added.
    DataError
        If what is kept is not what was added.
    """
    import torch

    known = published(name)
    manifest = read_manifest(name)
    path = root() / name / TENSORS
    if manifest is None or not path.is_file():
        raise UnavailableError(f"The weights {name} are not there. {_where(name)}")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != manifest.sha256:
        raise DataError(
            f"{path} has SHA-256 {digest}, its manifest says {manifest.sha256}: it was changed "
            f"after it was added. Delete {path.parent} and add {name} again."
        )
    tensors = _verified(known, content, str(path))
    with torch.device("meta"):
        network = known.build()
    network.to_empty(device="cpu")
    counters = {k: torch.tensor(0) for k in network.state_dict() if k.endswith(COUNTER)}
    network.load_state_dict(tensors | counters)
    return network.eval().requires_grad_(False)


def problem(name: str) -> str | None:
    """Say why the weights cannot be used; None if they can."""
    try:
        load(name)
    except GyriError as error:
        return str(error)
    return None


def _where(name: str) -> str:
    known = PUBLISHED[name]
    extra = "" if known.sha256_prefix else " --sha256 HASH"
    return f"Get {known.file} from {known.origin}, then: gyri weights add {name} FILE{extra}"
