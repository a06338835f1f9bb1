"""The second step: all parts in their order → which samples stay, their splits, and look-alikes.

Only fixed-size keys are held for every sample (about 150 bytes each). Texts and images are read
again, part by part, as they are written.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ocr.dataset.config import SplitSettings
from ocr.dataset.parts import KEY_BYTES
from ocr.errors import UserError

Keys = NDArray[np.void]  # [N], KEY_BYTES each
Indices = NDArray[np.int64]
_NEAR_BITS, _BANDS = 3, 4  # 128 bits that differ in 3 have one of 4 bands equal
_EXAMPLES = 20
KEPT, DUPLICATE_ID, DUPLICATE_SAMPLE, LEAK = 0, 1, 2, 3


@dataclass(frozen=True)
class Decisions:
    """The decision on every sample, in the order of the parts."""

    validation: NDArray[np.bool_]
    left_out: NDArray[np.uint8]  # KEPT, DUPLICATE_ID, DUPLICATE_SAMPLE or LEAK
    leaks: dict[int, str]  # index → the fact it shares with validation
    # number of pairs that look alike with the same text, and the first of them
    near: tuple[int, list[tuple[int, int]]]
    conflicts: tuple[int, list[tuple[int, int]]]  # pairs with the same image and different texts
    first_of: dict[int, int]  # index of a duplicate → index of its first occurrence
    renamed: frozenset[int]  # indices whose id an earlier source has used

    @property
    def kept(self) -> NDArray[np.int64]:
        """The indices of the samples that stay."""
        return np.flatnonzero(self.left_out == KEPT)


class Table:
    """The light columns of all parts, one after the other."""

    def __init__(self, files: Sequence[Path], sources: Sequence[int], by: Sequence[str]) -> None:
        self.files, self.by = list(files), list(by)
        names = [
            "id_key",
            "content_key",
            "image_key",
            "text_key",
            "look",
            *(f"by_{index}" for index in range(len(by))),
        ]
        columns: dict[str, list[Keys]] = {name: [] for name in names}
        validation, copies, sizes, self.starts = [], [], [], [0]
        for file in self.files:
            part = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
            for name in names:
                columns[name].append(_keys(part[name]))
            validation.append(
                np.array(
                    [split == "validation" for split in part["split"].to_pylist()], dtype=np.bool_
                )
            )
            copies.append(np.asarray(part["is_copy"].to_pylist(), dtype=np.bool_))
            sizes.append(np.stack([part["width"].to_numpy(), part["height"].to_numpy()], axis=1))
            self.starts.append(self.starts[-1] + part.num_rows)
        self._columns = {name: np.concatenate(parts) for name, parts in columns.items()}
        self.sources = np.repeat(np.array(sources), np.diff(self.starts))
        self.validation, self.copies, self.sizes_px = (
            np.concatenate(validation),
            np.concatenate(copies),
            np.concatenate(sizes),
        )

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, name: str) -> Keys:
        return self._columns[name]

    def has(self, column: str) -> bool:
        """Return whether any sample has this fact; zeros mean that it has none."""
        keys = self._columns[column]
        return bool((keys != np.zeros(1, keys.dtype)).any()) if len(keys) else False

    def id_and_text(self, indices: Iterable[int]) -> dict[int, tuple[str, str]]:
        """Return id and text of a few samples, read from their parts."""
        chosen = np.unique(np.fromiter(indices, dtype=np.int64))
        numbers = np.searchsorted(self.starts, chosen, side="right") - 1
        samples: dict[int, tuple[str, str]] = {}
        for number in np.unique(numbers).tolist():
            part = pa.ipc.open_file(pa.memory_map(str(self.files[number]))).read_all()
            for index in chosen[numbers == number].tolist():
                row = index - self.starts[number]
                samples[index] = (part["id"][row].as_py(), part["text"][row].as_py())
        return samples


def decide_duplicates(table: Table, settings: SplitSettings) -> Decisions:
    """Decide which samples stay; UserError when the splits share a fact and `on_leak` is fail."""
    left_out = np.zeros(len(table), dtype=np.uint8)
    first_of: dict[int, int] = {}
    everything = np.arange(len(table))
    for source in np.unique(table.sources):
        _mark_repeats(
            table["id_key"], everything[table.sources == source], left_out, DUPLICATE_ID, first_of
        )
    staying = everything[left_out == KEPT]
    # of equal samples the one in validation stays
    staying = staying[np.argsort(~table.validation[staying], kind="stable")]
    _mark_repeats(table["content_key"], staying, left_out, DUPLICATE_SAMPLE, first_of)
    leaks = _leaks(table, left_out)
    if leaks and settings.on_leak == "fail":
        raise UserError(
            _leak_message(
                table, leaks, left=int(((left_out == KEPT) & ~table.validation).sum()) - len(leaks)
            )
        )
    left_out[list(leaks)] = LEAK
    kept = np.flatnonzero(left_out == KEPT)
    renamed = frozenset(kept[_repeats(table["id_key"][kept])[0]].tolist())
    return Decisions(
        table.validation,
        left_out,
        leaks,
        _look_alikes(table, kept[~table.copies[kept]]),
        _conflicts(table, kept),
        first_of,
        renamed,
    )


def rows(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the samples of a part, with one batch at a time in memory."""
    with pa.memory_map(str(file)) as mapped:
        reader = pa.ipc.open_file(mapped)
        for index in range(reader.num_record_batches):
            yield from reader.get_batch(index).to_pylist()


