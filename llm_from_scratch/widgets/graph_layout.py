"""Where the boxes and arrows of a computation graph stand: layers from top to bottom.

The method is the layered drawing of Sugiyama, Tagawa and Toda 1981 in its plainest form: layers by depth,
order within a layer by the mean place of the neighbours, then places as near to that mean as fits.
"""

from __future__ import annotations

import math
from itertools import pairwise

BOX, PITCH = (78, 54), (85, 76)  # pixels: a box, and the distance between boxes


def layout(
    nodes: list[dict], inputs: list[list[int]], order: list[int]
) -> tuple[dict, list, tuple[int, int]]:
    """Return the centre of each box, the arrows as (from, to, operand, points), and the picture's size.

    An operation stands one layer below the lowest of its inputs, an input one layer above its first user.
    A long arrow gets a place of its own in the layers that it crosses, so that it passes between boxes.
    """
    drawn = [i for i in order if not nodes[i]["constant"]]
    layer = dict.fromkeys(drawn, 0)
    for i in drawn:
        if nodes[i]["op"]:
            layer[i] = 1 + max((layer[k] for k in inputs[i] if k in layer), default=-1)
    for i in drawn:
        if not nodes[i]["op"]:
            layer[i] = min((layer[j] for j in drawn if i in inputs[j]), default=1) - 1

    rows: dict[int, list] = {}
    for i in drawn:
        rows.setdefault(layer[i], []).append(i)
    links: list[tuple] = []  # neighbours in adjacent layers
    routes = []
    for j in drawn:
        for slot, i in enumerate(inputs[j]):
            if i not in layer:
                continue
            between = [("arrow", i, j, slot, level) for level in range(layer[i] + 1, layer[j])]
            for stop in between:
                rows.setdefault(stop[-1], []).append(stop)
            chain = [i, *between, j]
            links += pairwise(chain)
            routes.append((i, j, slot, chain))
    levels = sorted(rows)
    above: dict = {item: [] for row in rows.values() for item in row}
    below: dict = {item: [] for item in above}
    for upper, lower in links:
        above[lower].append(upper)
        below[upper].append(lower)

    place = {item: float(n) for row in rows.values() for n, item in enumerate(row)}
    middle = lambda item, near: sum(place[k] for k in near) / len(near) if near else place[item]  # noqa: E731
    for sweep in range(12):
        for level in levels if sweep % 2 == 0 else reversed(levels):
            row = rows[level]
            near = above if sweep % 2 == 0 else below
            wanted = {item: middle(item, near[item] or below[item] + above[item]) for item in row}
            row.sort(key=lambda item: (wanted[item], place[item]))
            place.update(_apart(row, wanted))
    for _ in range(3):
        for level in levels:
            place.update(_apart(rows[level], {k: middle(k, above[k] + below[k]) for k in rows[level]}))
    for level in levels:
        if len(rows[level]) == 1:  # a chain stands straight
            place[rows[level][0]] = middle(rows[level][0], above[rows[level][0]])

    left = min(place.values())
    at = lambda item: round((place[item] - left) * PITCH[0] + BOX[0] / 2 + 8, 1)  # noqa: E731
    boxes = {i: (at(i), layer[i] * PITCH[1] + BOX[1] / 2 + 8) for i in drawn}
    arrows = []
    for i, j, slot, chain in routes:
        comes = [at(route[3][-2]) for route in routes if route[1] == j]  # arrows enter in the order they come
        rank = sorted(range(len(comes)), key=comes.__getitem__).index(
            [route[2] for route in routes if route[1] == j].index(slot)
        )
        entry = boxes[j][0] + (rank - (len(comes) - 1) / 2) * min(24, 64 / len(comes))
        middle_points = [(at(stop), stop[-1] * PITCH[1] + BOX[1] / 2 + 8) for stop in chain[1:-1]]
        start = (boxes[i][0], boxes[i][1] + BOX[1] / 2)
        points = [start, *middle_points, (round(entry, 1), boxes[j][1] - BOX[1] / 2)]
        arrows.append((i, j, slot, points))
    width = max(x for x, _ in [*boxes.values(), *(p for *_, points in arrows for p in points)])
    size = (math.ceil(width + BOX[0] / 2 + 8), (max(layer.values()) + 1) * PITCH[1] - PITCH[1] + BOX[1] + 16)
    return boxes, arrows, size


def _apart(row: list, wanted: dict) -> dict:
    """Places as near as may be to those wanted, in this order and at least 1 apart."""
    from_left, from_right, last = {}, {}, -math.inf
    for item in row:
        from_left[item] = last = max(wanted[item], last + 1)
    last = math.inf
    for item in reversed(row):
        from_right[item] = last = min(wanted[item], last - 1)
    return {item: (from_left[item] + from_right[item]) / 2 for item in row}


def curve(points: list[tuple[float, float]]) -> str:
    """An SVG path through the points that leaves and arrives vertically."""
    parts = [f"M{points[0][0]:g} {points[0][1]:g}"]
    for (x0, y0), (x1, y1) in pairwise(points):
        half = (y0 + y1) / 2
        parts.append(f"C{x0:g} {half:g} {x1:g} {half:g} {x1:g} {y1:g}")
    return "".join(parts)
