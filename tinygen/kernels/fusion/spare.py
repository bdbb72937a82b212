"""Words that need not be run: nobody wants what they write, or an earlier one has written the same.

A forward kernel and its gradient often begin with the same lines, as the loss of a classifier and its gradient both do
with the log-sum-exp of the scores; op by op each computes them for itself.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

from tinygen.kernels.fusion.trace import mapped
from tinygen.kernels.fusion.words import Other, Place, Storage, Word, reads, writes


def wanted(words: list[Word], outputs: set[Storage]) -> list[Word]:
    """The words that outputs or effects need."""
    needed, kept = set(outputs), []
    for word in reversed(words):
        if any(place.storage in needed for place in writes(word)) or (
            isinstance(word, Other) and word.effect
        ):
            kept.append(word)
            needed.update(place.storage for place in reads(word))
    return kept[::-1]


def once(words: list[Word], outputs: set[Storage]) -> list[Word]:
    """Without the words that do what an earlier one has done: what that wrote is read in their stead.

    Outputs keep words of their own, for results that shared memory could be changed through each other.
    """
    writers = Counter(place.storage for word in words for place in writes(word))
    first: dict[str, Storage] = {}
    same: dict[Storage, Storage] = {}

    def there(place: Place) -> Place:
        return dataclasses.replace(place, storage=same.get(place.storage, place.storage))

    kept = []
    for word in words:
        word = dataclasses.replace(word, **{
            field.name: mapped(getattr(word, field.name), (Place,), there)
            for field in dataclasses.fields(word) if not field.name.startswith("out")
        })  # fmt: skip
        if not isinstance(word, Other):
            out = word.out
            if writers[out.storage] == 1 and out.storage not in outputs:
                place = out.offset, out.shape, out.strides, out.storage.shape, out.dtype
                what = repr(dataclasses.replace(word, out=place))  # in which 0.0 and -0.0 differ
                same[out.storage] = first.setdefault(what, out.storage)
                if same[out.storage] is not out.storage:
                    continue
        kept.append(word)
    return kept
