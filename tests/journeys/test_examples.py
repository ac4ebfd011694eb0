"""Every example runs: each file under examples/ is executed here or in the journey that is named beside it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
JOURNEYS = {
    "quickstart.py": "test_readme.py",
    "shop": "test_demo.py",
    "flask_shop": "test_web.py",
    "fastapi_shop": "test_web.py",
}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "MQKIT_URL": f"sqlite:///{folder / 'mqkit.db'}",
        "SHOP_LEDGER": str(folder / "ledger.db"),
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)


def test_every_example_has_a_journey() -> None:
    found = {p.name for p in EXAMPLES.iterdir() if not p.name.startswith("__") and p.name != "data"}
    assert found == JOURNEYS.keys()
    for journey in JOURNEYS.values():
        assert (ROOT / "tests/journeys" / journey).is_file()


def test_the_storefront_runs_alone_and_its_purchases_wait_for_billing(tmp_path: Path) -> None:
    run(tmp_path, sys.executable, "-m", "examples.shop.storefront")
    mqkit = str(Path(sys.executable).with_name("mqkit"))
    listed = run(tmp_path, mqkit, "inspect", "purchases", "billing", "--json")
    assert '"ready": 5000' in listed.stdout
