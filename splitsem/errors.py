"""The exceptions a user can meet.

SplitSemError
├── ConfigError       a setting, file or folder is missing or makes no sense
├── SplitPointError   no such split point; lists the valid ones
├── ContractError     a codec, task, link, machine or model breaks its contract; a line for each broken promise
├── PayloadError      bytes that are not a whole, undamaged payload of the expected codec
├── FunctionError     a function that a server offers raised an exception
└── LinkError         the other end cannot be reached (peer, status, number of tries)
    ├── SessionError  the server was restarted or made room, and does not know the session: open the plan again
    └── BusyError     the server has no room for this client or trainer, or is measuring itself: ask again later

All but one stand in ``splitsem_device.errors``, for boards that have only that package.
Bad constructor arguments raise ValueError with the argument's name, the rule and the value.
"""

from splitsem_device.errors import BusyError as BusyError
from splitsem_device.errors import ConfigError as ConfigError
from splitsem_device.errors import FunctionError as FunctionError
from splitsem_device.errors import LinkError as LinkError
from splitsem_device.errors import PayloadError as PayloadError
from splitsem_device.errors import SessionError as SessionError
from splitsem_device.errors import SplitPointError as SplitPointError
from splitsem_device.errors import SplitSemError as SplitSemError


class ContractError(SplitSemError):
    """A plug-in breaks its contract (splitsem.check): a line for each broken promise."""
