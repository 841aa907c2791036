"""The exceptions a user can meet, each with its code.

SplitSemError             E-SPLITSEM
├── ConfigError           E-CONFIG       a setting, file or folder is missing or makes no sense
│   ├── BundleError       E-BUNDLE       a bundle for a board is missing, damaged or of another version
│   ├── CheckpointError   E-CHECKPOINT   a file of weights is missing, damaged or of another network
│   ├── DataError         E-DATA         a data set's files are missing, damaged or laid out otherwise
│   ├── ExtraError        E-EXTRA        a package is not installed
│   ├── FolderError       E-FOLDER       a folder of results cannot be used
│   ├── MachineError      E-MACHINE      a table or model of a machine is missing or does not fit
│   ├── ModelError        E-MODEL        a network cannot be made or used
│   ├── RenamedError      E-RENAMED      a setting has another name now
│   ├── SecurityError     E-SECURITY     TLS is not set up
│   └── SettingError      E-SETTING      there is no such setting, or it does not take the value
├── SplitPointError       E-SPLIT-POINT  no such split point; lists the valid ones
├── ContractError         E-CONTRACT     a codec, task, link, machine or model breaks its contract; a line each
├── PayloadError          E-PAYLOAD      bytes that are not a whole, undamaged payload of the expected codec
├── FunctionError         E-FUNCTION     a function that a server offers raised an exception
└── LinkError             E-LINK         the other end cannot be reached (peer, status, number of tries)
    ├── SessionError      E-SESSION      the server does not know the session: open the plan again
    ├── TokenError        E-TOKEN        the server asks for a token, and this end shows none or another
    └── BusyError         E-BUSY         the server has no room, or is measuring itself: ask again later

What boards need stands in ``splitsem_device.errors``, for those that have only that package.
Bad constructor arguments raise ValueError with the argument's name, the rule and the value.
"""

from splitsem_device.errors import BundleError as BundleError
from splitsem_device.errors import BusyError as BusyError
from splitsem_device.errors import ConfigError as ConfigError
from splitsem_device.errors import FunctionError as FunctionError
from splitsem_device.errors import LinkError as LinkError
from splitsem_device.errors import PayloadError as PayloadError
from splitsem_device.errors import SecurityError as SecurityError
from splitsem_device.errors import SessionError as SessionError
from splitsem_device.errors import SplitPointError as SplitPointError
from splitsem_device.errors import SplitSemError as SplitSemError
from splitsem_device.errors import TokenError as TokenError
from splitsem_device.errors import coded as coded


class CheckpointError(ConfigError):
    """A file of weights is missing, damaged, or of another network."""

    code = "E-CHECKPOINT"


class DataError(ConfigError):
    """A data set's files are missing, damaged, or laid out otherwise; the message says what layout is read."""

    code = "E-DATA"


class ExtraError(ConfigError):
    """A package that an extra brings is not installed; the message is pip's command."""

    code = "E-EXTRA"


class FolderError(ConfigError):
    """A folder of results cannot be used: it has results already, or cannot be written."""

    code = "E-FOLDER"


class MachineError(ConfigError):
    """A table or model of a machine is missing, damaged, or does not fit the network."""

    code = "E-MACHINE"


class ModelError(ConfigError):
    """A network cannot be made or used: its file, its name or its settings."""

    code = "E-MODEL"


class RenamedError(ConfigError):
    """A setting or an option has another name now; the message gives it."""

    code = "E-RENAMED"


class SettingError(ConfigError):
    """There is no such setting, or it does not take this value; the message says which it takes."""

    code = "E-SETTING"


class ContractError(SplitSemError):
    """A plug-in breaks its contract (splitsem.check): a line for each broken promise.

    Attributes:
        kept: the promises that it keeps, as far as they were tried.
    """

    code = "E-CONTRACT"
    kept: tuple[str, ...] = ()
