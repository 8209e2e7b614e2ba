#!/usr/bin/env python3
"""Prints the folder of libtorch 2.11.0, fetching it once if it is not there.

    scripts/libtorch.py [--kind auto|cpu|cuda] [--offline]

An existing LIBTORCH is respected. Otherwise libtorch is taken from the `torch` wheel by pip into the user's cache folder
(XDG_CACHE_HOME or ~/.cache, then trainyard/libtorch-2.11.0-KIND-MACHINE): the CPU part alone (0.5 GB to download, the
same on disk) where there is no NVIDIA driver, the whole wheel (about 2.5 GB to download, 4.7 GB on disk) where there is
one. Progress goes to stderr, so that the folder can be caught: LIBTORCH=$(python3 scripts/libtorch.py).

A folder appears under its final name only when it is complete, and two callers at once fetch one copy.
Standard library only.
"""
import argparse
import ctypes
import fcntl
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "2.11.0"  # what tch 0.24 is made for; its build refuses any other
# libtorch_cpu.so of the wheel is linked with these two, also where no GPU is used.
CPU_PACKAGES = ["nvidia-cuda-cupti==13.0.*", "nvidia-cuda-runtime==13.0.*"]
CPU_LIBRARIES = ["libtorch_cpu.so", "libc10.so", "libgomp.so.1"]
NEEDED = {"cpu": 5, "cuda": 12}  # free disk, GiB: wheels, unpacked wheels, and the result side by side


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["auto", "cpu", "cuda"], default="auto", help="which part (default: by driver)")
    parser.add_argument("--offline", action="store_true", help="fail rather than fetch")
    args = parser.parse_args()

    given = os.environ.get("LIBTORCH")
    if given:
        check_given(Path(given))
        print(given)
        return
    kind = args.kind if args.kind != "auto" else ("cuda" if has_driver() else "cpu")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainyard"
    folder = cache / f"libtorch-{VERSION}-{kind}-{platform.machine()}"
    if not folder.is_dir():
        if args.offline:
            fail(f"{folder} is not there, and --offline forbids to fetch it")
        with lock(cache, folder.name):
            if not folder.is_dir():  # another caller may have fetched it while this one waited
                fetch(folder, kind)
    print(folder)


def check_given(folder):
    """Refuses a LIBTORCH that would only fail minutes later, in the middle of a build."""
    if not any((folder / "lib" / name).exists() for name in ["libtorch_cpu.so", "libtorch_cpu.dylib"]):
        fail(f"LIBTORCH={folder} holds no lib/libtorch_cpu.so: set it to a libtorch {VERSION}, or unset it to have one fetched")
    version = folder / "build-version"
    if version.exists() and version.read_text().strip().split("+")[0] != VERSION:
        fail(f"LIBTORCH={folder} is version {version.read_text().strip()}, but {VERSION} is needed: unset it to have one fetched")


def has_driver():
    """Whether there is an NVIDIA driver: its library can be loaded, on whatever path the machine keeps it."""
    try:
        ctypes.CDLL("libcuda.so.1")
        return True
    except OSError:
        return False


def lock(cache, name):
    """Returns a lock that lasts until its file is closed, also by a crash."""
    cache.mkdir(parents=True, exist_ok=True)
    handle = open(cache / f".{name}.lock", "w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another process is fetching libtorch; waiting for it")
        fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def fetch(folder, kind):
    """Makes the folder under another name and renames it when it is complete."""
    if sys.platform != "linux":
        fail(f"libtorch is fetched on Linux only: set LIBTORCH to a libtorch {VERSION}")
    free = shutil.disk_usage(folder.parent).free >> 30
    if free < NEEDED[kind]:
        fail(f"{free} GiB are free in {folder.parent}, but {NEEDED[kind]} are needed: set XDG_CACHE_HOME, or set LIBTORCH")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a caller that was interrupted: the lock is ours
    what = "its CPU part: there is no NVIDIA driver" if kind == "cpu" else "with CUDA"
    say(f"fetching libtorch {VERSION} ({what}) into {folder}; this happens once")
    packages = install(partial, kind)
    if kind == "cpu":
        lay_cpu_part(partial, packages)
    else:
        # libtorch_cuda.so finds cuBLAS, cuDNN and NCCL by its own path beside it, so the wheel stays as it is.
        kept = partial / "packages"
        packages.rename(kept)
        (partial / "lib").symlink_to("packages/torch/lib")
        (partial / "include").symlink_to("packages/torch/include")
    (partial / "build-version").write_text(VERSION + "\n")
    shutil.rmtree(partial / "venv")
    partial.rename(folder)
    say("libtorch is ready")


def install(partial, kind):
    """Installs the wheels into a virtual environment of their own; returns the folder of the packages."""
    venv = partial / "venv"
    made = subprocess.run([sys.executable, "-m", "venv", venv], stdout=sys.stderr)
    if made.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        fail("python3 -m venv failed: install it (on Debian and Ubuntu: apt-get install python3-venv), or set LIBTORCH")
    wheels = ["--no-deps", *CPU_PACKAGES] if kind == "cpu" else []
    pip = [venv / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir"]
    done = subprocess.run([*pip, f"torch=={VERSION}", *wheels], stdout=sys.stderr)
    if done.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        fail(f"pip could not fetch torch {VERSION}: is this machine offline? Fetch it elsewhere and set LIBTORCH to its folder")
    return next((venv / "lib").glob("python3*")) / "site-packages"


def lay_cpu_part(partial, packages):
    """Moves what the CPU needs out of the wheels; the rest goes with them."""
    lib = partial / "lib"
    lib.mkdir()
    for name in CPU_LIBRARIES:
        (packages / "torch" / "lib" / name).rename(lib / name)
    for library in (packages / "nvidia").glob("*/lib/*.so*"):
        if library.name.startswith(("libcudart", "libcupti")):
            library.rename(lib / library.name)
    # The linker is asked for `torch`, which in the wheel needs CUDA; a linker script stands in for it.
    (lib / "libtorch.so").write_text("INPUT(libtorch_cpu.so)\n")
    (packages / "torch" / "include").rename(partial / "include")


def say(text):
    print(f"libtorch: {text}", file=sys.stderr, flush=True)


def fail(text):
    say(text)
    sys.exit(1)


if __name__ == "__main__":
    main()
