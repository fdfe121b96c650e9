"""setuptools' own backend, but it compiles against the torch that is installed, and tells the terminal what it does.

pip builds in isolation, where it would fetch a second torch, of gigabytes, only to read headers of which every version
since 2.11 gives the same library.
"""

import contextlib
import importlib.metadata
import site
import sys

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

# Last on the path: what pip installed for this build comes first.
sys.path += [*site.getsitepackages(), site.getusersitepackages()]


def get_requires_for_build_wheel(config_settings=None):
    try:
        major, minor, *_ = importlib.metadata.version("torch").split(".")
        found = (int(major), int(minor)) >= (2, 11)
    except importlib.metadata.PackageNotFoundError:
        found = False
    return [] if found else ["torch>=2.11"]


def get_requires_for_build_editable(config_settings=None):
    return get_requires_for_build_wheel(config_settings)


def get_requires_for_build_sdist(config_settings=None):
    return []


def build_wheel(*arguments, **options):
    _announce()
    return build_meta.build_wheel(*arguments, **options)


def build_editable(*arguments, **options):
    _announce()
    return build_meta.build_editable(*arguments, **options)


def _announce():
    import setup  # which needs torch

    text = setup.announcement()
    print(text, flush=True)
    # pip keeps what a build prints to itself, for all the minutes.
    with contextlib.suppress(OSError), open("/dev/tty", "w") as terminal:
        print(f"\n{text}", file=terminal)
