"""`mqkit plugins`: what is installed, and which hooks it implements."""

from dataclasses import asdict

from mqkit.cli.options import AsJson
from mqkit.cli.output import document, put, shown, table
from mqkit.plugins import Plugins
from mqkit.settings import load


def plugins(as_json: AsJson = False) -> None:
    """List the plugins: name, distribution, version, hooks.

    MQKIT_DISABLED_PLUGINS, or disabled_plugins in mqkit.toml, leaves some out.

    Examples:
      $ mqkit plugins
      $ mqkit plugins --json
    """
    settings = load({})
    found = Plugins(disabled=settings.disabled_plugins).listing()
    if as_json:
        document([asdict(plugin) for plugin in found])
        return
    rows = table("name", "distribution", "version", "hooks", long=["hooks"])
    for plugin in found:
        rows.add_row(
            shown(plugin.name), shown(plugin.distribution), shown(plugin.version), shown(", ".join(plugin.hooks))
        )
    put(rows)
