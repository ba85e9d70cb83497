"""The page: complete, offline, small, escaped, and the same as its record."""

from __future__ import annotations

import json
import math
import re
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from pydantic import TypeAdapter
from report import fixtures

from cordqa.records import (
    Entities,
    Figure,
    Measurement,
    Notice,
    Outcome,
    Result,
    Severity,
    State,
    Status,
    Verdict,
    as_plain,
)
from cordqa.report import render_report
from cordqa.report.matching import match_verdicts
from cordqa.report.measurement_table import measurement_table
from cordqa.report.sections import keep_options, link_dois
from cordqa.resources import resource_path

VOID = {"meta", "link", "br", "img", "input", "hr", "path", "circle", "rect", "use", "image"}


class Page(HTMLParser):
    """Reads a page: checks that elements nest, collects what tests ask about."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.data: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID or tag in ("path", "circle", "rect", "use", "image"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            self.data.append(data)
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(re.sub("[\u00a0\u2009]", " ", " ".join(self.words)).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def tables(self) -> list[dict]:
        return [json.loads(text) for text in self.data if text.startswith('{"columns"')]


@pytest.fixture(scope="module", params=["phantom", "cohort", "disaster", "hostile"])
def page(request):
    html = render_report(getattr(fixtures, f"{request.param}_result")())
    return html, Page(html)


@pytest.fixture(scope="module")
def phantom():
    return Page(render_report(fixtures.phantom_result()))


def test_it_is_a_complete_document_whose_elements_nest(page):
    html, parsed = page
    assert html.startswith("<!DOCTYPE html>")
    assert html.rstrip().endswith("</html>")
    assert len(parsed.all("main")) == len(parsed.all("h1")) == len(parsed.all("title")[:1]) == 1
    html.encode("utf-8")


def test_no_url_is_fetched(page):
    html, parsed = page
    for tag, attrs in parsed.tags:
        for name, value in attrs.items():
            if name in (
                "src",
                "srcset",
                "data",
                "poster",
                "action",
                "formaction",
                "background",
                "xlink:href",
            ):
                pytest.fail(f"<{tag} {name}={value!r}> loads something")
            if name == "href" and tag != "a":
                assert value.startswith(("#", "data:image/png;base64,")), value
            if name == "href" and tag == "a":
                assert value.startswith(("#", "https://doi.org/10.")), value
            assert not name.startswith("on"), f"<{tag} {name}>"
    assert not re.search(r"url\(|@import|@font-face", html)
    policy = next(meta["content"] for meta in parsed.all("meta") if meta.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe-inline" not in policy
    assert "http:" not in policy


def test_script_and_style_use_nothing_that_reaches_out_or_builds_markup_from_text():
    script = resource_path("reports", "script.js").read_text(encoding="utf-8")
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "eval(",
        "fetch(",
        "XMLHttpRequest",
        "import(",
        "document.write",
    ):
        assert word not in script
    assert script.isascii() or "\u2028" not in script
    assert "</" not in script.replace("</script", "</")


def test_every_picture_is_valid_and_says_what_it_shows(page):
    html, _ = page
    pictures = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert pictures
    for picture in pictures:
        root = ET.fromstring(picture)
        if root.get("role") == "img":
            assert root.get("aria-label").strip()
        else:
            assert root.get("aria-hidden") == "true"


def test_identifiers_are_unique_and_contents_lead_somewhere(page):
    _, parsed = page
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"][1:] for attrs in parsed.all("a") if attrs["href"].startswith("#")]
    assert links
    assert set(links) <= set(ids)


def test_nothing_unknown_reads_as_a_number(page):
    _, parsed = page
    assert not re.search(r"\b(nan|inf|null|undefined)\b", parsed.text, re.IGNORECASE)
    for table in parsed.tables():
        for column in table["columns"]:
            assert not {"nan", "inf", "None"} & set(column.get("text") or column["words"])


def test_phantom_page_is_small_and_quick():
    result = fixtures.phantom_result()
    render_report(result)  # the template is read once per process
    start = time.process_time()
    html = render_report(result)
    assert time.process_time() - start < 0.3
    assert len(html.encode()) < 3e6


def test_a_cohort_of_203_subjects_stays_within_its_limits():
    result = fixtures.cohort_result(203)
    assert len(result.measurements) == 203 * 7 * 5
    start = time.process_time()
    html = render_report(result)
    assert time.process_time() - start < 10
    assert len(html.encode()) < 5e6
    assert html.count('data-n="sub-203"') > 40


def test_verdict_comes_first_then_what_needs_attention(phantom):
    text = phantom.text
    order = [
        "Failed",
        "Five of 78 evaluated values",
        "What needs attention",
        "Data and exclusions",
        "Located spheres",
        "Measured against reference",
        "Fitted curves",
        "Measurements",
        "Reliability",
        "Methods",
        "References",
        "Provenance",
        "Research use only. Not for diagnosis.",
    ]
    heads = [i for i, (tag, _) in enumerate(phantom.tags) if tag in ("h1", "h2")]
    assert heads
    places = [
        text.rindex(words) if words[0] != "T" and words != "Failed" else text.index(words) for words in order
    ]
    assert places == sorted(places)


def test_most_severe_comes_first(phantom):
    looks = [attrs["class"].split()[1] for attrs in phantom.all("article")]
    ranks = [("fail", "warn", "none", "info").index(look) for look in looks]
    assert ranks == sorted(ranks)
    assert set(looks) == {"fail", "warn", "none", "info"}


def test_each_failure_stands_with_limit_observation_source_and_remedy(phantom):
    text = phantom.text
    assert "Fail T1 within tolerance of the reference Limit ±5 % Source cordqa default tolerances 1" in text
    assert re.search(r"plate 5, sphere 2, T1, Beta 3T 5\.\d+ %", text)
    assert "give --temperature" in text


def test_like_notices_are_gathered(phantom):
    assert phantom.text.count("Samples at the top of the stored range were dropped") == 1
    assert "Alpha 3T, plate 5, sphere 1 Beta 3T, plate 5, sphere 1" in phantom.text


def test_exclusions_and_failures_are_listed_with_their_reasons(phantom):
    assert "6 done, 1 skipped, 1 failed" in phantom.text
    assert "no parameter varies between its images" in phantom.text
    assert "copy the file again input.unreadable" in phantom.text


def test_the_table_says_what_the_record_says():
    result = fixtures.phantom_result()
    table = measurement_table(result)
    columns = {column.label: column for column in table.columns}
    assert table.length == len(result.measurements)
    for row, one in enumerate(result.measurements):
        assert columns["Region"].texts[row] == one.region
        assert columns["Value"].raw[row] == one.value or math.isnan(one.value)
        if math.isfinite(one.value):
            shown = float(columns["Value"].texts[row])
            assert abs(shown - one.value) <= 0.06 * 2 * one.standard_uncertainty
        else:
            assert columns["Value"].texts[row] == "—"
            assert columns["Notes"].texts[row] == "outside protocol range"
    assert set(columns["Verdict"].texts) == {"Pass", "Warning", "Fail", "Not evaluated"}
    assert set(columns["Tolerance"].texts) == {"±5\u00a0%"}
    assert table.sources == [fixtures.CERTIFICATE, fixtures.RULES]


def test_long_notes_of_several_parts_are_folded():
    result = fixtures.phantom_result()
    parts = [f"{n} voxels: a reason of some length that is said of many a map" for n in range(5)]
    flagged = replace(result.measurements[0], flags=tuple(parts))
    html = render_report(replace(result, measurements=(flagged, *result.measurements[1:])))
    assert f'<td class="note"><details><summary>{parts[0]}; 4 more</summary><ul>' in html
    assert all(f"<li>{part}</li>" in html for part in parts[1:])
    short = render_report(replace(result, measurements=(replace(flagged, flags=("short", "note")),)))
    assert '<td class="note">short; note</td>' in short


def test_page_and_embedded_data_agree(phantom):
    table = max(phantom.tables(), key=lambda one: len(one["names"]))
    values = next(column for column in table["columns"] if column["label"] == "Value")
    raw = [one.value for one in fixtures.phantom_result().measurements]
    assert len(values["raw"]) == len(raw)
    for embedded, true in zip(values["raw"], raw, strict=True):
        assert embedded is None if math.isnan(true) else embedded == pytest.approx(true, rel=1e-6)


def test_a_value_that_is_not_known_without_a_reason_says_so():
    one = Measurement(quantity="T1", value=math.nan, unit="ms", region="x")
    text = Page(
        render_report(Result(kind="phantom", title="t", status=Status.FAIL, measurements=(one,)))
    ).text
    assert "— ms not known; no reason was recorded" in text


def test_a_long_table_shows_a_part_and_carries_the_rest():
    page = Page(render_report(fixtures.cohort_result(60)))
    table = max(page.tables(), key=lambda one: len(one["names"]))
    assert len(table["names"]) == 60 * 35
    assert "200 of 2100 rows are shown" in page.text


def test_an_error_near_its_limit_keeps_the_digits_that_decide():
    entities = Entities(scanner="a")
    one = Measurement(quantity="T1", value=105.002, unit="ms", region="s", reference=100.0, entities=entities)
    verdict = Verdict(
        status=Status.FAIL,
        subject="s",
        rule="r",
        observed=5.002,
        low=-5,
        high=5,
        unit="%",
        quantity="T1",
        region="s",
    )
    result = Result(kind="phantom", title="t", status=Status.FAIL, measurements=(one,), verdicts=(verdict,))
    column = next(column for column in measurement_table(result).columns if column.label == "Error (%)")
    assert column.texts == ["+5.002"]


@pytest.mark.parametrize("name", ["phantom", "cohort", "disaster"])
def test_a_result_read_back_from_json_gives_the_same_page(name):
    result = getattr(fixtures, f"{name}_result")()
    stored = json.dumps(as_plain(result), allow_nan=False)
    again = TypeAdapter(Result).validate_json(stored)
    assert render_report(again) == render_report(result)


def test_a_disaster_still_makes_a_good_page():
    page = Page(render_report(fixtures.disaster_result()))
    assert "Not evaluated" in page.text
    assert "Error No DICOM image was found; give the folder that holds the scans" in page.text.replace(
        "no DICOM", "No DICOM"
    )
    headings = [attrs["id"] for attrs in page.all("section")]
    assert headings == ["attention", "data"]
    assert not page.all("table")[1:]


def test_the_emptiest_result_makes_a_page():
    page = Page(render_report(Result(kind="", title="", status=Status.PASS)))
    assert page.all("section") == []
    assert "Passed" in page.text


def test_hostile_text_stays_text():
    """The page with hostile text has exactly the elements of the page with harmless text."""
    html = render_report(fixtures.hostile_result())
    page = Page(html)
    assert len(page.all("script")) == 1 + len(page.tables())
    assert not page.all("img")
    assert len(page.all("style")) == 1
    assert "<script>alert" not in html
    assert not re.search("[\x00-\x08\x0e-\x1f\u202a-\u202e\ud800-\udfff]", html)
    shown = fixtures.HOSTILE.split("\u202e")[0]
    assert page.text.count(shown) > 60


def test_hostile_text_in_embedded_data_is_read_back_unchanged():
    page = Page(render_report(fixtures.hostile_result()))
    shown = fixtures.HOSTILE.split("\u202e")[0]
    tables = page.tables()
    assert tables
    assert all(any(shown in name for name in table["names"]) for table in tables)
    for text in page.data:
        if text.startswith("{"):
            assert not set("<>&") & set(text)


def test_a_figure_that_cannot_be_drawn_is_named_and_the_rest_goes_on():
    good = fixtures.phantom_result()
    bad = replace(
        good, figures=(Figure(name="x", kind="identity", title="Broken", data={"series": 3}), *good.figures)
    )
    text = Page(render_report(bad)).text
    assert "Broken" in text
    assert "This figure could not be drawn: 'series' is not a list" in text
    assert "T1 of three scanners" in text


def test_no_figure_of_the_usual_pages_fails(page, request):
    html, _ = page
    if "hostile" not in request.node.name:
        assert "could not be drawn" not in html


def test_only_dois_become_links():
    text = (
        "javascript:alert(1) http://x.y doi:10.1002/mrm.28779. (https://doi.org/10.1/a) 10.2307/2532051; <b>"
    )
    html = str(link_dois(text))
    assert re.findall(r'href="([^"]*)"', html) == [
        "https://doi.org/10.1002/mrm.28779",
        "https://doi.org/10.2307/2532051",
    ]
    assert "&lt;b&gt;" in html
    assert (
        Page(html).text == "javascript:alert(1) http://x.y doi:10.1002/mrm.28779 . "
        "(https://doi.org/10.1/a) doi:10.2307/2532051 ; <b>"
    )


def test_an_option_never_breaks_between_its_dashes():
    html = str(keep_options("give --noise-sd or --noise-map <b>; a--b is none"))
    assert re.findall(r'<span class="option">([^<]*)</span>', html) == ["--noise-sd", "--noise-map"]
    assert "&lt;b&gt;" in html and Page(html).text == "give --noise-sd or --noise-map <b>; a--b is none"
    assert str(keep_options("")) == ""


def judged(status: Status, **keys) -> Verdict:
    return Verdict(status=status, subject="s", rule="r", quantity="T1", **keys)


def measured(**keys) -> Measurement:
    return Measurement(quantity="T1", value=1.0, unit="ms", **keys)


def test_a_verdict_is_found_by_region_and_by_every_entity_that_it_names():
    first = measured(region="s1", entities=Entities(scanner="a", run="1"))
    second = measured(region="s1", entities=Entities(scanner="b", run="1"))
    only_a = judged(Status.FAIL, region="s1", entities=Entities(scanner="a"))
    everywhere = judged(Status.PASS, region="s1")
    elsewhere = judged(Status.FAIL, region="s2")
    overall = judged(Status.FAIL)
    found = match_verdicts([first, second], [everywhere, only_a, elsewhere, overall])
    assert found == [only_a, everywhere]


def test_the_worst_verdict_on_a_measurement_counts():
    verdicts = [judged(status, region="s") for status in (Status.PASS, Status.FAIL, Status.WARN)]
    assert match_verdicts([measured(region="s")], verdicts) == [verdicts[1]]


def test_an_unknown_field_strength_does_not_hide_a_verdict():
    """NaN differs from itself; entities that hold it must still be recognised."""
    one = measured(region="s", entities=Entities(scanner="a", field_strength_T=float("nan")))
    verdict = judged(Status.FAIL, region="s", entities=Entities(scanner="a", field_strength_T=float("nan")))
    assert match_verdicts([one], [verdict]) == [verdict]


def test_matching_ten_thousand_measurements_is_quick():
    rows = [measured(region=f"r{k % 35}", entities=Entities(subject=f"s{k}", run="1")) for k in range(7000)]
    verdicts = [
        judged(Status.PASS, region=one.region, entities=Entities(subject=one.entities.subject))
        for one in rows
    ]
    start = time.process_time()
    assert match_verdicts(rows, verdicts) == verdicts
    assert time.process_time() - start < 4


def test_nothing_to_report_is_said():
    verdict = Verdict(status=Status.PASS, subject="s", rule="r")
    result = Result(kind="phantom", title="t", status=Status.PASS, verdicts=(verdict,))
    assert "Nothing: 1 check passed and there are no warnings." in Page(render_report(result)).text


def test_thousands_of_alerts_fold_away():
    notices = tuple(Notice(severity=Severity.WARNING, message=f"message {k}") for k in range(300))
    page = Page(render_report(Result(kind="phantom", title="t", status=Status.WARN, notices=notices)))
    assert "275 more, less severe or later" in page.text


def test_many_done_outcomes_fold_away_but_failures_stay():
    outcomes = tuple(Outcome(what=f"sub-{k}", state=State.DONE) for k in range(30))
    failed = Outcome(what="sub-x", state=State.FAILED, reason="no cord")
    result = Result(kind="cord", title="t", status=Status.WARN, outcomes=(*outcomes, failed))
    text = Page(render_report(result)).text
    assert (
        text.index("sub-x")
        < text.index("30 done", text.index("Data and exclusions") + 60)
        < text.index("sub-7")
    )
