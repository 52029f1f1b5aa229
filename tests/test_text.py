"""Free text as a condition, end to end with an encoder made here."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
import torch

from gyri import api
from gyri.conditions import ConditionSchema
from gyri.errors import DataError, UsageError
from gyri.recipe import load_recipe, parse_recipe
from gyri.synthesis import draw, sweep_values

transformers = pytest.importorskip("transformers")

WORDS = ("normal", "mild", "severe", "atrophy", "of", "the", "hippocampus", "brain")
REPORTS = ("normal brain", "mild atrophy", "severe atrophy of the hippocampus")
KINDS = {"report": "categorical", "age": "continuous"}


def write_encoder(folder, seed=0):
    """Write a small BERT of random weights."""
    folder.mkdir()
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    vocabulary = {word: k for k, word in enumerate((*special, *WORDS))}
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=12,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("text") / "bert")


@pytest.fixture(scope="module")
def schema(encoder):
    table = pd.DataFrame({"report": [*REPORTS, None], "age": [20.0, 40.0, 60.0, 80.0]})
    return ConditionSchema.fit(table, ["report", "age"], KINDS, {"report": str(encoder)})


def test_a_text_is_not_swept_since_no_table_says_what_was_asked(schema):
    with pytest.raises(UsageError, match="--condition report=TEXT and the same --seed"):
        sweep_values(schema, "report=normal brain,mild atrophy")


def test_any_text_has_a_code_and_none_is_missing(schema):
    assert schema.layout.slices == ((0, 16), (17, 18))
    rows = [schema.assign({"report": text}) for text in (*REPORTS, "severe atrophy", "n/a")]
    code = schema.encode(rows)
    assert float(code[:3, :16].mean(0).abs().max()) < 1e-5
    assert float(code[:3, :16].square().mean()) == pytest.approx(1, abs=1e-4)
    assert code[:, 16].tolist() == [0, 0, 0, 0, 1]
    assert code[4, :16].abs().sum() == 0
    alike = torch.nn.functional.cosine_similarity(code[3:4, :16], code[:3, :16])
    assert alike.argmax() == 2


def test_a_text_does_not_depend_on_its_neighbours_and_may_be_long(schema):
    rows = [schema.assign({"report": text}) for text in ("normal", "brain " * 40)]
    both = schema.encode(rows)
    assert torch.allclose(schema.encode(rows[:1]), both[:1], atol=1e-6)
    assert bool(both.isfinite().all())


def test_json_round_trip(schema):
    assert ConditionSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


def test_another_or_no_encoder_is_refused(encoder, tmp_path):
    own = tmp_path / "bert"
    shutil.copytree(encoder, own)
    table = pd.DataFrame({"report": REPORTS})
    schema = ConditionSchema.fit(table, ["report"], KINDS, {"report": str(own)})
    rows = [schema.assign({"report": "normal"})]
    shutil.rmtree(own)
    write_encoder(own, seed=1)
    from gyri.text import text_encoder

    text_encoder.cache_clear()
    with pytest.raises(DataError, match="other weights"):
        schema.encode(rows)
    with pytest.raises(DataError, match="holds no text encoder"):
        ConditionSchema.fit(table, ["report"], KINDS, {"report": str(tmp_path)})
    (own / "model.safetensors").unlink()
    text_encoder.cache_clear()
    with pytest.raises(DataError, match="safetensors"):
        ConditionSchema.fit(table, ["report"], KINDS, {"report": str(own)})
    ages = pd.DataFrame({"age": [1.0, 2.0]})
    with pytest.raises(UsageError, match="holds numbers"):
        ConditionSchema.fit(ages, ["age"], KINDS, {"age": str(encoder)})


RECIPE = """
name: reports
view: {name: pyramid, factor: [2, 2, 2]}
method:
  name: ddpm
  prediction: edm
  sampling: {num_steps: 2}
  optimiser: {lr: 1.0e-2}
  ema_half_life_images: 1
networks: {denoiser: {name: unet, widths: [8], num_res_blocks: 1, attention: [false]}}
conditions: [age, report]
text_encoders: {report: bert}
training: {steps: 5, batch_size: 2}
"""


def test_reports_are_trained_sampled_and_not_written(encoder, tiny_cohort, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(tiny_cohort.parent / "raw", raw)
    table = pd.read_csv(raw / "participants.tsv", sep="\t", dtype=str, keep_default_na=False)
    table["report"] = [REPORTS[k % 3] for k in range(len(table))]
    table.to_csv(raw / "participants.tsv", sep="\t", index=False)
    sizes = {"TRAIN": 8, "VAL": 1, "HOLD": 4, "TEST": 1}
    cohort = api.prepare(raw, tmp_path / "prepared", spacing_mm=8.0, sizes=sizes, jobs=1)
    assert cohort.columns["report"].kind == "categorical"

    shutil.copytree(encoder, tmp_path / "bert")
    (tmp_path / "r.yaml").write_text(RECIPE)
    run = api.train(tmp_path / "r.yaml", tmp_path / "prepared", tmp_path / "run")
    model = run.load(torch.device("cpu"))
    rows = [model.schema.assign({"age": "60", "report": text}) for text in REPORTS[:2]]
    seeds = torch.tensor([1, 1])
    one, other = draw(model, rows, seeds)
    assert not torch.allclose(one, other)

    made, _ = api.sample(run.root, tmp_path / "made", num=2, seed=0)
    assert list(made.table.columns) == ["age"]
    written = [p.read_text() for p in (tmp_path / "made").rglob("*.json")]
    assert any('"report": "text ' in text for text in written)
    assert not any(word in text for text in written for word in ("atrophy", "normal brain"))


def test_an_encoder_needs_its_condition(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "r.yaml")
    assert recipe.text_encoders == {"report": str(tmp_path / "bert")}
    with pytest.raises(UsageError, match="not among the conditions"):
        parse_recipe({**recipe.to_mapping(), "conditions": ["age"]})
