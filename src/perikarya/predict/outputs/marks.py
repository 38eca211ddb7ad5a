"""What cells below the threshold are called in files for other programs, and which cells a person sees otherwise."""

from __future__ import annotations

from perikarya.predict.fields import PredictedField

UNSURE_COLOUR = "#9E9E9E"


def unsure_name(class_names: tuple[str, ...]) -> str:
    """Return what the class of cells below the threshold is called; never the name of a class."""
    taken = {name.casefold() for name in class_names}
    return next(name for name in ("Unsure", "Below threshold", "Perikarya: unsure") if name.casefold() not in taken)


def disagreeing(field: PredictedField, class_names: tuple[str, ...]) -> list[int]:
    """List the cells to which the file of outlines gives another class of the model than the network does."""
    return [
        i
        for i, (label, code) in enumerate(zip(field.label_n, field.code_n, strict=True))
        if label in class_names and label != class_names[code]
    ]
