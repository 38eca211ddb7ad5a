"""One colour per class, the same in every figure, page, overlay and file for other programs."""

from __future__ import annotations

# Told apart by people with and without red-green or blue-yellow blindness: the first seven are at least 23 CIELAB
# units from each other in each of these (tests/figures measure it). Blue, orange, red carry the usual order of damage.
_CLASS_COLOURS = (
    "#0072B2", "#E69F00", "#A50026", "#56B4E9", "#0B1F4B", "#7F7F7F",
    "#D9B98C", "#D55E00", "#882255", "#999933", "#F0E442", "#000000",
)  # fmt: skip
# twelve even steps of the scale cividis (Nuñez, Anderton & Renslow 2018, doi:10.1371/journal.pone.0199239)
_SCALE = (
    (0, 34, 78), (1, 50, 113), (47, 66, 109), (72, 82, 108), (94, 99, 111), (114, 115, 116),
    (135, 132, 120), (157, 149, 118), (182, 169, 111), (206, 188, 99), (231, 209, 80), (254, 232, 56),
)  # fmt: skip


def class_colours(n_classes: int) -> list[str]:
    """Return one colour per class, in the order of the classes; more than twelve are steps of one dark-light scale."""
    if n_classes <= len(_CLASS_COLOURS):
        return list(_CLASS_COLOURS[:n_classes])
    return [_at(k / (n_classes - 1)) for k in range(n_classes)]


def rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue, 0 to 255, of ``#rrggbb``."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _at(share: float) -> str:
    """Return the colour at a share of the way from dark to light."""
    place = share * (len(_SCALE) - 1)
    below = min(int(place), len(_SCALE) - 2)
    mixed = (
        round(dark + (light - dark) * (place - below))
        for dark, light in zip(_SCALE[below], _SCALE[below + 1], strict=True)
    )
    return "#{:02x}{:02x}{:02x}".format(*mixed)
