"""The extras: which packages each brings beyond the core, and the one line that a user reads where one is missing.

``pip install splitsem`` brings what cuts, encodes, sends and serves; docs/installing.md has the table. Code that needs
more imports it where it is used, inside ``needed``. What no ``needed`` stands around is told by ``line_of``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from splitsem.errors import ExtraError

# Names as pip knows them; a package may be in two extras, the first is named. tests/unit/test_extras.py holds this and
# pyproject.toml together.
PACKAGES: dict[str, tuple[str, ...]] = {
    "training": ("lightning", "scikit-learn", "scipy"),
    "plots": ("jinja2", "matplotlib", "openpyxl", "pandas", "pyarrow", "scipy", "seaborn"),
    "tracking": ("mlflow",),
    "vision": ("timm", "torchvision"),
    "sweeps": ("hydra-joblib-launcher", "hydra-optuna-sweeper"),
    "federated": ("flwr",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "transformers": ("transformers",),
    "detection": ("av", "libreyolo", "pycocotools"),
    "ultralytics": ("ultralytics",),
    "simulation": ("ray",),
    "postgres": ("psycopg",),
    "slurm": ("hydra-submitit-launcher",),
}
IN_ALL = ("training", "plots", "tracking", "vision", "sweeps", "federated", "export", "transformers")
"""What ``splitsem[all]`` is. The others have licences, sizes or services of their own."""

_MODULES = {
    "scikit-learn": "sklearn",
    "hydra-joblib-launcher": "hydra_plugins.hydra_joblib_launcher",
    "hydra-optuna-sweeper": "hydra_plugins.hydra_optuna_sweeper",
    "hydra-submitit-launcher": "hydra_plugins.hydra_submitit_launcher",
}
"""Under which name a package is imported, where that is another."""

_PLUGINS = {
    "hydra/launcher/joblib": "hydra-joblib-launcher",
    "hydra/sweeper/optuna": "hydra-optuna-sweeper",
    "hydra/launcher/submitit_slurm": "hydra-submitit-launcher",
    "hydra/launcher/submitit_local": "hydra-submitit-launcher",
}
"""Options of Hydra's own groups that a package brings."""


@contextmanager
def needed(extra: str, what: str, note: str = "") -> Iterator[None]:
    """Around imports of packages that an extra brings.

    Args:
        extra: its name in ``PACKAGES``.
        what: what needs it, the line's subject: ``model=timm``.
        note: what more to know before it is installed, or what to do without it.

    Raises:
        ConfigError: a package is missing or cannot be imported; one line with pip's command.
    """
    try:
        yield
    except ImportError as exc:
        package = _package_of(exc)
        if package is None:  # it is there, and something of its own is not
            raise ExtraError(f"{_line(what, extra, f'the extra {extra}', note)} ({_first_line(exc)})") from exc
        raise ExtraError(_line(what, extra, package, note)) from exc


def check(extra: str, what: str, note: str = "") -> None:
    """Refuse what needs an extra before any work is done; nothing is imported. For the arguments see ``needed``.

    Raises:
        ExtraError: a package of it is missing; one line with pip's command.
    """
    for package in PACKAGES[extra]:
        if not _is_there(package):
            raise ExtraError(_line(what, extra, package, note))


def has(extra: str) -> bool:
    """Whether all packages of an extra are installed."""
    return all(map(_is_there, PACKAGES[extra]))


def missing() -> dict[str, list[str]]:
    """For each extra, the packages that are not installed."""
    return {extra: [name for name in names if not _is_there(name)] for extra, names in PACKAGES.items()}


def line_of(exc: BaseException, what: str = "this") -> str | None:
    """The line for an import that failed somewhere below ``exc``; None where it is of no extra's package."""
    cause: BaseException | None = exc
    while cause is not None:
        if (package := _package_of(cause)) is not None:
            return _line(what, _extra_of(package), package)
        cause = cause.__cause__
    return None


def line_of_option(file: str) -> str | None:
    """The line for an option that Hydra lacks, e.g. ``hydra/sweeper/optuna``; None where no extra brings it."""
    package = _PLUGINS.get(file)
    return _line("=".join(file.rsplit("/", 1)), _extra_of(package), package) if package else None


def _line(what: str, extra: str, package: str, note: str = "") -> str:
    """What is missing and pip's command; where ``all`` has the extra too, that, since a run may lack several."""
    or_all = " (or 'splitsem[all]')" if extra in IN_ALL else ""
    return f"{what} needs {package}: pip install 'splitsem[{extra}]'{or_all}{note and f'; {note}'}"


def _package_of(exc: BaseException) -> str | None:
    """The package of an extra that is not installed, where ``exc`` says so."""
    if not isinstance(exc, ModuleNotFoundError) or exc.name is None:
        return None
    packages = dict.fromkeys(package for packages in PACKAGES.values() for package in packages)
    return next((one for one in packages if f"{exc.name}.".startswith(f"{_module_of(one)}.")), None)


def _extra_of(package: str) -> str:
    return next(extra for extra, packages in PACKAGES.items() if package in packages)


def _module_of(package: str) -> str:
    return _MODULES.get(package, package)


def _first_line(exc: BaseException) -> str:
    return str(exc).strip().partition("\n")[0]


def _is_there(package: str) -> bool:
    try:
        return find_spec(_module_of(package)) is not None
    except ModuleNotFoundError:  # the package that it lies in
        return False
