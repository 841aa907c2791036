from .api.jobs import results as results
from .api.jobs import run as run
from .api.jobs import sweep as sweep
from .api.parts import codec as codec
from .api.parts import split as split

__version__: str
