"""SequenceRanges: which packets have arrived, in bounded memory."""


class SequenceRanges:
    """The sequence numbers seen, as at most ``max_ranges`` inclusive ranges; older ones are forgotten.

    A forgotten number counts as seen: its sender has written it off long since and has sent its content again.

    >>> seen = SequenceRanges(max_ranges=64)
    >>> [seen.add(n) for n in (0, 1, 4, 1)], seen.highest_first()
    ([True, True, True, False], [(4, 4), (0, 1)])
    """

    def __init__(self, max_ranges: int) -> None:
        self.max_ranges = max_ranges
        self._ranges: list[list[int]] = []  # ascending, apart
        self._floor = 0

    def __contains__(self, sequence: int) -> bool:
        if not self._ranges or sequence > self._ranges[-1][1]:
            return sequence < self._floor
        return sequence < self._floor or any(low <= sequence <= high for low, high in reversed(self._ranges))

    def add(self, sequence: int) -> bool:
        """Note an arrival; False when it was there already."""
        ranges = self._ranges
        if ranges and sequence == ranges[-1][1] + 1:
            ranges[-1][1] = sequence
            return True
        if sequence in self:
            return False
        place = len(ranges)
        while place and ranges[place - 1][0] > sequence:
            place -= 1
        ranges.insert(place, [sequence, sequence])
        if place + 1 < len(ranges) and ranges[place + 1][0] == sequence + 1:
            ranges[place][1] = ranges.pop(place + 1)[1]
        if place and ranges[place - 1][1] == sequence - 1:
            ranges[place - 1][1] = ranges.pop(place)[1]
        if len(ranges) > self.max_ranges:
            self._floor = ranges.pop(0)[1] + 1
        return True

    def highest_first(self) -> list[tuple[int, int]]:
        """The ranges as an ACK lists them."""
        return [(low, high) for low, high in reversed(self._ranges)]
