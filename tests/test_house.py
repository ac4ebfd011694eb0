"""What holds for the whole house: who imports whom, how large a file may grow, and what is written at its head."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mqkit
from mqkit import backend as seam

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "mqkit"

LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(layer.split())
    for layer in (
        "durations callables message errors immediate exits contexts process_signals",
        "signals topic topology events",
        "listeners arguments",
        "verdict backend",
        "legible schemas",
        "bodies round_trip",
        "structured attributes",
        "retry envelope codec middleware registry",
        "wrapping",
        "hookspecs ports daemons monitor signature",
        "announcements forks",
        "event_loop threads plugins handler outbox alone",
        "session_thread",
        "lanes telling hooks",
        "bridge settings in_flight producer",
        "workers registration app_options dead copies declarations",
        "storing",
        "pump",
        "stopping",
        "pull",
        "engine loop_watch",
        "app from_thread",
        "async_app",
    )
)
"""Imports go down only: each room imports from layers below its own."""
PURE = (
    "message",
    "errors",
    "signals",
    "verdict",
    "envelope",
    "codec",
    "bodies",
    "attributes",
    "structured",
    "round_trip",
    "schemas",
    "legible",
    "ports",
    "retry",
    "topology",
    "topic",
    "events",
    "backend",
    "middleware",
    "registry",
    "hookspecs",
    "durations",
    "callables",
    "immediate",
    "copies",
    "wrapping",
    "signature",
)
"""Decisions, facts and shapes: no clock, no waiting, no network."""
TIMELESS = (
    "alone",
    "pump",
    "storing",
    "producer",
    "dead",
    "handler",
    "in_flight",
    "lanes",
    "telling",
    "workers",
    "stopping",
    "pull",
    "engine",
)
"""Orchestration: it waits through its ports alone."""
WAITING = {"asyncio", "threading", "time", "socket", "select", "selectors", "concurrent", "multiprocessing", "signal"}
FOR_BACKENDS = {"message", "errors", "backend", "topology", "durations", "topic", "registry", "hookspecs", "immediate"}
DRIVERS = {
    "memory": set[str](),
    "sqlite": {"sqlite3"},
    "rabbitmq": {"pika", "aio_pika", "aiormq", "pamqp", "yarl"},
    "kafka": {"confluent_kafka"},
}
LONG: dict[str, str] = {}
"""Files of more than 400 lines, and why."""
FORBIDDEN_NAMES = re.compile(
    r"(?:^|_)(utils?|helpers?|common|base|managers?|misc)(?:_|$)|[a-z](Manager|Helper|Util|Factory|Base)$|^Base[A-Z]"
)
REGISTRIES = tuple(
    ".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("maven", "org"))
)


def modules(folder: Path = HOUSE) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def rooms() -> list[Path]:
    """The modules right in the house."""
    return [path for path in modules() if path.parent == HOUSE and path.stem not in ("__init__", "__main__")]


def named(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside of functions and for type checkers only."""
    package = named(path) if path.stem == "__init__" else named(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*parent, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                is_module = (ROOT / inner.replace(".", "/")).with_suffix(".py").exists() or (
                    ROOT / inner.replace(".", "/")
                ).is_dir()
                yield inner if source.startswith("mqkit") and is_module else source


def level(room: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if room in layer)


def room_of(module: str) -> str:
    return module.split(".")[1] if module.startswith("mqkit.") else ""


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_room_has_its_place() -> None:
    assert {path.stem for path in rooms()} == set().union(*LAYERS)


@pytest.mark.parametrize("path", rooms(), ids=ids)
def test_imports_go_down_only(path: Path) -> None:
    room = path.stem
    wrong = [
        other
        for other in map(room_of, imports(path))
        if other and (other not in set().union(*LAYERS) or level(other) >= level(room))
    ]
    assert not wrong, f"mqkit.{room} may not import {', '.join(wrong)}"


def test_the_reader_of_imports_sees_them_wherever_they_stand() -> None:
    everywhere = set().union(*(imports(path) for path in modules()))
    assert {"mqkit.settings", "mqkit.hookspecs", "asyncio", "pydantic", "mqkit.app"} <= everywhere
    assert "mqkit.settings" in set(imports(HOUSE / "app.py")), "inside of a function"
    assert "mqkit.codec" in set(imports(HOUSE / "hookspecs.py")), "for type checkers"


@pytest.mark.parametrize("room", PURE)
def test_decisions_know_no_clock_and_no_network(room: str) -> None:
    assert not WAITING & {module.split(".")[0] for module in imports(HOUSE / f"{room}.py")}


@pytest.mark.parametrize("room", TIMELESS)
def test_orchestration_waits_through_its_ports_alone(room: str) -> None:
    assert not WAITING & {module.split(".")[0] for module in imports(HOUSE / f"{room}.py")}


@pytest.mark.parametrize("room", ["message", "errors", "durations", "callables"])
def test_the_lowest_rooms_import_nothing_of_ours(room: str) -> None:
    assert not [module for module in imports(HOUSE / f"{room}.py") if module.startswith("mqkit")]


BACKENDS = sorted(path for path in (HOUSE / "backends").iterdir() if path.stem not in ("__init__", "__pycache__"))


@pytest.mark.parametrize("folder", BACKENDS, ids=ids)
def test_a_backend_imports_the_seam_and_its_driver_and_no_other_backend(folder: Path) -> None:
    others = set().union(*(drivers for name, drivers in DRIVERS.items() if name != folder.stem))
    for path in modules(folder) if folder.is_dir() else [folder]:
        for module in imports(path):
            if module.startswith("mqkit.backends"):
                assert module.split(".")[2] == folder.stem, f"{ids(path)} imports {module}"
            elif module.startswith("mqkit"):
                assert room_of(module) in FOR_BACKENDS, f"{ids(path)} imports {module}"
            assert module.split(".")[0] not in others, f"{ids(path)} imports {module}"


def test_only_backends_import_drivers() -> None:
    every = set().union(*DRIVERS.values())
    for path in modules():
        removal = path == HOUSE / "bench" / "removal.py"  # what no backend does for a service
        if not (path.is_relative_to(HOUSE / "backends") or path.is_relative_to(HOUSE / "testing") or removal):
            assert not every & {module.split(".")[0] for module in imports(path)}, ids(path)


def loaded_by(code: str) -> set[str]:
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(out.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import mqkit",
        "import mqkit.backends.rabbitmq, mqkit.backends.kafka, mqkit.backends.sqlite, mqkit.backends.memory",
    ],
)
def test_importing_loads_no_driver(code: str) -> None:
    loaded = loaded_by(code)
    assert "mqkit" in loaded
    assert not loaded & (set().union(*DRIVERS.values()) | {"typer", "rich", "pytest", "hypothesis"})


