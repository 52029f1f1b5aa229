"""What the documentation shows works."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from tests.contracts.tiny import UNET

from gyri import api
from gyri.cli import verbs
from gyri.cli.list import markdown
from gyri.recipe import parse_recipe
from gyri.registry import ALL, METHODS
from gyri.training.run import train

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_method_of_the_how_to_trains_and_samples(tiny_cohort, tmp_path, monkeypatch):
    page = (ROOT / "docs/how-to/add-a-method.md").read_text()
    path = tmp_path / "one_step.py"
    path.write_text(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1])
    list(METHODS)
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    spec = importlib.util.spec_from_file_location("one_step", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "one_step", module)
    spec.loader.exec_module(module)
    recipe = parse_recipe(
        {
            "name": "doc",
            "view": "slice",
            "method": "one_step",
            "networks": {"denoiser": UNET},
            "conditions": ["sex"],
            "training": {"steps": 2, "batch_size": 2},
        }
    )
    train(recipe, tiny_cohort, tmp_path / "run", quiet=True)
    cohort, _ = api.sample(tmp_path / "run", num=1, condition={"sex": "F"})
    assert cohort.volume_set().volumes.shape == (1, 1, 20, 24, 20)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_pages_name_only_verbs_and_files_that_exist(page):
    text = page.read_text()
    shown = "\n".join(re.findall(r"```.*?```", text, flags=re.DOTALL))
    named = set(re.findall(r"^\s*(?:torchrun .* -m )?gyri (\w+)", shown, re.MULTILINE))
    named |= set(re.findall(r"`gyri (\w+)", text))
    assert named <= set(verbs())
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", prose):
        assert (page.parent / target).exists(), target
    for recipe in re.findall(r"(recipes/[\w/.-]+\.yaml)", text):
        assert (ROOT / recipe).is_file(), recipe


def test_the_readme_is_short_and_its_commands_exist():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([\w-]+)", "\n".join(lines), re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_the_reference_page_is_up_to_date():
    page = (ROOT / "docs/reference/components.md").read_text()
    assert page == markdown([*ALL]), "run: gyri list --markdown > docs/reference/components.md"
