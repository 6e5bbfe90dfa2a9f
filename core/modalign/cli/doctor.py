"""`modalign doctor`: what is installed, what does not fit together, what fills the disk."""

from __future__ import annotations

import sys
from typing import Any

import click


@click.command("doctor")
@click.option("--clear-cache", is_flag=True, help="Empty the feature cache; it fills again by itself.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def command(clear_cache: bool, as_json: bool) -> None:
    """Check the installation, and the feature cache."""
    findings = _findings(clear_cache)
    if as_json:
        import json

        click.echo(json.dumps(findings, indent=2))
        return
    for name, value in findings.items():
        if name != "warnings":
            lines = value if isinstance(value, list) else [value]
            for line in lines or ["none"]:
                click.echo(f"{name:15} {_text(line)}")
                name = ""
    for warning in findings["warnings"]:
        click.echo(f"modalign: warning: {warning}", err=True)
    count = len(findings["warnings"])
    click.echo(f"modalign: {count or 'no'} problem{'' if count == 1 else 's'} found", err=True)


def _findings(clear_cache: bool) -> dict[str, Any]:
    import platform
    import shutil
    from pathlib import Path

    from modalign import __version__
    from modalign.plugin import loader, registry

    warnings: list[str] = []
    plugins = [
        {"distribution": p.distribution, "version": p.version, "problem": p.problem} for p in loader.plugins()
    ]
    warnings += [f"{p.distribution}: {p.problem}" for p in loader.plugins() if p.problem and not p.disabled]
    torch, torchaudio, mlflow = (_version(name) for name in ("torch", "torchaudio", "mlflow"))
    warnings += [f"{name} is not installed" for name, v in (("torch", torch), ("mlflow", mlflow)) if not v]
    pair = pair_problem(torch, torchaudio)
    if pair:
        warnings.append(pair)
    cuda, cuda_problem = _cuda() if torch else ("torch is not installed", None)
    if cuda_problem:
        warnings.append(cuda_problem)
    try:
        catalogue = f"{', '.join(map(str, registry.layers()))} ({len(registry.entries())} plugins)"
    except Exception as error:
        catalogue = "unreadable"
        warnings.append(str(error))
    cache, cache_problem = _cache(clear_cache)
    if cache_problem:
        warnings.append(cache_problem)
    return {
        "python": f"{platform.python_version()} ({sys.executable})",
        "modalign": __version__,
        "torch": torch,
        "torchaudio": torchaudio,
        "mlflow": mlflow,
        "cuda": cuda,
        "registry": catalogue,
        "plugins": plugins,
        **cache,
        "disk free": size(shutil.disk_usage(Path.cwd()).free),
        "warnings": warnings,
    }


def pair_problem(torch: str | None, torchaudio: str | None) -> str | None:
    """Why these two releases do not work together, or None: they are built in step."""
    if not torch or not torchaudio:
        return None
    (release, _, build), (audio, _, audio_build) = torch.partition("+"), torchaudio.partition("+")
    if release.split(".")[:2] != audio.split(".")[:2]:
        series = ".".join(release.split(".")[:2])
        return f"torch {torch} and torchaudio {torchaudio} differ. Run: pip install 'torchaudio=={series}.*'"
    if build != audio_build and "cpu" in (build, audio_build):
        return f"torch {torch} and torchaudio {torchaudio} are of different builds; take both from one place"
    return None


def size(count: float) -> str:
    """Bytes for people: ``1536`` -> ``"1.5 KiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _version(distribution: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cuda() -> tuple[str, str | None]:
    """What torch sees, and what went wrong when asked."""
    try:
        import torch

        if not torch.cuda.is_available():
            return "no", None
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return f"CUDA {torch.version.cuda}: {', '.join(devices)}", None
    except (Exception, SystemExit) as error:  # a torch that does not import is what doctor is for
        return "torch does not import", f"import torch raised {type(error).__name__}: {error}"


def _cache(clear: bool) -> tuple[dict[str, Any], str | None]:
    """Where the feature cache is and what it holds, emptied first if asked; and what went wrong."""
    try:
        from modalign.training import feature_cache

        freed = {"cache freed": size(feature_cache.clear_cache())} if clear else {}
        folder = str(feature_cache.cache_folder())
        return {"cache folder": folder, "cache": feature_cache.cache_report(), **freed}, None
    except (Exception, SystemExit) as error:  # it needs torch, which may be what is broken
        return {"cache": []}, f"the feature cache cannot be read: {type(error).__name__}: {error}"


def _text(line: Any) -> str:
    if isinstance(line, dict) and "distribution" in line:
        return f"{line['distribution']} {line['version']}  {line['problem'] or 'ok'}"
    if isinstance(line, dict):
        return f"{line['name']}: {line['entries']} entries, {size(line['bytes'])}"
    return "not installed" if line is None else str(line)
