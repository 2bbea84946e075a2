"""What the values of a data set's masks stand for: `labels` of `dataset.json`, and which class of them is tumour.

The Medical Segmentation Decathlon writes `{"0": "background", "1": "cancer"}`, nnU-Net v2 `{"background": 0,
"cancer": 1}`, with a list of values for a class of several, and `"ignore"` for voxels that are neither.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lungseg.dataset.contents import first_few
from lungseg.decoding import Natural
from lungseg.errors import TumourClassError

BACKGROUND, IGNORE = "background", "ignore"
TUMOUR_NAME = re.compile(
    r"tumou?r|cancer|carcinom|lesion|nodul|neoplas|malignan|metasta|sarcoma|lymphoma|mesothelioma"
    r"|\b(mass|masses|gtv|nsclc|sclc|tumor\w*)\b|\bgtv",
    re.IGNORECASE,
)
OTHER_NAME = re.compile(
    r"\b(no|non|not|without|outside|except|healthy|normal)\b|\bperi ?(tumou?r|lesion|nodul)", re.IGNORECASE
)
"""A name with such a word is of anything but the tumour."""
JOINT = re.compile(r"[_\W]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)")
"""Where the words of a name meet: `lung_tumour`, `LungTumour`, `GTV1`."""
INTEGER = re.compile(r"\s*\d{1,9}\s*")
MOST_CLASSES = 1000
MOST_NAMED = 12
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class LabelClass:
    """A class of a data set's masks: its name in `dataset.json`, and the values that mark it."""

    name: str
    values: tuple[Natural, ...]

    def __str__(self) -> str:
        """Return the name with the values."""
        return f"{self.name} ({', '.join(map(str, self.values))})"


@dataclass(frozen=True, slots=True)
class Legend:
    """What the values of masks stand for.

    Attributes:
        tumour: the class that is tumour.
        others: the other classes, without the values of the tumour.
        ignored: values of voxels that are neither tumour nor background.
        is_complete: whether a mask may hold no other value; false where `labels` are missing and a value was given.
    """

    tumour: LabelClass
    others: tuple[LabelClass, ...] = ()
    ignored: tuple[Natural, ...] = ()
    is_complete: bool = True

    @property
    def named(self) -> frozenset[int]:
        """All values that a mask may hold besides 0."""
        values = (*self.tumour.values, *self.ignored, *(value for other in self.others for value in other.values))
        return frozenset(values) - {0}

    def name_of(self, value: float) -> str:
        """Return the name of a value: that of the smallest class that has it."""
        classes = (label for label in (self.tumour, *self.others) if value in label.values)
        smallest = min(classes, key=lambda label: len(label.values), default=None)
        return f"{value:g}" if smallest is None else f"{smallest.name} ({value:g})"


def choose_legend(labels: object, tumour_class: str | None = None) -> Legend | None:
    """Choose the class that is tumour: by name or value where one is given, else the one that is called a tumour.

    If several are called tumours, the one that includes all others is chosen ("whole tumour").

    Args:
        labels: of `dataset.json`; None or empty where it has none: then every value but 0 is tumour.
        tumour_class: name or value of the class, or several of them, separated by commas.

    Returns:
        What the values stand for; None where there are neither labels nor a class.

    Raises:
        TumourClassError: no class is called a tumour, or several are, or there is no such class; it lists the classes.
    """
    if not labels:
        return _by_value(tumour_class) if tumour_class else None
    classes, ignored = _read_classes(labels)
    tumour = _select(classes, tumour_class) if tumour_class else _by_name(classes)
    if 0 in tumour.values:
        raise TumourClassError(
            f"The class {tumour} holds the value 0, which is the background.", "Write the background as 0."
        )
    others = (LabelClass(label.name, _without(label.values, tumour.values)) for label in classes)
    return Legend(tumour, tuple(label for label in others if label.values), ignored)


def is_tumour_name(name: str) -> bool:
    """Tell whether a class is called a tumour."""
    words = " ".join(filter(None, JOINT.split(name)))
    return bool(TUMOUR_NAME.search(words)) and not OTHER_NAME.search(words)


