import pandas as pd
import pytest
import torch

from gyri.conditions import ConditionSchema
from gyri.errors import UsageError

KINDS = {"age": "continuous", "sex": "categorical", "cdr": "categorical"}


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "age": [20.0, 40.0, 60.0, 80.0],
            "sex": ["F", "M", "F", "M"],
            "cdr": [None, 0.0, 0.5, 0.5],
        }
    )


@pytest.fixture
def schema(table):
    return ConditionSchema.fit(table, ["age", "sex", "cdr"], KINDS)


def test_code_is_standardised_one_hot_and_missing_bits(schema, table):
    code = schema.encode(schema.parse(table))
    assert schema.layout.slices == ((0, 1), (2, 4), (5, 7))
    assert schema.layout.size == 8
    assert torch.allclose(code[:, 0].mean(), torch.tensor(0.0), atol=1e-6)
    assert torch.allclose(code[:, 0].std(unbiased=False), torch.tensor(1.0), atol=1e-6)
    assert code[0].tolist()[2:] == [1, 0, 0, 0, 0, 1]
    assert code[2].tolist()[2:] == [1, 0, 0, 0, 1, 0]


def test_numbers_as_levels_do_not_depend_on_how_they_were_written(schema):
    assert schema.assign({"cdr": "0.5"})["cdr"] == "0.5"
    assert schema.columns[2].levels == ("0", "0.5")
    assert schema.columns[2].parse(0.0) == "0"


def test_dropping_a_column_equals_its_being_missing(schema, table):
    code = schema.encode(schema.parse(table))
    dropped = torch.tensor([[True, False, False]] * 4)
    without = schema.encode(schema.parse(table.drop(columns="age")))
    assert torch.equal(schema.layout.drop(code, dropped), without)
    assert schema.layout.null(code).sum() == 4 * 3


def test_unknown_column_names_the_nearest(schema, table):
    with pytest.raises(UsageError, match="Did you mean 'age'"):
        schema.assign({"agee": "70"})
    with pytest.raises(UsageError, match="no column 'sexx'.*'sex'"):
        ConditionSchema.fit(table, ["sexx"], KINDS)


def test_unseen_level_and_bad_number_are_refused(schema):
    with pytest.raises(UsageError, match="never seen.*F, M"):
        schema.assign({"sex": "X"})
    with pytest.raises(UsageError, match="no number"):
        schema.assign({"age": "old"})


def test_out_of_range_and_unseen_combination_warn(schema):
    rows = [schema.assign({"age": "95", "sex": "M", "cdr": "0.5"})]
    assert len(schema.warnings(rows)) == 1
    rows = [schema.assign({"age": "30", "sex": "F", "cdr": "0"})]
    assert "No training subject had sex=F, cdr=0 together" in schema.warnings(rows)[0]
    assert schema.warnings([schema.assign({"age": "30", "sex": "F"})]) == []


def test_constant_column_is_refused(table):
    with pytest.raises(UsageError, match="at least two"):
        ConditionSchema.fit(table.assign(sex="F"), ["sex"], KINDS)


def test_json_round_trip(schema):
    assert ConditionSchema.from_json(schema.to_json()) == schema