def test_making_an_app_loads_no_driver() -> None:
    loaded = loaded_by("from mqkit import AsyncApp\nAsyncApp('memory://')")
    assert not loaded & (set().union(*DRIVERS.values()) | {"typer", "rich"})


def test_importing_mqkit_brings_the_standard_library_and_pluggy_alone() -> None:
    brought = {name.partition(".")[0] for name in loaded_by("import mqkit") - loaded_by("pass")}
    assert brought - sys.stdlib_module_names == {"mqkit", "pluggy"}


def test_importing_takes_little_more_than_what_it_imports() -> None:
    """In calls of functions, so that neither the machine nor its load counts: about 1.4 times as many."""

    def calls(code: str) -> int:
        """Of Python and C, while `code` runs in a process of its own."""
        lines = (
            "import sys, itertools",
            "calls = itertools.count()",
            "sys.setprofile(lambda *_: next(calls))",
            code,
            "sys.setprofile(None)",
            "print(next(calls))",
        )
        done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
        return int(done.stdout)

    brought = {name for name in loaded_by("import mqkit") - loaded_by("pass") if name.partition(".")[0] != "mqkit"}
    importable = sorted(name for name in brought if "typing." not in name)  # typing.io is no module that can be named
    assert calls("import mqkit") < 1.6 * calls(f"import {', '.join(importable)}")


@pytest.mark.parametrize("path", modules(), ids=ids)
def test_no_file_grows_beyond_400_lines_without_a_reason(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= (650 if ids(path).removeprefix("mqkit/") in LONG else 400)


def test_the_list_of_long_files_is_not_longer_than_it_must_be() -> None:
    assert {name for name in LONG if len((HOUSE / name).read_text().splitlines()) <= 400} == set()


@pytest.mark.parametrize("path", [*modules(), *modules(ROOT / "testcontainers"), *modules(ROOT / "plugins")], ids=ids)
def test_every_module_says_in_eight_lines_what_belongs_there(path: Path) -> None:
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert doc, "no docstring"
    draws = re.search(r"[├└│]|^\w.*\S {2,}\S", doc, re.MULTILINE)
    assert draws or len([line for line in doc.splitlines() if line.strip()]) <= 8


@pytest.mark.parametrize("path", modules(), ids=ids)
def test_nothing_is_named_for_being_a_heap(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = {path.stem} | {
        node.name for node in ast.walk(tree) if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert not [name for name in names if FORBIDDEN_NAMES.search(name)]


def test_the_heap_detector_detects() -> None:
    for name in ("utils", "kafka_helpers", "common", "base", "PluginManager", "BaseBackend", "misc"):
        assert FORBIDDEN_NAMES.search(name), name
    for name in ("database", "commons_of", "manage", "BackendSpec"):
        assert not FORBIDDEN_NAMES.search(name), name


def test_testcontainers_hides_no_library() -> None:
    assert not (ROOT / "testcontainers" / "__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_every_method_of_the_seam_is_specified() -> None:
    tree = ast.parse(Path(seam.__file__).read_text())
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            assert ast.get_docstring(node), node.name
            for part in node.body:
                if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    assert ast.get_docstring(part), f"{node.name}.{part.name}"


def test_both_colours_of_the_seam_say_the_same_words() -> None:
    for plain, blocking in (
        ("Backend", "BlockingBackend"),
        ("Sender", "BlockingSender"),
        ("Receiver", "BlockingReceiver"),
    ):

        def words(name: str) -> dict[str, list[str]]:
            return {
                method: list(function.__code__.co_varnames[: function.__code__.co_argcount])
                for method, function in vars(getattr(seam, name)).items()
                if callable(function) and not method.startswith("_")
            }

        assert words(plain) == words(blocking)


def test_the_rooms_are_listed_in_the_front_door() -> None:
    assert mqkit.__doc__ is not None
    listed = set(re.findall(r"\w+", " ".join(re.split(r" {2,}", line)[0] for line in mqkit.__doc__.splitlines()[4:])))
    assert {path.stem for path in rooms()} | {"backends", "testing", "bench", "cli"} <= listed


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_file_names_a_package_registry_or_a_place_on_somebodys_machine() -> None:
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for registry in REGISTRIES:
            assert registry not in text, ids(path)
        assert not re.search(r"/(?:root|home/\w+|Users/\w+)/", text), ids(path)
