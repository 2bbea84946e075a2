"""What the values of a data set's masks stand for: `labels` of `dataset.json`, and which class of them is tumour.

The Medical Segmentation Decathlon writes `{"0": "background", "1": "cancer"}`, nnU-Net v2 `{"background": 0,
"cancer": 1}`, a list of values for a class made of several, and `"ignore"` for voxels of which nobody knows what they
are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

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
"""What names that hold such a word are about: everything but the tumour."""
JOINT = re.compile(r"[_\W]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)")
"""Where the words of a name meet: `lung_tumour`, `LungTumour`, `GTV1`."""
MOST_CLASSES = 1000
MOST_NAMED = 12
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class LabelClass:
    """A class of a data set's masks.

    Attributes:
        name: as `dataset.json` calls it.
        values: that mark it.
    """

    name: str
    values: tuple[Natural, ...]

    def __str__(self) -> str:
        """Name it with its values."""
        return f"{self.name} ({', '.join(map(str, self.values))})"


@dataclass(frozen=True, slots=True)
class Legend:
    """What the values of masks stand for.

    Attributes:
        tumour: the class that is tumour.
        others: classes that are not.
        ignored: values of voxels of which nobody knows what they are: neither tumour nor background.
        is_complete: whether a mask may hold no other value; not where `labels` are missing and a value was asked for.
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
        """Call a value as `labels` does."""
        known = (each for each in (self.tumour, *self.others) if value in each.values)
        named = min(known, key=lambda each: len(each.values), default=None)
        return f"{value:g}" if named is None else f"{named.name} ({value:g})"


def read_classes(labels: object) -> tuple[tuple[LabelClass, ...], tuple[int, ...]]:
    """Read `labels` of a `dataset.json`: all classes but the background, and the values to be ignored.

    Raises:
        TumourClassError: they are written in a way that no format has.
    """
    if not isinstance(labels, Mapping) or len(labels) > MOST_CLASSES:
        raise _malformed(labels)
    read = [_class_of(key, value) for key, value in labels.items()]
    ignored = tuple(value for each in read if each.name.lower() == IGNORE for value in each.values)
    classes = [each for each in read if each.name.lower() not in {BACKGROUND, IGNORE} and each.values]
    return tuple(each for each in classes if each.values != (0,) or is_tumour_name(each.name)), ignored


def choose_legend(labels: object, wanted: str | None = None) -> Legend | None:
    """Choose the class that is tumour: the one that is asked for, else by its name.

    Of several that are called tumour the one that holds all others is taken ("whole tumour").

    Args:
        labels: of `dataset.json`; None or empty where it has none: then every value but 0 is tumour.
        wanted: name or value of the class, or several of them with commas between.

    Returns:
        What values stand for; None where there is nothing to tell apart.

    Raises:
        TumourClassError: no class is one, or several are, or there is none of the wanted name; it says what there is.
    """
    if not labels:
        return _by_value(wanted) if wanted else None
    classes, ignored = read_classes(labels)
    found = _wanted(classes, wanted) if wanted else _by_name(classes)
    if 0 in found.values:
        raise TumourClassError(
            f"The class {found} holds the value 0, which is the background.", "Write the background as 0."
        )
    others = tuple(each for each in classes if not set(each.values) & set(found.values))
    return Legend(found, others, ignored)


def is_tumour_name(name: str) -> bool:
    """Tell whether a class is called a tumour."""
    words = " ".join(filter(None, JOINT.split(name)))
    return bool(TUMOUR_NAME.search(words)) and not OTHER_NAME.search(words)


def _class_of(key: str, value: object) -> LabelClass:
    """Read an entry; a text on the right of a number is a name (Decathlon), all else stands on the left (nnU-Net)."""
    if isinstance(value, str) and key.strip().isdecimal():
        return LabelClass(value.strip()[:LONGEST_NAME], (_value(key, value),))
    values = value if isinstance(value, list) else [value]
    return LabelClass(key.strip()[:LONGEST_NAME], tuple(sorted({_value(each, value) for each in values})))


def _value(value: object, shown: object) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value[:9])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _malformed(shown)
    return value


def _by_value(wanted: str) -> Legend:
    """Take values as they stand, where no `labels` give them names."""
    values = [part.strip() for part in wanted.split(",")]
    if not all(part.isdecimal() and int(part[:9]) for part in values):
        raise TumourClassError(
            f"There is no class {wanted!r}: the data set has no dataset.json with labels.",
            "Give the value that marks tumour in its masks, such as 2.",
        )
    return Legend(LabelClass("tumour", tuple(sorted({int(part[:9]) for part in values}))), is_complete=False)


def _wanted(classes: tuple[LabelClass, ...], wanted: str) -> LabelClass:
    known = {each.name.lower(): each for each in classes}
    single = {str(each.values[0]): each for each in classes if len(each.values) == 1}
    known = single | known
    whole = wanted.strip().lower()
    chosen = [known.get(part) for part in ([whole] if whole in known else map(str.strip, whole.split(",")))]
    named = [each for each in chosen if each is not None]
    if len(named) < len(chosen):
        raise TumourClassError(f"There is no class {wanted!r} among {_listed(classes)}.", "Name one of these classes.")
    return _joined(named)


def _by_name(classes: tuple[LabelClass, ...]) -> LabelClass:
    found = [each for each in classes if is_tumour_name(each.name)]
    widest = max(found, key=lambda each: len(each.values), default=None)
    if widest is None:
        raise TumourClassError(
            f"No class of dataset.json is called a tumour: it has {_listed(classes) or 'no class but the background'}.",
            "Use a data set that marks tumours, or say which class is one (--tumour-class, or the choice on the page).",
            choices=tuple(each.name for each in classes),
        )
    if any(not set(each.values) <= set(widest.values) for each in found):
        raise TumourClassError(
            f"Several classes of dataset.json are called tumours: {_listed(tuple(found))}.",
            "Say which is the tumour to find (--tumour-class, or the choice on the page); several with commas between.",
            choices=tuple(each.name for each in classes),
        )
    return widest


def _joined(classes: list[LabelClass]) -> LabelClass:
    if len(classes) == 1:
        return classes[0]
    values = sorted({value for each in classes for value in each.values})
    return LabelClass(" + ".join(each.name for each in classes), tuple(values))


def _listed(classes: tuple[LabelClass, ...]) -> str:
    more = f" and {len(classes) - MOST_NAMED} more" if len(classes) > MOST_NAMED else ""
    return ", ".join(map(str, islice(classes, MOST_NAMED))) + more


def _malformed(found: object) -> TumourClassError:
    return TumourClassError(
        f"dataset.json has the labels {json.dumps(found, default=str)[:LONGEST_NAME]}, which no format has.",
        'Write {"background": 0, "tumour": 1} (nnU-Net) or {"0": "background", "1": "tumour"} (Decathlon).',
    )
