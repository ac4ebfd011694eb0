"""Extension, proved: a plugin is built, installed outside of this tree, found, tested by the contract, and used."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PLUGIN = ROOT / "plugins" / "mqkit-files"


class Site:
    """A folder with the installed plugin, and processes that see it beside what is installed anyway."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str, cwd: Path, timeout: float = 60) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MQKIT_", "PYTEST_"))}
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd,
            env={**environment, "PYTHONPATH": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
        return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The plugin as a wheel, built without a network from a copy, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("extension")
    source = shutil.copytree(PLUGIN, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", folder / "site", wheel], check=True)
    return Site(folder / "site")


def test_the_plugin_is_found_by_its_entry_point_with_backend_and_middleware(site: Site, tmp_path: Path) -> None:
    code = """
import mqkit_files
from mqkit import AsyncApp
app = AsyncApp("files:///nowhere")
(plugin,) = [found for found in app.engine.plugins.listing() if found.name == "files"]
print(plugin.distribution, plugin.version, *plugin.hooks)
print(app.engine.plugins.backends.spec("files:///x").summary)
print(app.engine.plugins.collect("mqkit_middleware") == [mqkit_files.timing], mqkit_files.__file__)
"""
    first, second, third = site.run("-c", code, cwd=tmp_path).splitlines()
    assert first == "mqkit-files 0.1.0 mqkit_backends mqkit_middleware"
    assert second == "Files in a folder, shared by the processes of one machine."
    assert third == f"True {site.folder / 'mqkit_files.py'}"


def test_it_can_be_disabled_by_its_name(site: Site, tmp_path: Path) -> None:
    code = """
import os
from mqkit import AsyncApp, ConfigurationError
os.environ["MQKIT_DISABLED_PLUGINS"] = "files"
app = AsyncApp("files:///nowhere")
try:
    app.engine.plugins.backends.spec(app.settings.url)
except ConfigurationError as error:
    print(error)
"""
    assert "no backend answers to 'files' URLs" in site.run("-c", code, cwd=tmp_path)


def test_its_middleware_stands_around_every_handler(site: Site, tmp_path: Path) -> None:
    code = """
import asyncio, logging, sys
from mqkit import AsyncApp, Topic
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
topic = Topic("orders", groups=["billing"])
app = AsyncApp("memory://")
handled = asyncio.Event()

@app.subscribe(topic, group="billing")
async def bill(payload):
    handled.set()

async def main():
    async with app.working():
        await app.publish(topic, {}, id="the-id")
        await asyncio.wait_for(handled.wait(), 10)

asyncio.run(main())
"""
    assert "mqkit.files:orders.billing took" in site.run("-c", code, cwd=tmp_path)


@pytest.mark.timeout(600)
def test_its_backend_keeps_the_contract(site: Site, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    short = [] if pytestconfig.getoption("--all") else ["--promises-short"]
    shutil.copy(PLUGIN / "test_files.py", tmp_path)
    out = site.run(
        "-m", "pytest", "test_files.py", "-q", "-p", "mqkit.testing.report", "-p", "no:cacheprovider", "--strict-markers",
        "--timeout=120", "--numprocesses=2", *short, cwd=tmp_path, timeout=580,
    )  # fmt: skip
    passed = re.search(r"(\d+) passed", out.splitlines()[-1])
    assert passed, out
    assert int(passed[1]) > 40, "many ran; that none failed, the exit code told"


@pytest.mark.timeout(300)
def test_a_service_is_switched_to_it_by_its_url_alone(site: Site, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    site.run("-m", "examples.shop.demo", "--url", f"files://{spool}", cwd=ROOT, timeout=280)
    topics = [path.name for path in spool.iterdir() if path.is_dir()]
    assert [name for name in topics if name.endswith(".purchases")]
