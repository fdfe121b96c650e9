"""Builds fastpool._C: the CPU kernels always, the CUDA kernels when FASTPOOL_CUDA asks for them."""

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup

try:
    import torch
    from torch.utils import cpp_extension
except ModuleNotFoundError as error:  # what is packed without compiling needs none
    if error.name != "torch":
        raise
    torch = cpp_extension = None

ROOT = Path(__file__).parent
# Contraction would change the bits of sums between processors.
NVCC = ["-std=c++20", "-O3", "-fmad=false", "--expt-relaxed-constexpr"]


def find_cuda_home() -> Path | None:
    """The toolkit folder: nvcc on PATH may be a wrapper that lies outside it."""
    nvcc = shutil.which("nvcc")
    named = [
        os.environ.get("CUDA_HOME"),
        os.environ.get("CUDA_PATH"),
        nvcc and Path(nvcc).resolve().parents[1],
        "/usr/local/cuda",
    ]
    return next(
        (Path(home) for home in named if home and Path(home, "bin", "nvcc").exists() and find_runtime(Path(home))), None
    )


def find_runtime(cuda_home: Path) -> Path | None:
    """The folder of the static runtime, which lets one binary load under a torch with or without CUDA."""
    folders = [cuda_home / "lib64", cuda_home / "lib", *cuda_home.glob("targets/*/lib")]
    return next((folder for folder in folders if (folder / "libcudart_static.a").exists()), None)


