"""Redaction: no secret in what is printed, logged or written; what is none stays as it is."""

import contextlib
import logging
import os

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from splitsem import redaction
from splitsem.workflows.sweep import SweepCallback
from splitsem.workflows.tracking import Mlflow
from tests.conftest import ROOT

SECRET = "pl4nted-s3cret"


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch):
    monkeypatch.setattr(redaction, "_known", set())


@pytest.mark.parametrize(
    "said",
    [
        f"cannot reach postgresql://ann:{SECRET}@db:5432/runs",
        f"mysql+pymysql://ann:{SECRET}@w@rd/{SECRET}@db/x",
        f"https://{SECRET}@host/path and http://a:{SECRET}@b",
        f"postgresql://db/runs?user=ann&password={SECRET}&sslkey={SECRET}#x",
        f"tracking.uri=http://a:{SECRET}@host,+model.hub_token={SECRET}",
        f"{{'password': '{SECRET} {SECRET}', \"api-key\": \"{SECRET}\"}}",
        f"MLFLOW_TRACKING_TOKEN={SECRET} MLFLOW_TRACKING_PASSWORD='{SECRET}'",
        f"Authorization: Bearer {SECRET}",
        f"  client_secret: {SECRET}\n  x: 1",
    ],
)
def test_a_secret_is_hidden_by_its_place(said):
    assert SECRET not in redaction.text(said)


@pytest.mark.parametrize(
    "said",
    [
        "split.point=stage2 codec.keep_ratio=0.5 num_tokens=5 key=1",
        "transport.security.token_file=secret.txt",
        "postgresql://ann:${oc.env:PASSWORD}@db/runs",
        "model.hub_token=${oc.env:TOKEN}",
        "model.hub_token=null",
        "sqlite:////home/ann@work/mlflow.db",
    ],
)
def test_what_is_no_secret_stays(said):
    assert redaction.text(said) == said
    assert redaction.text(redaction.text(said)) == said


def test_settings_are_redacted_by_name_and_a_file_of_a_key_is_none():
    given = {
        "tracking": {"uri": f"http://a:{SECRET}@b", "passwords": ["x"]},
        "model": {"hub_token": SECRET, "secretKey": SECRET, "pin_password": 1234, "list": [f"+a.token={SECRET}"]},
        "security": {"key": "certs/edge.key", "token_file": "t.txt"},
        "trainer.password": SECRET,
    }
    clean = redaction.settings(given)
    assert SECRET not in str(clean)
    assert "1234" not in str(clean)
    assert clean["security"] == given["security"]


def test_a_known_secret_is_hidden_wherever_it_stands(capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    redaction.learn(dict(os.environ))
    redaction.learn({"uri": "http://a:p%40ssw0rd@b"})
    assert redaction.text(f"said {SECRET}, p@ssw0rd and p%40ssw0rd") == "said REDACTED, REDACTED and REDACTED"


def test_logs_and_tracebacks_hold_no_secret(caplog, monkeypatch):
    monkeypatch.setattr(logging, "getLogRecordFactory", lambda: logging.LogRecord)
    made = logging.Logger("x")
    shown: list[str] = []
    handler = logging.StreamHandler()
    handler.emit = lambda record: shown.append(handler.format(record))
    made.addHandler(handler)
    factory = logging._logRecordFactory
    try:
        logging.setLogRecordFactory(redaction._record)
        made.warning("at %s", f"http://a:{SECRET}@b")
        try:
            raise ValueError(f"password={SECRET}")
        except ValueError:
            made.exception("failed")
    finally:
        logging.setLogRecordFactory(factory)
    assert "ValueError" in shown[1]
    assert SECRET not in "".join(shown)


def test_what_hydra_wrote_is_redacted_before_the_job_and_the_job_keeps_its_value(tmp_path):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        overrides = [f"tracking.uri='http://a:{SECRET}@b'", "+model.password='${oc.env:HOME}'"]
        cfg = compose("config", overrides, return_hydra_config=True)
    OmegaConf.set_struct(cfg, False)
    cfg.hydra.runtime.output_dir, cfg.hydra.mode = str(tmp_path), "RUN"
    folder = tmp_path / ".hydra"
    folder.mkdir()
    hydra = OmegaConf.to_container(cfg.hydra, resolve=False)
    plain = {name: value for name, value in OmegaConf.to_container(cfg, resolve=False).items() if name != "hydra"}
    for name, content in {"config": plain, "hydra": {"hydra": hydra}, "overrides": overrides}.items():
        (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(content)))
        assert name == "hydra" or SECRET in (folder / f"{name}.yaml").read_text()
    SweepCallback().on_job_start(cfg)
    assert SECRET not in "".join(path.read_text() for path in folder.iterdir())
    written = OmegaConf.load(folder / "config.yaml")
    assert written.tracking.uri == "http://a:REDACTED@b"  # the user is no secret
    assert OmegaConf.to_container(written, resolve=False)["model"]["password"] == "${oc.env:HOME}"
    assert SECRET in cfg.tracking.uri


def test_mlflow_gets_no_secret(tmp_path, monkeypatch):
    tracker = Mlflow(f"sqlite:///{tmp_path}/a.db?password={SECRET}", "x", str(tmp_path))
    said: list[object] = []

    class Client:
        def create_run(self, *args, **options):
            said.append(options)
            raise KeyError

        def log_batch(self, *args):
            said.append([[str(dict(thing)) for thing in part] for part in args[1:]])

    monkeypatch.setattr(tracker, "_client", lambda **_: contextlib.nullcontext(Client()))
    with pytest.raises(KeyError):
        tracker.start("1", f"tracking.uri=http://a:{SECRET}@b", key="k")
    params = {"tracking.uri": tracker.uri, "model.hub_token": SECRET}
    tracker.log("1", params, {"command": f"--token={SECRET}"}, [], [])
    assert "model.hub_token" in str(said)
    assert SECRET not in str(said)


def test_a_folder_with_a_secret_in_its_name_is_refused(tmp_path):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        overrides = [f"tracking.uri='http://a:{SECRET}@b'", f"hydra.run.dir={tmp_path}/${{hydra.job.override_dirname}}"]
        cfg = compose("config", overrides, return_hydra_config=True)
    with pytest.raises(SystemExit, match=r"secret in its name .*oc\.env"):
        SweepCallback().on_run_start(cfg)


def test_left_texts_are_cleaned(tmp_path):
    path = tmp_path / "a" / "output.txt"
    path.parent.mkdir()
    path.write_text(f"http://a:{SECRET}@b\n")
    redaction.clean(tmp_path)
    assert path.read_text() == "http://REDACTED@b\n"
