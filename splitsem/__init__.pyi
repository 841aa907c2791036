from . import errors as errors
from .api.choices import Backoff as Backoff
from .api.choices import Fixed as Fixed
from .api.choices import Limits as Limits
from .api.choices import NoRetry as NoRetry
from .api.choices import Security as Security
from .api.jobs import results as results
from .api.jobs import run as run
from .api.jobs import sweep as sweep
from .api.parts import codec as codec
from .api.parts import split as split
from .remote.calling import connect as connect
from .remote.calling import connect_async as connect_async
from .remote.serving import serve as serve

__version__: str
