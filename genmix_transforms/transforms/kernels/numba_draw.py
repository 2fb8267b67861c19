"""The draw and the mix of the labels as plain loops, for Numba: one call, where torch and NumPy start dozens of them.

What is computed is :func:`genmix_transforms.transforms.drawing.draw`'s and ``functional.mix_labels``'; the tests hold
them to the same numbers.
"""

from functools import cache

import numpy as np

from genmix_transforms.transforms.kernels.native import Function, Layout
from genmix_transforms.transforms.kernels.numba_code import array_at, compiled, entry_point, task_at

TASK = Layout(
    uniform="q", columns="q", samples="q", classes="q",
    labels="q", rows="q",  # class indices, of which rows are made; 0: the rows are given
    own="q",  # memory for a copy of the rows; 0 if no partner is of the batch
    bank_labels="q", bank_size="q",
    cumulative="q", start="q", count="q",  # 0: every image of the bank equally often
    lam="q", index="q", from_batch="q",  # what is drawn; from_batch is 0 if no partner is of the batch
    alpha="d", p="d", real_partner="d", per_sample="q", some_have_none="q",
)  # fmt: skip


@cache
def drawing(*, soft_bank: bool) -> Function:
    """The loop that draws and mixes the labels; ``soft_bank``: the bank's labels are rows, not indices.

    It returns whether the labels are in range; if not, nothing is drawn.
    """
    label_type = np.float32 if soft_bank else np.int64

    @entry_point(TASK)
    def draw(tasks):  # type: ignore[no-untyped-def]
        task = task_at(tasks)
        samples, classes = task.samples, task.classes
        uniform = array_at(task.uniform, (samples, task.columns), np.float64)
        labels = array_at(task.labels, samples if task.labels else 0, np.int64)
        rows = array_at(task.rows, (samples, classes), np.float32)
        bank_labels = array_at(task.bank_labels, (task.bank_size, classes if soft_bank else 1), label_type)
        cumulative = array_at(task.cumulative, (classes, classes), np.float32)
        start = array_at(task.start, classes, np.int64)
        count = array_at(task.count, classes, np.int64)
        lam = array_at(task.lam, samples, np.float32)
        index = array_at(task.index, samples, np.int64)
        from_batch = array_at(task.from_batch, samples if task.from_batch else 0, np.bool_)
        if labels.size and not _one_hot(labels, rows):
            return 0
        _draw(task, uniform, labels, rows, cumulative, start, count, lam, index, from_batch)
        own = rows
        if task.own:
            own = array_at(task.own, (samples, classes), np.float32)
            own[:] = rows
        if soft_bank:
            _mix_with_rows(rows, own, bank_labels, index, from_batch, lam)
        else:
            _mix_with_indices(rows, own, bank_labels, index, from_batch, lam)
        return 1

    return draw


@compiled
def _one_hot(labels, rows):  # type: ignore[no-untyped-def]
    for number in range(labels.size):
        label = labels[number]
        if label < 0 or label >= rows.shape[1]:
            return False
        for column in range(rows.shape[1]):
            rows[number, column] = 1 if column == label else 0
    return True


@compiled
def _draw(task, uniform, labels, rows, cumulative, start, count, lam, index, from_batch):  # type: ignore[no-untyped-def]
    samples = task.samples
    for number in range(samples):
        first = number if task.per_sample else 0
        weight = np.float32(uniform[first, 0] ** (1 / task.alpha))
        mixed = uniform[first, 2] < task.p
        row, found = np.int64(uniform[number, 1] * task.bank_size), True
        if task.cumulative:
            if labels.size:
                weights, mass = cumulative[labels[number]].astype(np.float64), 1.0
            else:
                weights, mass = _of_row(rows[number], cumulative)
            total = mass if task.some_have_none else weights[-1]
            row, found = _draw_of_class(weights, start, count, uniform[number, 3], uniform[number, 1], total)
        if from_batch.size:
            from_batch[number] = uniform[number, 4] < task.real_partner
            if from_batch[number]:
                found = True
                steps = 1 + min(max(np.int64(uniform[number, 1] * (samples - 1)), 0), max(0, samples - 2))
                row = (number + steps) % samples
        index[number] = row
        lam[number] = weight if mixed and (found or not task.some_have_none) else 0


@compiled
def _of_row(row, cumulative):  # type: ignore[no-untyped-def]
    """The classes' weights for a soft label, cumulated, and what the label sums to."""
    weights, mass = np.zeros(row.size), 0.0
    for own in range(row.size):
        mass += row[own]
        for other in range(row.size):
            weights[other] += np.float64(row[own]) * cumulative[own, other]
    return weights, mass


@compiled
def _draw_of_class(cumulative, start, count, class_draw, image_draw, total):  # type: ignore[no-untyped-def]
    """A row of the bank, and whether the draw fell on a class."""
    classes = count.size
    size = start[classes - 1] + count[classes - 1]
    chosen = 0
    if total > 0:
        while chosen < classes and not cumulative[chosen] > class_draw * total:
            chosen += 1
    else:  # none of the labels: from the whole bank
        while start[chosen] + count[chosen] <= class_draw * size:
            chosen += 1
    found = chosen < classes
    chosen = min(chosen, classes - 1)
    return min(max(start[chosen] + np.int64(image_draw * count[chosen]), 0), size - 1), found


@compiled
def _lerp(real, partner, weight):  # type: ignore[no-untyped-def]
    if weight < 0.5:
        return real + weight * (partner - real)
    return partner - (np.float32(1) - weight) * (partner - real)


@compiled
def _mix_with_indices(rows, own, bank_labels, index, from_batch, lam):  # type: ignore[no-untyped-def]
    for number in range(rows.shape[0]):
        of_batch = from_batch.size and from_batch[number]
        label = -1 if of_batch else bank_labels[index[number], 0]
        for column in range(rows.shape[1]):
            if of_batch:
                partner = own[index[number], column]
            else:
                partner = np.float32(1) if column == label else np.float32(0)
            rows[number, column] = _lerp(rows[number, column], partner, lam[number])


@compiled
def _mix_with_rows(rows, own, bank_labels, index, from_batch, lam):  # type: ignore[no-untyped-def]
    for number in range(rows.shape[0]):
        source = own if from_batch.size and from_batch[number] else bank_labels
        for column in range(rows.shape[1]):
            rows[number, column] = _lerp(rows[number, column], source[index[number], column], lam[number])
