"""Where the common tail learns: in this process, on a server that is started here, or on one that runs elsewhere."""

import contextlib
import logging
from collections.abc import Callable, Iterator

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from splitsem.errors import ConfigError
from splitsem.training.engine import TrainingEngine
from splitsem.training.tail import LocalTrainingTail, TrainingTail
from splitsem.transport.remote import RemoteTransport
from splitsem.workflows.serve import training_transport

log = logging.getLogger(__name__)
_GRACE_S = 1.0


def checked_transport(cfg: DictConfig) -> RemoteTransport | None:
    """The configured transport; None for training in this process.

    Raises ConfigError when it carries no training, or when there is none and a server to be reached over it.
    """
    if OmegaConf.select(cfg, "transport") is None:
        if cfg.workflow.own_server:
            raise ConfigError("workflow.own_server needs a transport that reaches it: transport=grpc")
        return None
    transport = training_transport(cfg)
    if transport.start.how is not None:
        raise ConfigError("transport.start is for workflow=offload; start the training server by hand")
    return transport


@contextlib.contextmanager
def reach(cfg: DictConfig, make_engine: Callable[[], TrainingEngine]) -> Iterator[Callable[[], TrainingTail]]:
    """Makes the devices' ends of training with the tail; a server that is started here ends with the context.

    Without ``transport`` there is no network: the same messages are answered in this process.
    ``workflow.own_server`` starts a server on a free port of 127.0.0.1 and reaches it over the configured transport.

    Args:
        cfg: the configuration.
        make_engine: makes the engine of a server that is not elsewhere.

    Raises:
        ConfigError: see ``checked_transport``.
    """
    transport = checked_transport(cfg)
    if transport is None:
        engine = make_engine()
        yield lambda: LocalTrainingTail(engine)
        return
    if not cfg.workflow.own_server:
        yield transport.training_end
        return
    server = instantiate(cfg.transport, bind="127.0.0.1:0").server_end(make_engine().engine)
    address = server.start()
    log.info("The tail learns on a server of this process, %s", address)
    try:
        yield instantiate(cfg.transport, target=address).training_end
    finally:
        server.stop(_GRACE_S)
