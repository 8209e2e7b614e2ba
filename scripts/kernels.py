#!/usr/bin/env python3
"""Builds the PTX of every kernel in kernels/*.cu, and says what each one needs.

    scripts/kernels.py [--check]

Writes kernels/ptx/ARCH/NAME.ptx for each architecture in ARCHITECTURES and kernels/ptx/built.fnv, the fingerprints of them
and of the sources that they were built from: by these a plain `cargo test` finds a forgotten rebuild or a changed file. With --check nothing is
written; the committed files must be what the sources compile to, byte for byte. Either way ptxas assembles every
kernel for each of CARDS and a table of registers and spills is printed; a spill, or more registers than MOST_REGISTERS,
is a failure.

NVRTC and ptxas come as wheels from PyPI, once, into the user's cache folder (XDG_CACHE_HOME or ~/.cache, then
trainyard/nvrtc-VERSION): 60 MB to download. No CUDA toolkit and no GPU is needed. Standard library only.
"""
import argparse
import ctypes
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# The version of NVRTC sets the version of PTX, and that is what a driver refuses: 12.0 writes PTX 8.0, which every driver
# from 525 takes. It also sets the bytes: another version fails --check.
NVRTC = "12.0.140"
PTXAS = "12.8.93"
ARCHITECTURES = ["compute_70", "compute_90"]  # the oldest that has what the kernels use, and Hopper
CARDS = {"compute_70": [70, 75, 80, 86, 89, 90, 100, 120], "compute_90": [90, 100]}
MOST_REGISTERS = 64  # then at least 1,024 threads are resident on a multiprocessor
ALONE = {"transfer_scan": 160}  # one warp on the whole device: it may take what it needs
KERNELS = Path(__file__).resolve().parent.parent / "kernels"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is committed instead of writing")
    args = parser.parse_args()
    packages = fetch()
    # NVRTC opens its built-in headers by name alone, so the folder has to be known before the process starts.
    libraries = str(packages / "cuda_nvrtc/lib")
    if libraries not in os.environ.get("LD_LIBRARY_PATH", "").split(":"):
        os.environ["LD_LIBRARY_PATH"] = ":".join(filter(None, [libraries, os.environ.get("LD_LIBRARY_PATH")]))
        os.execv(sys.executable, [sys.executable, *sys.argv])
    nvrtc = ctypes.CDLL(f"{libraries}/libnvrtc.so.12")
    stale, faults, built = [], [], {}
    for source in sorted(KERNELS.glob("*.cu")):
        for architecture in ARCHITECTURES:
            ptx = compile(nvrtc, source, architecture)
            name = f"ptx/{architecture}/{source.stem}.ptx"
            built[name] = ptx
            put(KERNELS / name, ptx, args.check, stale)
            for card in CARDS[architecture]:
                faults += assemble(packages / "cuda_nvcc/bin/ptxas", ptx, architecture, card)
    put(KERNELS / "ptx/built.fnv", fingerprints(built).encode(), args.check, stale)
    if stale:
        faults.append("not what the sources compile to: " + ", ".join(stale) + "; `make kernels` builds them")
    if faults:
        sys.exit("\n".join(faults))


def fetch():
    """Returns the folder of NVIDIA's packages, fetching them if they are not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainyard"
    folder = cache / f"nvrtc-{NVRTC}"
    if not (folder / "complete").exists():
        print("fetching NVRTC and ptxas (60 MB)", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        wanted = [f"nvidia-cuda-nvrtc-cu12=={NVRTC}", f"nvidia-cuda-nvcc-cu12=={PTXAS}"]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder)]
        subprocess.run(pip + wanted, check=True)
        (folder / "complete").touch()
    return folder / "nvidia"


def compile(nvrtc, source, architecture):
    """Returns the PTX of a source as bytes. They depend on the name given here, so it has no folder in it."""
    program = ctypes.c_void_p()
    code = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None)
    if code:
        sys.exit(f"{source}: NVRTC answers {code}")
    options = [f"--gpu-architecture={architecture}", "--std=c++17", f"--include-path={KERNELS}"]
    given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    failed = nvrtc.nvrtcCompileProgram(program, len(options), given)
    log = take(nvrtc, program, "ProgramLog").decode().strip("\n\0")
    if log:
        print(log, file=sys.stderr)
    if failed:
        sys.exit(f"{source} does not compile for {architecture}")
    return take(nvrtc, program, "PTX").rstrip(b"\0")


def take(nvrtc, program, what):
    """Returns one of the texts that NVRTC keeps for a program."""
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, text)
    return text.raw


def put(path, content, check, stale):
    """Writes a file, or notes it as stale where it should have had that content."""
    if path.exists() and path.read_bytes() == content:
        return
    if check:
        stale.append(str(path.relative_to(KERNELS.parent)))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def assemble(ptxas, ptx, architecture, card):
    """Prints what each kernel needs on a card; returns what is too much."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "in.ptx").write_bytes(ptx)
        command = [str(ptxas), "-v", f"-arch=sm_{card}", f"{folder}/in.ptx", "-o", f"{folder}/out.cubin"]
        ptxas.chmod(0o755)  # wheels do not keep the mode
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return [f"sm_{card}: {done.stderr}"]
    faults = []
    pattern = r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers"
    for name, stores, loads, registers in re.findall(pattern, done.stderr, re.DOTALL):
        print(f"{architecture} sm_{card:<4} {name:<24} {registers:>3} registers, {stores} + {loads} bytes spilled")
        if int(stores) + int(loads) > 0 or int(registers) > ALONE.get(name, MOST_REGISTERS):
            faults.append(f"{name} needs too much on sm_{card}: {registers} registers, {stores} + {loads} bytes spilled")
    return faults


def fingerprints(built):
    """Returns a line for each source, headers included, and for each file built: 64-bit FNV-1a, then the name."""
    sources = {source.name: source.read_bytes() for source in [*KERNELS.glob("*.cu"), *KERNELS.glob("*.cuh")]}
    lines = []
    for name, content in sorted(sources.items()) + sorted(built.items()):
        state = 0xCBF29CE484222325
        for byte in content:
            state = (state ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
        lines.append(f"{state:016x}  {name}\n")
    return "".join(lines)


if __name__ == "__main__":
    main()
