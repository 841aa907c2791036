"""Whatever a run and a sweep leave or print holds none of the secrets that they were given."""

import pytest

SECRETS = {"uri": "s3cr3t-of-uri", "token": "s3cr3t-of-task", "query": "s3cr3t-of-query", "env": "s3cr3t-of-env"}
QUICKLY = ("task=digits", "split.point=stage1", "workflow=points", "trainer.max_epochs=0")


@pytest.mark.slow
@pytest.mark.parametrize("options", [("-m", "seed=0,1"), ()])
def test_nothing_that_a_run_leaves_or_prints_holds_a_secret(run_py, tmp_path, options):
    database = f"sqlite:///{tmp_path}/runs.db?password={SECRETS['query']}"
    told = [f"tracking.uri='{database}'", f"+trainer_hub_token={SECRETS['token']}"]
    unreachable = [f"tracking.uri='http://ann:{SECRETS['uri']}@127.0.0.1:1'"]
    for given in (told, unreachable):
        done = run_py(*options, *QUICKLY, *given, MLFLOW_TRACKING_PASSWORD=SECRETS["env"])
        assert done.returncode == 0, done.stderr  # a store that fails loses no good run
        _check(done.stdout + done.stderr)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "config.yaml" for path in left)
    assert (tmp_path / "runs.db").exists() or any(path.name.startswith("runs.db") for path in left)
    for path in left:
        _check(path.read_bytes().decode(errors="replace"))
        _check(str(path.relative_to(tmp_path)))


def _check(text: str) -> None:
    for place, secret in SECRETS.items():
        if secret in text:
            at = text.index(secret)
            pytest.fail(f"the secret of {place}: {text[max(at - 80, 0) : at + 40]}")
