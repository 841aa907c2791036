"""training_handlers: the RPCs of split training, from gRPC to a TrainingEngine; see tail.proto."""

import grpc

from splitsem.errors import ConfigError, PayloadError
from splitsem.training.engine import TrainingEngine
from splitsem.training.plan import TrainingPlan
from splitsem.transport.grpc import tail_pb2
from splitsem.transport.grpc.frames import Frame, Reply
from splitsem.transport.grpc.limits import Limits
from splitsem.transport.grpc.statuses import statuses


def training_handlers(engine: TrainingEngine | None, limits: Limits) -> dict[str, grpc.RpcMethodHandler]:
    """OpenTraining and Train; without an engine each says that this server does not train."""

    def trains() -> TrainingEngine:
        if engine is None:
            raise ConfigError("this server does not train: start it with workflow.training=true")
        return engine

    def open_(request: tail_pb2.OpenTrainingRequest, context: grpc.ServicerContext) -> tail_pb2.OpenTrainingReply:
        with statuses(context):
            session = trains().open(TrainingPlan.from_json(request.plan_json), request.client)
        return tail_pb2.OpenTrainingReply(session=session)

    def train(frame: Frame, context: grpc.ServicerContext) -> Reply:
        with statuses(context):
            most = limits.max_payload_bytes
            if most is not None and len(frame.payload) > most:
                raise PayloadError(f"expected a payload of at most {most} bytes, got {len(frame.payload)}")
            payload, server_s = trains().answer(frame.session, frame.request_id, frame.payload[:])
        return Reply(frame.request_id, server_s, 0.0, payload)

    return {
        "OpenTraining": grpc.unary_unary_rpc_method_handler(
            open_, tail_pb2.OpenTrainingRequest.FromString, tail_pb2.OpenTrainingReply.SerializeToString
        ),
        "Train": grpc.unary_unary_rpc_method_handler(train, Frame.from_bytes, Reply.to_bytes),
    }
