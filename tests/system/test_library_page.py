"""docs/library.md: its blocks run one after the other, as a reader would run them."""

import re

from tests.conftest import ROOT

BRIEF = ', "trainer.limit_train_batches=2", "workflow.num_samples=4", "tracking=none")'


def test_the_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text(), re.DOTALL)
    assert len(blocks) == 7
    names: dict[str, object] = {}
    for block in blocks:
        exec(block.replace('"trainer.max_epochs=1")', '"trainer.max_epochs=1"' + BRIEF), names)
    assert "bytes;" in capsys.readouterr().out
    assert set(names["table"]["codec"].dropna()) >= {"quant2", "quant8"}
