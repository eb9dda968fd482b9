"""What is installed, pinned and documented is what is there."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import get_type_hints

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements() -> dict[str, list[Requirement]]:
    """The declared requirements, the base ones under `base`, the extras under their names."""
    groups = {"base": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    return {group: [Requirement(line) for line in lines] for group, lines in groups.items()}


def pins() -> dict[str, str]:
    """The version of each distribution in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in found.items()}


def closure(wanted: list[Requirement]) -> dict[str, list[Requirement]]:
    """Every installed distribution that requirements lead to, with the requirements that name it."""
    found: dict[str, list[Requirement]] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(requirement, "") for requirement in wanted]
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found.setdefault(name, []).append(requirement)
        for wanted_extra in {"", *requirement.extras}:
            if (name, wanted_extra) not in seen:
                seen.add((name, wanted_extra))
                try:
                    lines = metadata.requires(name) or []
                except metadata.PackageNotFoundError:
                    continue
                todo += [(Requirement(line), wanted_extra) for line in lines]
    return found


@pytest.mark.skipif(sys.version_info < (3, 11), reason="constraints.txt is for Python 3.11 and 3.12")
@pytest.mark.parametrize("group", requirements())
def test_constraints_pin_every_dependency_and_theirs(group):
    pinned = pins()
    needed = closure(requirements()[group])
    assert sorted(set(needed) - set(pinned)) == []
    unmet = [str(r) for name, rs in needed.items() for r in rs if pinned[name] not in r.specifier]
    assert unmet == []


def imported(node: ast.AST) -> set[str]:
    """Names of the packages that a statement imports, none for another statement or the standard library."""
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom) and not node.level:
        names = [node.module or ""]
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)


def test_every_imported_package_is_declared_and_those_of_extras_are_imported_late():
    distributions = metadata.packages_distributions()
    declared = {group: {canonicalize_name(r.name) for r in wanted} for group, wanted in requirements().items()}
    ours = {"ocr_model", "trainer", "pipelines"}
    missing = {}
    for path in [p for folder in sorted(ours) for p in (ROOT / folder).rglob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        of_jax = declared["jax"] if path.name.startswith("jax_") else set()  # nothing else imports these modules
        for node in ast.walk(tree):
            late = set() if node in tree.body else declared["gcp"] | declared["ingest"]
            allowed = declared["base"] | of_jax | late
            for top in imported(node) - ours:
                owners = {canonicalize_name(owner) for owner in distributions.get(top, [top])}
                if not owners & allowed:
                    missing.setdefault(top, []).append(str(path.relative_to(ROOT)))
    assert missing == {}


def test_built_package_holds_every_file_of_the_tree(tmp_path):
    (tmp_path / "info").mkdir()
    commands = ["egg_info", "--egg-base", str(tmp_path / "info"), "build_py", "--build-lib", str(tmp_path / "lib")]
    subprocess.run([sys.executable, "setup.py", "--quiet", *commands], cwd=ROOT, check=True, capture_output=True)
    ours = [p for folder in ("ocr_model", "pipelines", "trainer") for p in (ROOT / folder).rglob("*") if p.is_file()]
    expected = {str(p.relative_to(ROOT)) for p in ours if "__pycache__" not in p.parts}
    built = {str(p.relative_to(tmp_path / "lib")) for p in (tmp_path / "lib").rglob("*") if p.is_file()}
    assert built == expected


def test_default_model_is_small_enough_to_ship():
    size = sum(p.stat().st_size for p in (ROOT / "ocr_model" / "models").rglob("*") if p.is_file())
    assert size < 10_000_000


def test_command_ends_with_the_value_of_main():
    (command,) = metadata.entry_points(group="console_scripts", name="pagemill")
    assert command.value == PROJECT["scripts"]["pagemill"]
    assert get_type_hints(command.load())["return"] is int


def test_changelog_and_metadata_name_the_same_version():
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert released[0] == PROJECT["version"] == metadata.version("pagemill")


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", ".ci/run"])
def test_every_named_make_target_exists(document):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = re.findall(r"(?:^ *|`)make ([a-z]+)", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE)
    assert named
    assert set(named) <= targets


def test_no_text_names_a_path_of_one_machine():
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True)
    suffixes = {"", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}
    paths = [ROOT / name for name in listed.stdout.split("\0") if name and Path(name).suffix in suffixes]
    folders = "|".join(["home", "mnt", "root", "Users", "work", "workspace"])
    machine_path = re.compile(rf"(?<![\w.:/~-])/(?:{folders})/\w")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in paths
        if path.is_file()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if machine_path.search(line)
    ]
    assert found == []