def _keys(column: pa.ChunkedArray) -> Keys:
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) and array.num_chunks else array
    if not len(array):
        return np.empty(0, dtype=f"V{KEY_BYTES}")
    return np.frombuffer(
        array.buffers()[1], dtype=f"V{KEY_BYTES}", count=len(array), offset=array.offset * KEY_BYTES
    ).copy()


def _repeats(keys: Keys) -> tuple[Indices, Indices]:
    """Return the indices of repeated keys, and those of their first occurrences."""
    _, firsts, inverse = np.unique(keys, return_index=True, return_inverse=True)
    repeats = np.flatnonzero(firsts[inverse] != np.arange(len(keys)))
    return repeats, firsts[inverse[repeats]]


def _mark_repeats(
    keys: Keys,
    indices: Indices,
    left_out: NDArray[np.uint8],
    decision: int,
    first_of: dict[int, int],
) -> None:
    """Keep the first of equal keys at `indices`, and mark the others with `decision`."""
    repeats, firsts = _repeats(keys[indices])
    left_out[indices[repeats]] = decision
    first_of.update(zip(indices[repeats].tolist(), indices[firsts].tolist(), strict=True))


def _leaks(table: Table, left_out: NDArray[np.uint8]) -> dict[int, str]:
    """Return training samples that share image or a fact of `by` with validation → the fact."""
    training, validation = (
        np.flatnonzero((left_out == KEPT) & (table.validation == side)) for side in (False, True)
    )
    shared: dict[int, str] = {}
    for name, column in [
        ("image", "image_key"),
        *((name, f"by_{index}") for index, name in enumerate(table.by)),
    ]:
        keys = table[column][validation]
        # zeros: the sample has no such fact
        keys = keys[keys != np.zeros(1, keys.dtype)] if len(keys) else keys
        for index in training[np.isin(table[column][training], keys)]:
            shared.setdefault(int(index), name)
    return dict(sorted(shared.items()))


def _leak_message(table: Table, leaks: dict[int, str], left: int) -> str:
    counts = ", ".join(
        f"{count:,} by {name}" for name, count in Counter(leaks.values()).most_common()
    )
    ids = ", ".join(id for id, _ in table.id_and_text(list(leaks)[:3]).values())
    return (
        f"{len(leaks):,} training samples leak into validation ({counts}), such as {ids}; set "
        "split.on_leak=drop_from_train to leave them out "
        f"({left:,} would remain), or change split.by; no data set was written"
    )


def _conflicts(table: Table, kept: Indices) -> tuple[int, list[tuple[int, int]]]:
    """Return neighbouring pairs with the same image; their texts differ."""
    order = kept[np.argsort(table["image_key"][kept], kind="stable")]
    same = np.flatnonzero(table["image_key"][order[1:]] == table["image_key"][order[:-1]])
    pairs = sorted((int(order[index]), int(order[index + 1])) for index in same)
    return len(pairs), pairs[:_EXAMPLES]


def _look_alikes(table: Table, kept: Indices) -> tuple[int, list[tuple[int, int]]]:
    """Return pairs with the same text and looks that differ in at most 3 of 128 bits.

    They are neighbours in one of four sorted orders, each by another band of the look.
    """
    looks = np.frombuffer(table["look"][kept].tobytes(), dtype=np.uint32).reshape(-1, _BANDS)
    texts = np.unique(table["text_key"][kept], return_inverse=True)[1]
    pairs: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        order = np.lexsort((np.arange(len(kept)), *looks.T, looks[:, band], texts))
        one, other = order[:-1], order[1:]
        alike = (
            (texts[one] == texts[other])
            & (looks[one, band] == looks[other, band])
            & (_differing_bits(looks[one], looks[other]) <= _NEAR_BITS)
        )
        pairs.update(
            (min(a, b), max(a, b))
            for a, b in zip(kept[one[alike]].tolist(), kept[other[alike]].tolist(), strict=True)
        )
    return len(pairs), sorted(pairs)[:_EXAMPLES]


def _differing_bits(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> NDArray[np.int64]:
    return np.asarray(
        np.unpackbits((one ^ other).view(np.uint8), axis=1).sum(axis=1), dtype=np.int64
    )
