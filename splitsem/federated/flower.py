"""Flower's names, imported in one place with Flower's telemetry off and Flower's own log quiet."""

import logging
import os
import warnings

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # read when flwr is imported

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Flower's command line warns about a newer click
    from flwr.app import (
        Array,
        ArrayRecord,
        ConfigRecord,
        Context,
        Error,
        Message,
        MessageType,
        MetricRecord,
        MetricRecordValues,
        RecordDict,
    )
    from flwr.clientapp import ClientApp
    from flwr.clientapp.mod import LocalDpMod
    from flwr.clientapp.typing import ClientAppCallable, Mod
    from flwr.common.constant import ErrorCode
    from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
    from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.exception import AggregationError
    from flwr.serverapp.strategy import (
        DifferentialPrivacyClientSideAdaptiveClipping,
        DifferentialPrivacyServerSideAdaptiveClipping,
        FedAvg,
        FedAvgM,
        FedProx,
        Krum,
        MultiKrum,
        Strategy,
    )
    from flwr.serverapp.strategy.dp_adaptive_clipping import DifferentialPrivacyAdaptiveBase
    from flwr.serverapp.strategy.dp_fixed_clipping import DifferentialPrivacyFixedClippingBase
    from flwr.serverapp.strategy.fedopt import FedOpt
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity

logging.getLogger("flwr").setLevel(logging.ERROR)  # Flower logs each round's sampling; splitsem logs what matters

__all__ = [
    "AggregationError",
    "Array",
    "ArrayRecord",
    "ClientApp",
    "ClientAppCallable",
    "ConfigRecord",
    "Context",
    "DifferentialPrivacyAdaptiveBase",
    "DifferentialPrivacyClientSideAdaptiveClipping",
    "DifferentialPrivacyFixedClippingBase",
    "DifferentialPrivacyServerSideAdaptiveClipping",
    "Error",
    "ErrorCode",
    "FedAvg",
    "FedAvgM",
    "FedOpt",
    "FedProx",
    "Grid",
    "Krum",
    "LocalDpMod",
    "Message",
    "MessageType",
    "MetricRecord",
    "MetricRecordValues",
    "Mod",
    "MultiKrum",
    "RecordDict",
    "Run",
    "ServerApp",
    "Strategy",
    "TaskIdentity",
    "content_bytes",
    "copy_content",
    "from_bytes",
    "to_bytes",
]


def content_bytes(content: RecordDict) -> int:
    """Size of a message's content as Flower serialises it: payloads, their names, metrics and settings."""
    return recorddict_to_proto(content).ByteSize()


def copy_content(content: RecordDict) -> RecordDict:
    """What the other end would read: the content, serialised and parsed again."""
    return recorddict_from_proto(recorddict_to_proto(content))


def to_bytes(content: RecordDict) -> bytes:
    """The content as Flower serialises it."""
    return recorddict_to_proto(content).SerializeToString()


def from_bytes(data: bytes) -> RecordDict:
    """Undo ``to_bytes``."""
    return recorddict_from_proto(RecordDictProto.FromString(data))
