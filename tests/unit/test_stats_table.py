"""Checking, laying out and writing tables."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from cordqa.errors import ConfigError, EmptyInputError, TableError
from cordqa.records import Entities, Measurement, Severity
from cordqa.stats.table import (
    check_choice,
    check_level,
    clean_table,
    from_measurements,
    group_table,
    join_flags,
    stack_tables,
    tidy,
    to_layout,
    to_notices,
    to_statistics,
)


def table(**columns):
    base = {"subject": [1, 1, 2, 2], "scanner": list("ABAB"), "value": [1.0, 2.0, 3.0, 4.0]}
    return pd.DataFrame({**base, **columns})


def clean(frame, **options):
    return clean_table(frame, numbers=["value"], keys=["subject", "scanner"], **options)


# ------------------------------------------------------------------------------------- checks


def test_a_good_table_passes_unchanged():
    frame, problems = clean(table(), unique=True)
    assert problems == ()
    assert frame["value"].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_the_table_given_is_not_changed():
    given = table(value=["1", "x", "3", "4"])
    before = given.copy()
    clean(given, nan_policy="omit")
    pd.testing.assert_frame_equal(given, before)


def test_missing_column_suggests_the_nearest():
    with pytest.raises(TableError, match=r"scanner.*did you mean 'Scaner'"):
        clean(table().rename(columns={"scanner": "Scaner"}))


def test_several_missing_columns_are_named_together():
    with pytest.raises(TableError, match="2 columns are missing: subject, scanner"):
        clean(table()[["value"]])


@pytest.mark.parametrize(
    ("cells", "kind", "words"),
    [
        (["1", "two", "3", "4"], "text", "row 1, for example 'two'"),
        (["1,5", "2,5", "3", "4"], "decimal-comma", "2 numbers with a decimal comma"),
        (["1.234,5", "2", "3", "4"], "decimal-comma", "decimal comma"),
        ([1.0, math.inf, 3.0, 4.0], "infinite", "infinity"),
        (["1", "inf", "3", "4"], "infinite", "infinity"),
        ([1.0, math.nan, 3.0, 4.0], "missing-value", "without a value"),
        (["1", "n/a", "3", "4"], "missing-value", "without a value"),
        ([1.0, None, 3.0, 4.0], "missing-value", "without a value"),
    ],
)
def test_unusable_numbers(cells, kind, words):
    frame = table(value=cells)
    with pytest.raises(TableError, match=words):
        clean(frame)
    rest, problems = clean(frame, nan_policy="omit")
    assert [p.kind for p in problems] == [kind]
    assert len(rest) == 4  # the row stays, so that it is counted as missing
    assert np.isfinite(rest["value"]).sum() == 4 - len(problems[0].rows)


def test_numbers_written_as_text_are_numbers():
    assert clean(table(value=["1", " 2 ", "3e0", "4.0"]))[0]["value"].tolist() == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    "cells",
    [
        [True, False, True, True],
        pd.date_range("2020-01-01", periods=4),
        pd.to_timedelta([1, 2, 3, 4], unit="s"),
        [1j, 2.0, 3.0, 4.0],
    ],
)
def test_columns_that_cannot_be_numbers(cells):
    with pytest.raises(TableError, match="does not hold numbers"):
        clean(table(value=cells))


def test_rows_without_a_name():
    frame = table(scanner=["A", "", None, "B"])
    with pytest.raises(TableError, match="2 rows without a name"):
        clean(frame)
    rest, problems = clean(frame, nan_policy="omit")
    assert rest.index.tolist() == [0, 3]
    assert problems[0].rows == (1, 2)


def test_several_problems_are_all_returned_and_the_first_is_raised():
    frame = table(value=["x", "1,5", "inf", "4"])
    with pytest.raises(TableError, match="2 further kinds of problem"):
        clean(frame)
    assert {p.kind for p in clean(frame, nan_policy="omit")[1]} == {"text", "decimal-comma", "infinite"}


def test_equal_repeats_are_no_copies_where_nothing_could_tell_them_apart():
    frame = table(scanner=list("AABB"), value=[1.0, 1.0, 2.0, 2.0])
    assert clean(frame)[1] == ()


def test_rows_equal_in_every_column_are_copies_where_a_run_could_tell():
    frame = table(scanner=list("AABB"), value=[1.0, 1.0, 2.0, 2.0], run=[1, 1, 1, 2])
    with pytest.raises(TableError, match="1 row equal to an earlier one"):
        clean(frame)
    rest, problems = clean(frame, nan_policy="omit")
    assert rest.index.tolist() == [0, 2, 3]
    assert problems[0].kind == "duplicate"


def test_unique_keys_with_contradicting_values_are_emptied_not_chosen():
    frame = table(scanner=list("AAAB"), subject=[1, 1, 2, 2])
    with pytest.raises(TableError, match="same keys and another value"):
        clean(frame, unique=True)
    rest, problems = clean(frame, unique=True, nan_policy="omit")
    assert np.isnan(rest["value"]).tolist() == [True, True, False, False]
    assert problems[0].kind == "conflict"


def test_mixed_units_spoil_only_their_group():
    frame = table(region=list("ppqq"), unit=["ms", "s", "ms", "ms"])
    with pytest.raises(TableError, match=r"2 units for p: ms, s"):
        clean(frame, by="region", unit="unit")
    rest, problems = clean(frame, by="region", unit="unit", nan_policy="omit")
    assert np.isnan(rest["value"]).tolist() == [True, True, False, False]
    assert problems[0].kind == "mixed-units"


def test_nothing_usable_is_an_error_also_when_omitting():
    with pytest.raises(EmptyInputError, match="no row"):
        clean(table(value=["a", "b", "c", "d"]), nan_policy="omit")
    with pytest.raises(EmptyInputError, match="no rows"):
        clean(table().iloc[:0])


def test_what_is_not_a_table():
    with pytest.raises(TableError, match="cannot be read as a table"):
        clean(3.0)
    twice = pd.concat([table(), table()[["value"]]], axis=1)
    with pytest.raises(TableError, match="same name"):
        clean(twice)
    with pytest.raises(TableError, match="both as number and as key"):
        clean_table(table(), numbers=["value"], keys=["value"])


def test_mappings_and_rows_are_tables_too():
    rows = table().to_dict("records")
    assert len(clean(rows)[0]) == len(clean(table().to_dict("list"))[0]) == 4


def test_arguments():
    assert check_level(0.9) == 0.9
    for bad in (0.0, 1.0, 95, math.nan, "0.95"):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            check_level(bad)
    with pytest.raises(ConfigError, match="did you mean 'omit'"):
        check_choice("omitt", ("raise", "omit"), name="nan_policy")


def test_problems_become_notices():
    notices = to_notices(clean(table(value=["x", "2", "3", "4"]), nan_policy="omit")[1], where="a.csv")
    assert notices[0].severity is Severity.WARNING
    assert notices[0].code == "table.text"
    assert "correct or empty" in notices[0].message


# ------------------------------------------------------------------------------------- layout


def test_layout_pads_groups_of_different_size():
    frame = pd.DataFrame(
        {
            "region": list("ppppppqqqq"),
            "subject": [1, 1, 2, 2, 3, 3, 7, 7, 8, 8],
            "scanner": list("ABABABBCBC"),
            "value": [1.0, 2, 3, 4, 5, math.nan, 7, 8, 9, 10],
        }
    )
    found = to_layout(frame, value="value", subject="subject", rater="scanner", by="region")
    assert found.values.shape == (2, 3, 2, 1)
    assert found.n_subjects.tolist() == [3, 2]
    assert found.n_missing.tolist() == [1, 0]
    assert found.n_unusable.tolist() == [1, 0]
    assert found.balanced.tolist() == [False, True]
    assert found.raters.tolist() == [["A", "B"], ["B", "C"]]
    assert found.subjects[1].tolist() == [7, 8, None]
    ((index, values),) = found.batches()
    assert index.tolist() == [1]
    np.testing.assert_array_equal(values[0, :, :, 0], [[7, 8], [9, 10]])


def test_layout_puts_missing_replicates_last_and_follows_the_replicate_column():
    frame = pd.DataFrame({"s": [1] * 4, "run": [4, 2, 3, 1], "v": [40.0, math.nan, 30.0, 10.0]})
    found = to_layout(frame, value="v", subject="s", replicate="run")
    np.testing.assert_array_equal(found.values[0, 0, 0], [10, 30, 40, np.nan])
    assert found.n_replicates.tolist() == [3]


def test_layout_is_the_same_for_any_order_of_rows():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"s": np.repeat(range(5), 4), "c": np.tile(list("ABCD"), 5), "v": rng.normal(size=20)}
    )
    one = to_layout(frame, value="v", subject="s", rater="c")
    mixed = frame.sample(frac=1.0, random_state=1)
    two = to_layout(mixed, value="v", subject="s", rater="c")
    rows = [two.subjects[0].tolist().index(s) for s in one.subjects[0]]
    columns = [two.raters[0].tolist().index(c) for c in one.raters[0]]
    np.testing.assert_array_equal(one.values[0], two.values[0][np.ix_(rows, columns)])


def test_layout_with_keys_of_several_columns_and_units():
    frame = table(site=list("xxyy"), unit=["ms"] * 4)
    found = to_layout(frame, value="value", subject=["site", "subject"], rater="scanner", unit="unit")
    assert found.subjects[0].tolist() == ["x, 1", "y, 2"]
    assert found.units.tolist() == ["ms"]


def test_layout_keeps_the_order_of_groups_whatever_the_replicates_are_called():
    frame = pd.DataFrame(
        {"g": list("qqpp"), "s": [2, 2, 1, 1], "run": ["late", 1, 2, "early"], "v": [1.0, 2.0, 3.0, 4.0]}
    )
    found = to_layout(frame, value="v", subject="s", replicate="run", by="g")
    assert found.groups["g"].tolist() == ["q", "p"]
    np.testing.assert_array_equal(found.values[:, 0, 0], [[2, 1], [3, 4]])


def test_aligned_replicates_stand_at_the_place_of_their_label():
    frame = pd.DataFrame({"s": [1, 1, 2], "run": ["b", "c", "c"], "v": [1.0, 2.0, 3.0]})
    found = to_layout(frame, value="v", subject="s", replicate="run", align=True)
    np.testing.assert_array_equal(found.values[0, :, 0], [[1.0, 2.0], [np.nan, 3.0]])


def test_a_column_of_units_may_be_empty():
    frame = table(unit=[math.nan] * 4)
    rest, problems = clean(frame, unit="unit")
    assert problems == ()
    found = to_layout(rest, value="value", subject="subject", rater="scanner", unit="unit")
    assert found.units.tolist() == [""]


def test_columns_may_have_numbers_as_names():
    rest, _ = clean_table(pd.DataFrame({0: [1, 2], 1: [3.0, 4.0]}), numbers=["1"], keys=["0"])
    assert rest["1"].tolist() == [3.0, 4.0]


def test_group_table_keeps_order_and_names():
    frame = table(region=list("qqpp"))
    assert [key for key, _ in group_table(frame, "region")] == [{"region": "q"}, {"region": "p"}]
    assert [key for key, _ in group_table(frame, None)] == [{}]


# ------------------------------------------------------------------------------------- output


def test_tidy_broadcasts_and_orders_columns():
    groups = pd.DataFrame({"region": ["p", "q"]})
    found = tidy(
        groups,
        statistic=("a", "b"),
        value=[[1, 2], [3, 4]],
        n={"subjects": [10, 20]},
        extra={"p": 0.5},
        flags=[["x"], [""]],
    )
    assert found["value"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert found["n_subjects"].tolist() == [10, 10, 20, 20]
    assert found["flags"].tolist() == ["x", "x", "", ""]
    assert list(found.columns) == [
        "region", "statistic", "value", "low", "high", "interval_level", "unit", "estimator",
        "interval_method", "p", "n_subjects", "flags", "note",
    ]  # fmt: skip


def test_a_table_cannot_be_split_by_a_column_of_the_result():
    with pytest.raises(TableError, match="split by unit"):
        tidy({"unit": "ms"}, statistic=("a",), value=[1.0])


def test_stacked_tables_keep_every_column():
    one = tidy({"region": "p"}, statistic=("a",), value=[1.0], n={"subjects": [3]}, note="why")
    two = tidy({"region": "q"}, statistic=("b",), value=[2.0], extra={"p": [0.1]}, n={"sites": [4]})
    found = stack_tables([one, two])
    assert found["statistic"].tolist() == ["a", "b"]
    assert list(found.columns)[-2:] == ["flags", "note"]
    assert np.isnan(found["p"][0])
    assert np.isnan(found["n_sites"][0])
    assert found["note"].tolist() == ["why", ""]
    assert len(stack_tables([])) == 0


def test_statistics_records_carry_everything():
    found = tidy(
        pd.DataFrame({"region": [0], "scanner": ["A"]}),
        statistic=("ICC",),
        value=[0.5],
        low=[0.1],
        high=[0.9],
        unit="1",
        estimator="e",
        interval_method="i",
        n={"subjects": [7], "clusters": [math.nan]},
        extra={"F": [3.25], "p": [math.nan]},
        flags="a, b",
        note="text",
    )
    (record,) = to_statistics(found, quantity="T1")
    assert (record.name, record.value, record.low, record.high) == ("ICC", 0.5, 0.1, 0.9)
    assert (record.quantity, record.region, record.group) == ("T1", "0", "scanner=A")
    assert record.n == {"subjects": 7}
    assert record.flags == ("a", "b")
    assert record.note == "F = 3.25; text"


def test_flags_are_joined_once():
    assert join_flags("a", "", "b, a", ["c", "b"]) == "a, b, c"


def test_measurements_become_a_table():
    found = from_measurements(
        [Measurement(quantity="T1", value=900.0, unit="ms", entities=Entities(scanner="A"), flags=("x", "y"))]
    )
    assert found.loc[0, ["quantity", "value", "scanner", "flags"]].tolist() == ["T1", 900.0, "A", "x, y"]
    with pytest.raises(EmptyInputError):
        from_measurements([])
