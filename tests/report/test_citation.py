from __future__ import annotations

from pathlib import Path

import yaml

from gyri.report.citation import methods, software


def test_the_entry_agrees_with_the_citation_file():
    path = Path(__file__).parents[2] / "CITATION.cff"
    cited = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = software()
    assert found["title"] == cited["title"]
    assert found["version"] == cited["version"]
    assert found["author"] == cited["authors"][0]["name"]
    assert cited["version"] in found["bibtex"]
    assert found["bibtex"].startswith("@software{gyri,")


def test_what_was_used_is_named_with_its_papers():
    recipe = {
        "view": "volume",
        "method": {"name": "ddpm"},
        "networks": {"denoiser": {"name": "unet"}},
    }
    scores = {"scores": [{"metric": "kid", "features": "morph-v1"}, {"metric": "fd"}]}
    found = {entry["name"]: entry for entry in methods(scores, {"recipe": recipe})}
    assert {"volume", "ddpm", "unet", "kid", "fd", "morph-v1"} == set(found)
    assert "arXiv:2006.11239" in found["ddpm"]["papers"]
    assert "Heusel 2017" in found["fd"]["papers"]
    assert found["kid"]["kind"] == "metric"


def test_what_is_not_known_is_left_out():
    scores = {"scores": [{"metric": "elsewhere", "features": None}]}
    assert methods(scores, {"recipe": "a: 1\n"}) == []
