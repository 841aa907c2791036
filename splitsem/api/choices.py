"""What ``serve`` and ``connect`` can be given."""

from splitsem.remote.grpc.streams import Limits as Limits
from splitsem_device.grpc.connection import Security as Security
from splitsem_device.retry import Backoff as Backoff
from splitsem_device.retry import Fixed as Fixed
from splitsem_device.retry import NoRetry as NoRetry