def _read_classes(labels: object) -> tuple[tuple[LabelClass, ...], tuple[int, ...]]:
    """Read `labels` of a `dataset.json`: all classes but the background, and the values to be ignored."""
    if not isinstance(labels, Mapping) or len(labels) > MOST_CLASSES:
        raise _malformed(labels)
    entries = [_class_of(key, value) for key, value in labels.items()]
    ignored = tuple(value for label in entries if label.name.lower() == IGNORE for value in label.values)
    classes = [label for label in entries if label.name.lower() not in {BACKGROUND, IGNORE} and label.values]
    return tuple(label for label in classes if label.values != (0,) or is_tumour_name(label.name)), ignored


def _class_of(key: str, value: object) -> LabelClass:
    """Read an entry; a text on the right of a number is a name (Decathlon), all else stands on the left (nnU-Net)."""
    if isinstance(value, str) and key.strip().isdecimal():
        return LabelClass(value.strip()[:LONGEST_NAME], (_value(key, value),))
    values = value if isinstance(value, list) else [value]
    return LabelClass(key.strip()[:LONGEST_NAME], tuple(sorted({_value(item, value) for item in values})))


def _value(value: object, entry: object) -> int:
    if isinstance(value, str) and INTEGER.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _malformed(entry)
    return value


def _by_value(tumour_class: str) -> Legend:
    """Take values as they stand, where no `labels` give them names."""
    parts = tumour_class.split(",")
    if not all(INTEGER.fullmatch(part) and int(part) for part in parts):
        raise TumourClassError(
            f"There is no class {tumour_class!r}: the data set has no dataset.json with labels.",
            "Give the value that marks tumour in its masks, such as 2.",
        )
    return Legend(LabelClass("tumour", tuple(sorted(set(map(int, parts))))), is_complete=False)


def _select(classes: Sequence[LabelClass], tumour_class: str) -> LabelClass:
    """Return the class of this name or value; several, separated by commas, become one."""
    by_name = {str(label.values[0]): label for label in classes if len(label.values) == 1}
    by_name |= {label.name.lower(): label for label in classes}
    name = tumour_class.strip().lower()
    names = [name] if name in by_name else [part.strip() for part in name.split(",")]
    if not by_name.keys() >= set(names):
        raise TumourClassError(
            f"There is no class {tumour_class!r} among {_names(classes)}.", "Name one of these classes."
        )
    selected = [by_name[name] for name in names]
    if len(selected) == 1:
        return selected[0]
    values = sorted({value for label in selected for value in label.values})
    return LabelClass(" + ".join(label.name for label in selected), tuple(values))


def _by_name(classes: Sequence[LabelClass]) -> LabelClass:
    tumours = [label for label in classes if is_tumour_name(label.name)]
    widest = max(tumours, key=lambda label: len(label.values), default=None)
    if widest is None:
        raise TumourClassError(
            f"No class of dataset.json is called a tumour: it has {_names(classes) or 'no class but the background'}.",
            "Use a data set that marks tumours, or say which class is one (--tumour-class, or the choice on the page).",
            choices=tuple(label.name for label in classes),
        )
    if any(_without(label.values, widest.values) for label in tumours):
        raise TumourClassError(
            f"Several classes of dataset.json are called tumours: {_names(tumours)}.",
            "Say which is the tumour to find (--tumour-class, or the choice on the page); separate several by commas.",
            choices=tuple(label.name for label in classes),
        )
    return widest


def _without(values: tuple[int, ...], others: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(value for value in values if value not in others)


def _names(classes: Sequence[LabelClass]) -> str:
    return first_few([str(label) for label in classes], MOST_NAMED, ", ")


def _malformed(entry: object) -> TumourClassError:
    return TumourClassError(
        f"dataset.json has the labels {json.dumps(entry, default=str)[:LONGEST_NAME]}, which no format has.",
        'Write {"background": 0, "tumour": 1} (nnU-Net) or {"0": "background", "1": "tumour"} (Decathlon).',
    )
