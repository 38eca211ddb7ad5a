"""Feed a parser of other people's files with broken ones, for as long as wanted, led by the coverage of our modules.

    python tools/fuzz.py PARSER [-max_total_time=60] [FOLDER]

PARSER is a key of ``tests.fuzzing.PARSERS``. Begins with small good files and keeps what reaches new code in FOLDER
(else nowhere). Ends at the first exception that is no sentence for a person, or when one input takes ten seconds or two
GiB, and leaves the bytes that caused it in ``crash-*``. Other options are those of libFuzzer. Needs ``atheris``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["perikarya.data"]):
    from tests.fuzzing import PARSERS, seeds_of, survives

_LIMITS = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=20000"]


def main(arguments: list[str]) -> None:
    """Run libFuzzer on the parser that the first argument names."""
    if len(arguments) < 2 or arguments[1] not in PARSERS:
        raise SystemExit(f"{__doc__}\nParsers: {', '.join(PARSERS)}")
    program, parser, *rest = arguments
    options = [argument for argument in rest if argument.startswith("-")]
    folders = [argument for argument in rest if not argument.startswith("-")]
    with tempfile.TemporaryDirectory() as name:
        for i, seed in enumerate(seeds_of(parser)):
            (Path(name) / str(i)).write_bytes(seed)
        # new inputs go to the first folder
        atheris.Setup([program, *_LIMITS, *options, *folders, name], lambda data: survives(parser, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
