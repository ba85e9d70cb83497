"""The page on which images are judged: what it holds, what its keys do, and what it exports."""

from __future__ import annotations

import html as html_text
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from report.test_report_page import Page
from unit.test_cord_review import EXPORTED

from cordqa import figures
from cordqa.figures import PageLink, Picture, Rule, Tile
from cordqa.records import Figure, Measurement, Provenance, Result, Status
from cordqa.report import render_report
from cordqa.report.page_links import find_pages
from cordqa.resources import resource_path
from cordqa.workflow.cord_review import Mark, SliceMark, format_marks, read_review

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
HOSTILE = "</script><img src=x onerror=alert(1)>\"'"
T2W, MTS = "sub-01_ses-A1_T2w", "sub-01_ses-A1_flip-1_mt-on_MTS"


def make_figure(
    image: str, *, count: int = 14, pictures: tuple[str, ...] = ("MT-on",), text: str = ""
) -> Figure:
    rng = np.random.default_rng(1)
    line = np.array([[10.0, 10], [20, 10], [20, 20], [10, 20]])
    box = {"left": 0.0, "top": 0.0, "width": 30.0, "height": 30.0}
    tiles = [
        Tile(
            width_mm=30,
            height_mm=30,
            pictures={
                key: Picture(image=rng.integers(0, 255, (38, 38), dtype=np.uint8), **box) for key in pictures
            },
            lines={"cord": [line]},
            label="C4",
            name=f"slice {k}",
            number=k,
            value=70.0,
            unit="mm2",
            reason=f"low confidence {text}" if k == 12 else "",
        )
        for k in (12, *(k for k in range(count - 1, -1, -1) if k != 12))
    ]
    side = Tile(
        width_mm=54,
        height_mm=100,
        pictures={key: tiles[0].pictures[key] for key in pictures},
        rules={"levels": [Rule(y=20), Rule(y=30, label="C4")]},
    )
    return figures.mosaic(
        f"cord-{image}",
        f"{image.rsplit('_', 1)[-1]}{text}",
        tiles=tiles,
        pictures=dict.fromkeys(pictures, text),
        overlays=["cord", "levels"],
        side=side,
        image=image,
    )


def make_result(text: str = "") -> Result:
    way = figures.pages(
        "Participants",
        (),
        index="../../index.html",
        previous=PageLink(name=f"sub-00{text}", path="../../sub-00/report.html"),
        following=PageLink(name="sub-01_ses-A2", path="../../sub-01/ses-A2/report.html"),
    )
    return Result(
        kind="cord",
        title=f"sub-01{text}",
        status=Status.PASS,
        measurements=(Measurement(quantity="CSA", value=70.0, unit="mm2", region="cord", level="C4"),),
        figures=(way, make_figure(T2W, text=text), make_figure(MTS, pictures=("MT-on", "MT-off", "MTR"))),
        provenance=Provenance(version="1", created="2025-03-01T00:00:00+00:00"),
    )


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(make_result())


def test_every_image_has_its_switches_tiles_and_name(html):
    page = Page(html)
    marked = [attrs for attrs in page.all("figure") if "mosaic" in (attrs.get("class") or "")]
    assert [attrs["data-image"] for attrs in marked] == [T2W, MTS]
    tiles = [attrs for attrs in page.all("li") if (attrs.get("class") or "").startswith("tile")]
    assert len(tiles) == 28
    # What needs a look comes first, with its reason.
    assert (tiles[0]["data-slice"], tiles[0]["class"]) == ("12", "tile look")
    assert tiles[0]["data-words"] == "C4, slice 12, 70.0\u00a0mm², low confidence "
    radios = [attrs for attrs in page.all("input") if attrs["type"] == "radio"]
    assert [attrs["class"] for attrs in radios] == ["pick-0", "pick-1", "pick-2"]
    assert len([attrs for attrs in page.all("input") if attrs["type"] == "checkbox"]) == 4
    assert "1 slice to look at first" in page.text


def test_it_fetches_nothing_and_its_links_lead_to_pages_beside_it(html):
    page = Page(html)
    for tag, attrs in page.tags:
        assert not {"src", "srcset", "style", "action"} & set(attrs), (tag, attrs)
        assert not any(name.startswith("on") for name in attrs)
        if "href" in attrs and tag != "a":
            assert attrs["href"].startswith(("#", "data:image/png;base64,"))
    links = {attrs.get("rel"): attrs["href"] for attrs in page.all("a") if attrs["href"].endswith(".html")}
    assert links == {
        "prev": "../../sub-00/report.html",
        None: "../../index.html",
        "next": "../../sub-01/ses-A2/report.html",
    }
    assert not re.search(r"url\(|@import", html)