def wants_cuda(cuda_home: Path | None) -> bool:
    choice = os.environ.get("FASTPOOL_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        raise ValueError(f"FASTPOOL_CUDA is {choice!r}; allowed: auto, 0, 1")
    if choice == "1" and cuda_home is None:
        raise RuntimeError("FASTPOOL_CUDA=1 needs nvcc on PATH or CUDA_HOME set to a CUDA toolkit")
    return choice == "1" or (choice == "auto" and cuda_home is not None and torch.version.cuda is not None)


def flag(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


def accepts(*flags: str) -> bool:
    """Whether the compiler knows these flags."""
    compiler = cpp_extension.get_cxx_compiler().split()
    if not shutil.which(compiler[0]):
        return False  # the build itself says so
    command = [*compiler, *flags, "-x", "c++", "-E", os.devnull]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def sources(folder: str, suffix: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc" / folder).glob(suffix))


def generated(name: str, text: str) -> str:
    """A source in build/kernels, written only where it changed."""
    file = ROOT / "build" / "kernels" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
    return str(file.relative_to(ROOT))


def digest(*folders: str) -> str:
    """Of every source, or of those in some folders of csrc. A module whose build_info() has the same is up to date."""
    roots = [ROOT / "csrc" / folder for folder in folders or ("",)]
    files = [ROOT / "setup.py", *sorted(file for root in roots for file in root.rglob("*") if file.is_file())]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def reducers() -> list[Path]:
    """The files that say at their end which kernels and operators there are."""
    files = sorted((ROOT / "csrc" / "reducers").glob("*.h"))
    return [file for file in files if "\nFASTPOOL_FORWARD" in file.read_text()]


def written(name: str, first: str, defines: str, files: list[Path], last: str = "") -> str:
    includes = "".join(f'#include "{include}"\n' for include in (first, *(f"reducers/{file.name}" for file in files)))
    return generated(name, defines + includes + last)


def kernels() -> list[str]:
    """For every reducer its kernels for every capability, the same code in another width, and its exact path."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    capabilities = {"baseline": 16, "avx2": 32, "avx512": 64} if x86 else {"baseline": 16}
    end = "#if defined(FASTPOOL_TARGET) && defined(__clang__)\n#pragma clang attribute pop\n#endif\n"
    files = []
    for name, width in capabilities.items():
        defines = f"#define FASTPOOL_CAPABILITY {name}\n#define FASTPOOL_VECTOR_BYTES {width}\n"
        each = [(file.stem, [file], end) for file in reducers()]
        each.append(("correlate", [], f'#include "cpu/kernels/correlate.h"\n{end}'))
        for stem, included, last in each:
            files.append(written(f"{stem}_{name}.cpp", "cpu/kernels/instantiate.h", defines, included, last))
    return [*files, written("exact.cpp", "cpu/exact.h", "", reducers())]


def cuda_sources(suffix: str = ".cu", defines: str = "") -> list[str]:
    # Where torch is one for CPUs its ninja follows no headers of CUDA sources, which so change with them.
    defines = defines or f"// of headers {digest('core', 'cuda', 'reducers', 'schedules')}\n"
    each = [written(f"{file.stem}{suffix}", "cuda/launch.cuh", defines, [file]) for file in reducers()]
    for name in ("correlate", "lookup"):
        each.append(generated(f"{name}{suffix}", f'{defines}#include "cuda/{name}.cuh"\n'))
    return each


def emulations() -> list[str]:
    """The CUDA sources once more, to run on the CPU: for tests. Optimisation would take a minute longer."""
    if not flag("FASTPOOL_EMULATION"):
        return []
    defines = '#pragma GCC optimize("O0")\n#define FASTPOOL_EMULATED\n'
    return ["csrc/cuda/emulate.cpp", *cuda_sources("_emulated.cpp", defines)]


def version() -> str:
    return re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]


def jobs() -> int:
    # Ninja's own choice, two more than there are processors, takes a tenth longer.
    return int(os.environ.setdefault("MAX_JOBS", str(os.cpu_count())))


def extension():
    if torch is None or torch.__version__ < (2, 11):
        found = "there is none here" if torch is None else f"here is {torch.__version__}"
        sys.exit(f"fastpool is compiled against torch 2.11 or newer, {found}: `pip install --upgrade torch` first")
    import pybind11  # nor this

    debug = flag("DEBUG")
    jobs()
    macros = [("TORCH_TARGET_VERSION", "0x020b000000000000")]
    macros += [("FASTPOOL_CHECKED", None)] if flag("FASTPOOL_EMULATION") else []
    # Contraction would change the bits of sums between processors; trapping maths only blocks vector code. Kernels are
    # written in vectors: -O2 takes twice the time to compile and gains nothing else that could be measured.
    cxx = ["-std=c++20", "-O0" if debug else "-O1", "-g" if debug else "-g0", "-ffp-contract=off", "-fno-math-errno"]
    cxx += ["-fno-trapping-math", "-fopenmp-simd", "-fvisibility=hidden", "-Wall", "-Wno-psabi", "-Wno-unknown-pragmas"]
    # GCC collects its garbage later: a tenth of the time to compile. Clang does not know it.
    cxx += ["--param=ggc-min-heapsize=600000", "-Wno-unused-command-line-argument"]
    # A copy in pieces smaller than the register that reads it next waits until they have left the processor: gradients
    # of 2x2 averages took twice as long.
    whole_moves = ["-mmove-max=512", "-mstore-max=512"]
    cxx += whole_moves if accepts(*whole_moves) else []
    # GCC's -O1 leaves the upper halves of registers in use when it turns to code for every processor. Each such turn
    # costs 70 cycles on an Intel core of 2023: 7x7 heads took 1.4 to 1.9 times as long. Clang clears them always, and
    # does not know the flag.
    cxx += ["-fexpensive-optimizations", "-Wno-ignored-optimization-argument"]
    # Lanes beside a row hold anything, taps among them, which are multiplied all the same.
    cxx.append("-fwrapv")
    cxx += shlex.split(os.environ.get("CXXFLAGS", ""))
    nvcc = NVCC + (["-G"] if debug else ["-lineinfo"])
    cuda_home = find_cuda_home()
    texts = "const char *const kVersion{}, *const kSources{};"
    stamp = "extern " + texts.format("", "") + "\n" + texts.format(f' = "{version()}"', f' = "{digest()}"')
    stamp = generated("sources.cpp", f"namespace fastpool {{\n{stamp}\n}}\n")
    # Linked in this order: of what the others share with the emulation, which is compiled without optimisation, the
    # linker keeps the first copy.
    files = [*sources("cpu", "*.cpp"), *kernels(), *sources("ops", "*.cpp")]
    files += [written("operators.cpp", "ops/operators.h", "", reducers()), stamp, *emulations()]
    libraries: list[str] = []
    library_dirs: list[str] = []
    link: list[str] = []
    if wants_cuda(cuda_home) and cuda_home:
        cpp_extension.CUDA_HOME = str(cuda_home)
        files += cuda_sources()
        macros.append(("USE_CUDA", None))
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "native" if torch.cuda.is_available() else "9.0")
        if os.environ["TORCH_CUDA_ARCH_LIST"] == "native":
            os.environ["TORCH_CUDA_ARCH_LIST"] = ".".join(map(str, torch.cuda.get_device_capability()))
        macros.append(("FASTPOOL_CUDA_ARCHITECTURES", f'"{os.environ["TORCH_CUDA_ARCH_LIST"]}"'))
        library_dirs.append(str(find_runtime(cuda_home)))
        libraries += ["cudart_static", "dl", "rt", "pthread"]
        # Through libtorch.so the weak symbols are found where torch has CUDA. Nothing else needs it: the linker would
        # leave it out.
        if sys.platform == "linux":
            link.append("-Wl,--push-state,--no-as-needed,-ltorch,--pop-state")
    return cpp_extension.CppExtension(
        "fastpool._C",
        files,
        include_dirs=[str(ROOT / "csrc"), pybind11.get_include()],  # torch 2.11's own copy refuses stable-ABI code
        define_macros=macros,
        libraries=libraries,
        library_dirs=library_dirs,
        extra_compile_args={"cxx": cxx, "nvcc": nvcc},
        extra_link_args=link,
    )


def announcement() -> str:
    files = extension().sources
    cuda = sum(file.endswith(".cu") for file in files)
    # Seconds of one processor of 2023: 560 for 46 C++ files, 530 for 14 CUDA files and one architecture.
    architectures = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split() if cuda else []
    seconds = (len(files) - cuda) * 12 + cuda * 38 * len(architectures)
    what = f"{len(files) - cuda} C++ files" + (f" and {cuda} CUDA files" if cuda else "")
    return f"fastpool: compiling {what}, {jobs()} at a time: about {max(1, round(seconds / jobs() / 60))} minutes"


if __name__ == "__main__":
    if {"sdist", "egg_info", "dist_info"}.intersection(sys.argv):
        setup()
    else:
        setup(ext_modules=[extension()], cmdclass={"build_ext": cpp_extension.BuildExtension})
