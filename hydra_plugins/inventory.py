"""Inventory: machines that `workflow=profile hardware.save=NAME` saved are options of the group hardware/machine."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from splitsem.files import inventory_folder


class Inventory(SearchPathPlugin):
    """Adds the folder of saved machines to where Hydra looks for options, where there is one."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """See SearchPathPlugin."""
        folder = inventory_folder()
        if folder.is_dir():
            search_path.append(provider="inventory", path=f"file://{folder}")