def test_the_script_of_the_review_travels_only_where_it_is_needed(html):
    assert "cordqa-review:" in html
    plain = Result(kind="cord", title="t", status=Status.PASS)
    assert "cordqa-review:" not in render_report(plain)


@pytest.mark.parametrize("name", ["review.js", "script.js"])
def test_scripts_build_no_markup_from_text_and_reach_nothing(name):
    script = resource_path("reports", name).read_text(encoding="utf-8")
    for word in (
        *("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "fetch(", "XMLHttpRequest", "import("),
        *("document.write", "WebSocket", "</", "sendBeacon"),
    ):
        assert word not in script


def test_every_key_of_the_help_has_an_action_and_every_action_stands_in_the_help():
    script = resource_path("reports", "review.js").read_text(encoding="utf-8")
    listed = set(re.findall(r'\["([^"]+)", "', script.split("const KEYS")[1].split("];")[0]))
    words = {key for entry in listed for key in entry.encode().decode("unicode_escape").split()} - {"to"}
    actions = set(
        re.findall(r'(?:^|[,{]\s*)"?([a-z]|Arrow\w+|\?)"?: \(\) =>', script.split("const ACTIONS")[1], re.M)
    )
    arrows = {"→": "ArrowRight", "←": "ArrowLeft"}
    keys = {arrows.get(word, word) for word in words}
    # Enter, Esc, Space and digits are handled apart; h and l are the same as the arrows.
    assert actions - {"h", "l"} == keys - {"Enter", "Esc", "Space", "1", "8"}


def test_hostile_text_stays_text():
    html = render_report(make_result(HOSTILE))
    page = Page(html)
    assert not page.all("img")
    assert html.count("<script") == 1 + len(page.tables())
    assert HOSTILE in page.text


@pytest.mark.parametrize(
    "path",
    [
        "javascript:alert(1)//.html",
        "https://x.org/a.html",
        "//x.org/a.html",
        "/etc/a.html",
        "../../../../../../a.html",
        "a.html?x=1",
        "a.html#x",
        "a b.html",
        "..html/../x",
        "sub-01/report.htm",
        "\\\\x\\a.html",
        "sub-01/../../../../../x.html",
        "",
    ],
)
def test_only_pages_beside_this_one_become_links(path):
    data = {"entries": [{"name": "x", "path": path}], "previous": {"name": "x", "path": path}, "index": path}
    found = find_pages([Figure(name="p", kind="pages", title="P", data=data)])
    assert (list(found.entries), found.previous, found.index) == ([], None, "")


def test_damaged_links_are_left_out():
    data = {"entries": [3, None, {"path": "a/report.html", "status": "odd"}], "previous": [], "index": 7}
    found = find_pages([Figure(name="p", kind="pages", title="P", data=data)])
    assert [(one.name, one.look) for one in found.entries] == [("a/report.html", "none")]


def test_a_list_of_pages_stands_on_the_page_with_status_and_words():
    links = [
        PageLink(name="sub-01", path="sub-01/report.html", status=Status.PASS, text="fine"),
        PageLink(name="sub-02", path="sub-02/report.html", status=Status.FAIL, word="Failed", text="no cord"),
    ]
    result = Result(
        kind="cord", title="t", status=Status.PASS, figures=(figures.pages("Participants", links),)
    )
    page = Page(render_report(result))
    assert "Pass sub-01 fine" in page.text
    assert "Failed sub-02 no cord" in page.text
    assert "Done" in page.text
    assert "#participants" in [attrs["href"] for attrs in page.all("a")]


def test_three_contrasts_weigh_less_than_three_megabytes():
    shown = [make_figure(f"sub-01_run-{k}_T2w", count=48, pictures=("a", "b", "c")) for k in range(3)]
    result = Result(kind="cord", title="t", status=Status.PASS, figures=tuple(shown))
    # Noise is the worst that a picture can hold.
    assert len(render_report(result).encode()) < 3e6


# -- in a browser ------------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def in_browser(page: Path) -> str:
    """Open a page and return its document once its scripts have run."""
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000"),
        *(f"--user-data-dir={page.parent / 'profile'}", "--dump-dom", page.as_uri()),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout


def play(folder: Path, script: str, result: Result | None = None) -> dict:
    """Run a script after the page's own ones and return the object that it leaves in ``out``."""
    html = render_report(result or make_result())
    # The page forbids every script but its own: the tester's needs the door open.
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    helpers = (
        """
      const key = (name, more) => (document.activeElement || document.body).dispatchEvent(
        new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true, ...more }));
      const type = (label, text) => {
        const input = [...document.querySelectorAll("label.field")]
          .find((one) => one.textContent.startsWith(label)).querySelector("input");
        input.focus();
        input.value = text;
        input.dispatchEvent(new Event("input", { bubbles: true }));
        input.blur();
      };
      const yaml = () => document.getElementById("review-yaml").value;
      const out = {};
      try {"""
        + script
        + """} catch (error) { out.error = String(error.stack || error); }
      const pre = document.createElement("pre");
      pre.id = "out"; pre.textContent = JSON.stringify(out); document.body.append(pre);"""
    )
    page = folder / "page.html"
    page.write_text(html.replace("</body>", f"<script>{helpers}</script></body>"), encoding="utf-8")
    text = re.search(r'<pre id="out">(.*?)</pre>', in_browser(page), re.DOTALL).group(1)
    found = json.loads(html_text.unescape(text))
    assert "error" not in found, found["error"]
    return found


@needs_browser
def test_keys_mark_images_and_slices_and_the_export_is_read_back(tmp_path):
    found = play(
        tmp_path,
        r"""
        key("f"); key("r"); out.typing = document.activeElement.tagName;
        type("Reason", 'mask "leaks": C6 # see 12');
        key("ArrowRight"); out.slice = document.activeElement.dataset.slice; key("p");
        for (let n = 0; n < 10; n++) key("ArrowRight");
        key("a"); type("Reason", "motion");
        key("Escape"); key("f"); // pressed twice is still a mark: only u takes it back
        key("j");
        const last = document.querySelectorAll(".mosaic")[1].querySelectorAll(".tile");
        last[last.length - 1].focus(); key("f");
        type("Reviewer", "No\u00e9 \u2028");
        out.yaml = yaml();
        out.badges = [...document.querySelectorAll(".badge.mark")].map((one) => one.textContent);
        out.count = document.querySelector(".review-panel output").textContent;
        out.kept = Object.keys(localStorage).filter((one) => one.startsWith("cordqa-review:")).length;
        key("Escape"); key("p"); key("u"); key("k"); key("u");
        out.undone = yaml();
        Storage.prototype.setItem = () => { throw new Error("refused"); };
        key("p");
        out.refused = document.querySelector(".review-panel .remark").textContent;
        """,
    )
    assert found["typing"] == "INPUT"
    assert found["slice"] == "12"
    dates = r'  date: "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"\n'
    plain = re.sub(dates, "", EXPORTED)
    # Only the first image of the example was dated and signed by hand.
    signed = (
        plain.rstrip("\n").replace('reviewer: "Noé \\u2028"', 'reviewer: "Noé"') + '\n  reviewer: "Noé"\n'
    )
    assert re.sub(dates, "", found["yaml"]) == signed
    path = tmp_path / "review.yaml"
    path.write_text(found["yaml"], encoding="utf-8")
    first, second = read_review(path)
    assert (first.image, first.status, first.reviewer) == (T2W, "fail", "Noé")
    assert first.slices == {3: SliceMark(status="artefact", reason="motion"), 12: SliceMark(status="pass")}
    assert second.slices == {0: SliceMark(status="fail")}
    assert found["yaml"] == format_marks([first, second])
    assert sorted(found["badges"]) == sorted(
        ['Fail: mask "leaks": C6 # see 12', "Pass", "Artefact: motion", "Fail"]
    )
    assert (found["count"], found["kept"]) == ("1 of 2 images marked", 1)
    assert "download them before you leave" in found["refused"]
    undone = yaml.safe_load(found["undone"])
    assert ["status" in entry for entry in undone] == [False, False]


@needs_browser
def test_any_reason_comes_back_as_it_was_typed(tmp_path):
    texts = [
        "'single' \"double\" \\ back",
        "a: b # c",
        "- x",
        "é ü 脊髄 🧠",
        "\x07bell \x7f\x85 end",
        "{a: [b]}",
        "null",
        "\ud800",
    ]
    script = "out.all = " + json.dumps(texts) + ".map((one) => { type('Reviewer', one); return yaml(); });"
    found = play(tmp_path, "key('p');" + script)
    for text, written in zip(texts, found["all"], strict=True):
        path = tmp_path / "review.yaml"
        path.write_text(written, encoding="utf-8")
        (mark,) = read_review(path)
        assert yaml.safe_load(written)[0]["reviewer"] == text.strip().replace("\ud800", "\ufffd")
        assert written == format_marks(
            [
                Mark(
                    image=mark.image,
                    status="pass",
                    reviewer=text.strip().replace("\ud800", "\ufffd"),
                    date=mark.date,
                )
            ]
        )


@needs_browser
def test_pictures_overlays_help_and_the_large_view_by_keyboard(tmp_path):
    found = play(
        tmp_path,
        r"""
        const shown = (node) => getComputedStyle(node).display !== "none";
        const second = document.querySelectorAll(".mosaic")[1];
        const tile = second.querySelector(".tile");
        const layers = () => [0, 1, 2].map((n) => shown(tile.querySelector(".layer.l" + n)));
        key("j");
        out.first = layers(); key("v");
        out.second = layers(); key("3");
        out.third = layers(); key("v");
        out.again = layers();
        const line = tile.querySelector(".cover.o0");
        out.line = [shown(line)]; key(" "); out.line.push(shown(line)); key(" "); out.line.push(shown(line));
        key("ArrowRight"); key("Enter");
        const zoom = document.querySelector("dialog.zoom");
        out.zoom = [zoom.open, zoom.parentNode === second, zoom.contains(document.activeElement)];
        key("Enter"); out.unmarked = yaml().includes("- image");
        key("a"); out.words = zoom.querySelector(".zoom-words").textContent;
        key("ArrowRight"); out.next = zoom.querySelector(".zoom-words").textContent;
        zoom.close();
        const help = document.querySelector("dialog.help");
        key("?"); out.help = help.open; key("f"); help.close();
        out.ctrl = (key("p", { ctrlKey: true }), yaml().includes("status: pass"));
        const box = help.querySelector("input"); box.checked = false; box.dispatchEvent(new Event("change"));
        key("p"); out.off = yaml().includes("status: pass");
        const filter = document.createElement("input"); document.body.append(filter); filter.focus();
        box.checked = true; box.dispatchEvent(new Event("change"));
        key("p"); out.typed = yaml().includes("status: pass");
        out.tabs = second.querySelectorAll('.tile[tabindex="0"]').length;
        out.names = [...document.querySelectorAll(".tile")].every((one) => one.getAttribute("aria-label"));
        """,
    )
    assert found["first"] == [True, False, False]
    assert found["second"] == [False, True, False]
    assert found["third"] == [False, False, True]
    assert found["again"] == [True, False, False]
    assert found["line"] == [True, False, True]
    assert found["zoom"] == [True, True, True]
    assert found["unmarked"] is False
    assert found["words"] == f"{MTS}: C4, slice 12, 70.0\u00a0mm², low confidence ; MT-on"
    assert "slice 13" in found["next"]
    assert found["help"] is True
    assert (found["ctrl"], found["off"], found["typed"]) == (False, False, False)
    assert (found["tabs"], found["names"]) == (1, True)


@needs_browser
def test_the_page_as_it_is_runs_its_script_and_a_list_counts_the_marks(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(render_report(make_result()), encoding="utf-8")
    text = in_browser(page)
    assert 'id="review-yaml"' in text
    assert "0 of 2 images marked" in text
    links = [PageLink(name="sub-01", path="sub-01/report.html")]
    index = Result(kind="cord", title="t", status=Status.PASS, figures=(figures.pages("P", links),))
    script = """
      const link = document.querySelector(".page-list a");
      const marks = { "sub-01_T2w": { status: "fail", date: "2025-03-01T00:00:00Z", slices: {} } };
      const state = { total: 2, marks };
      localStorage.setItem("cordqa-review:" + link.href, JSON.stringify(state));
    """
    # What a page kept is there when the list is opened: the script of the list runs after this one.
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render_report(index))
    listing = tmp_path / "index.html"
    listing.write_text(html.replace("</main>", f"</main><script>{script}</script>"), encoding="utf-8")
    text = in_browser(listing)
    assert "1 of 2 images marked, 1 left out" in text
    assert "Download all marks" in text
