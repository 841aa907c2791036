"""A table of settings as of a network of 100 ms on the edge; for the tests of what adapts."""

from splitsem.cost.setting_table import Powers, SettingTable

CUTS = {"input": (0.004, 150e3, 0.010), "stage1": (0.035, 60e3, 0.008), "stage3": (0.060, 12e3, 0.003)}
CODECS = {"quant8": (1.0, 0.90), "quant2": (0.2, 0.80)}


def table_of_three_cuts(**powers: float) -> SettingTable:
    """Three cuts by two codecs, and all on the edge, which is the last."""
    rows = [
        (f"{cut} {codec}", edge_s, share * num_bytes, server_s, 2.0, score)
        for cut, (edge_s, num_bytes, server_s) in CUTS.items()
        for codec, (share, score) in CODECS.items()
    ]
    rows.append(("output", 0.1, 0.0, 0.0, 0.0, 0.90))
    names, *columns = zip(*rows, strict=True)
    return SettingTable(names, *columns, Powers(**powers))
