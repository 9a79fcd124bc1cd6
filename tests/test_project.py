"""The project's own files agree with each other, and importing tedlens stays cheap."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import tedlens

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# conda-forge's names, where they are not PyPI's.
CONDA = {"build": "python-build", "kaleido": "python-kaleido", "playwright": "playwright-python", "torch": "pytorch"}


def declared() -> list[Requirement]:
    """What pyproject.toml asks for: at run time and in every extra."""
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(line) for line in [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_dependency_has_a_lower_bound():
    assert [str(need) for need in declared() if ">=" not in str(need.specifier)] == []


def test_conda_environment_says_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    given = [Requirement(line) for line in environment if isinstance(line, str) and line != "pip"]
    wanted = {canonicalize_name(CONDA.get(need.name, need.name)): need.specifier for need in declared()}
    wanted["python"] = SpecifierSet(PROJECT["requires-python"])
    assert {canonicalize_name(line.name): line.specifier for line in given} == wanted


def test_constraints_pin_every_dependency():
    assert {canonicalize_name(need.name) for need in declared()} - pins().keys() == set()


def test_pins_are_within_the_bounds():
    version = pins()
    outside = [str(need) for need in declared() if version[canonicalize_name(need.name)] not in need.specifier]
    assert outside == []


def test_one_version_everywhere():
    changes = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    newest = next(title for title in changes if title != "Unreleased")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert newest == f"{tedlens.__version__} ({citation['date-released']})"
    assert citation["version"] == tedlens.__version__


def test_issue_forms_have_what_github_asks_for():
    """It shows a form that it cannot read as a blank page."""
    forms = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))]
    assert len(forms) == 2
    for form in forms:
        assert all(isinstance(form[key], str) for key in ("name", "description"))
        assert {field["type"] for field in form["body"]} <= {"input", "textarea"}
        assert all(field["attributes"]["label"] for field in form["body"])
        ids = [field["id"] for field in form["body"]]
        assert "info" in ids
        assert len(set(ids)) == len(ids)


def test_import_loads_neither_torch_nor_diffusers():
    code = "import sys, tedlens; print({'torch', 'diffusers'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
