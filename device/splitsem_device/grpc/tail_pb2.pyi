from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class InfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class InfoReply(_message.Message):
    __slots__ = ("plan_json", "points", "codecs", "device", "version", "max_window")
    PLAN_JSON_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_WINDOW_FIELD_NUMBER: _ClassVar[int]
    plan_json: str
    points: _containers.RepeatedScalarFieldContainer[str]
    codecs: _containers.RepeatedScalarFieldContainer[str]
    device: str
    version: str
    max_window: int
    def __init__(self, plan_json: _Optional[str] = ..., points: _Optional[_Iterable[str]] = ..., codecs: _Optional[_Iterable[str]] = ..., device: _Optional[str] = ..., version: _Optional[str] = ..., max_window: _Optional[int] = ...) -> None: ...

class OpenRequest(_message.Message):
    __slots__ = ("plan_json",)
    PLAN_JSON_FIELD_NUMBER: _ClassVar[int]
    plan_json: str
    def __init__(self, plan_json: _Optional[str] = ...) -> None: ...

class OpenReply(_message.Message):
    __slots__ = ("session", "max_window")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    MAX_WINDOW_FIELD_NUMBER: _ClassVar[int]
    session: str
    max_window: int
    def __init__(self, session: _Optional[str] = ..., max_window: _Optional[int] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("session", "client", "request_id", "payload", "more", "num_answered")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    NUM_ANSWERED_FIELD_NUMBER: _ClassVar[int]
    session: str
    client: str
    request_id: int
    payload: bytes
    more: bool
    num_answered: int
    def __init__(self, session: _Optional[str] = ..., client: _Optional[str] = ..., request_id: _Optional[int] = ..., payload: _Optional[bytes] = ..., more: _Optional[bool] = ..., num_answered: _Optional[int] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("request_id", "server_s", "queue_s", "payload", "more")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_S_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    server_s: float
    queue_s: float
    payload: bytes
    more: bool
    def __init__(self, request_id: _Optional[int] = ..., server_s: _Optional[float] = ..., queue_s: _Optional[float] = ..., payload: _Optional[bytes] = ..., more: _Optional[bool] = ...) -> None: ...

class OpenTrainingRequest(_message.Message):
    __slots__ = ("plan_json", "client")
    PLAN_JSON_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    plan_json: str
    client: str
    def __init__(self, plan_json: _Optional[str] = ..., client: _Optional[str] = ...) -> None: ...

class OpenTrainingReply(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: str
    def __init__(self, session: _Optional[str] = ...) -> None: ...

class EchoRequest(_message.Message):
    __slots__ = ("payload",)
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    def __init__(self, payload: _Optional[bytes] = ...) -> None: ...

class EchoReply(_message.Message):
    __slots__ = ("num_bytes",)
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    num_bytes: int
    def __init__(self, num_bytes: _Optional[int] = ...) -> None: ...

class ProfileRequest(_message.Message):
    __slots__ = ("points", "budget_s", "session", "payload", "pause_s", "layers_s")
    POINTS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_S_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    PAUSE_S_FIELD_NUMBER: _ClassVar[int]
    LAYERS_S_FIELD_NUMBER: _ClassVar[int]
    points: _containers.RepeatedScalarFieldContainer[str]
    budget_s: float
    session: str
    payload: bytes
    pause_s: float
    layers_s: float
    def __init__(self, points: _Optional[_Iterable[str]] = ..., budget_s: _Optional[float] = ..., session: _Optional[str] = ..., payload: _Optional[bytes] = ..., pause_s: _Optional[float] = ..., layers_s: _Optional[float] = ...) -> None: ...

class ProfileReply(_message.Message):
    __slots__ = ("lut_json", "answer_s", "stages_s", "layers_json", "hops_busy_s", "hosts")
    LUT_JSON_FIELD_NUMBER: _ClassVar[int]
    ANSWER_S_FIELD_NUMBER: _ClassVar[int]
    STAGES_S_FIELD_NUMBER: _ClassVar[int]
    LAYERS_JSON_FIELD_NUMBER: _ClassVar[int]
    HOPS_BUSY_S_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    lut_json: str
    answer_s: float
    stages_s: _containers.RepeatedScalarFieldContainer[float]
    layers_json: str
    hops_busy_s: _containers.RepeatedScalarFieldContainer[float]
    hosts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lut_json: _Optional[str] = ..., answer_s: _Optional[float] = ..., stages_s: _Optional[_Iterable[float]] = ..., layers_json: _Optional[str] = ..., hops_busy_s: _Optional[_Iterable[float]] = ..., hosts: _Optional[_Iterable[str]] = ...) -> None: ...
