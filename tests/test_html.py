"""What notebooks show: well-formed, escaped, and nothing that runs or comes from elsewhere."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splitiot as si
from splitiot.models import load_bundle, save_bundle
from splitiot.pipeline import Boundary, RuntimeInfo, TensorSpec
from tests import networks
from tests.pipelines import SizedPipeline

HOSTILE = "<script>alert(1)</script>\"' onload='x\x1b[31m\u202e&amp;"
VOID = {"br", "hr"}


class Page(HTMLParser):
    """Checks that tags are few, balanced and without anything that acts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.open, self.rows = "", [], []
        self.styles: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"div", "b", "table", "thead", "tbody", "tr", "th", "td", "span", "pre"}
        assert {name for name, _ in attrs} <= {"style", "colspan"}
        style = dict(attrs).get("style") or ""
        assert "url(" not in style
        assert "expression" not in style
        self.styles.append(style)
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def page(thing: Any) -> Page:
    html = thing._repr_html_()
    assert html.isprintable() or "<pre" in html
    return Page(html)


def profile_of(pipeline: Any, step_s: float = 0.01, **more: Any) -> Any:
    return si.TierProfile.from_steps(pipeline.digest, [step_s] * pipeline.n, **more)


def test_a_model() -> None:
    model = si.load_model(networks.early_output())
    shown = page(model)
    assert "model" in shown.text
    assert model.digest in shown.text
    assert [row[0] for row in shown.rows[1:]] == ["0", "1", "2", "3", "4", "5"]
    assert [row[2] for row in shown.rows[1:]] == ["288", "576", "576", "576", "288", "0"]
    assert shown.rows[-1][4] == "nothing: all local"


def test_refused_cuts_say_why() -> None:
    model = si.load_model(networks.where())
    shown = page(model)
    assert shown.rows[4][4] == "refused [1]"
    assert f"[1] {model.refused[3]}" in shown.text


def test_a_bundle_and_functions(tmp_path: Path) -> None:
    model = si.load_model(networks.early_output())
    assert "no head in this bundle" in page(load_bundle(save_bundle(model, tmp_path / "b", cuts=[2]))).text

    def double(x: Any) -> Any:
        return 2 * x

    shown = page(si.tasks([double], version="1"))
    assert shown.rows[1][1:] == ["(the input)", "", "", "(known when it runs)"]
    assert shown.rows[2][1] == "double"


def test_a_profile() -> None:
    pipeline = SizedPipeline([8, 4, 2])
    runtime = RuntimeInfo("litert", "2", "default", HOSTILE)
    shown = page(profile_of(pipeline, machine=HOSTILE, runtime=runtime))
    assert [row[1] for row in shown.rows[1:]] == ["0.000", "10.0", "20.0"]
    assert [row[3] for row in shown.rows[1:]] == ["20.0", "10.0", "0.000"]
    assert "<script>alert(1)</script>" in shown.text  # as text: the parser has seen no such tag
    page(profile_of(pipeline, 0.0))  # no time at all


def test_costs_and_a_plan() -> None:
    pipeline = SizedPipeline([8_000, 400, 20])
    topology = si.Topology(tiers=[profile_of(pipeline), profile_of(pipeline, 0.001)], links=[si.Link(0.01, 1e5, 1e5)])
    table = si.costs(pipeline, topology)
    shown = page(table)
    assert [row[0] for row in shown.rows[1:]] == ["0", "1", "2"]
    assert [row[8] for row in shown.rows[1:]] == [f"{1e3 * s:,.1f}" for s in table.latency_s]
    plan = si.solve(pipeline, topology)
    said = page(plan)
    assert plan.explain() in said.text
    bold = [style for style in said.styles if "font-weight:bold" in style]
    assert len(bold) == 1
    masked = table.masked(np.array([True, False, False]))
    assert sum("opacity:0.55" in style for style in page(masked).styles) == 2
    page(table.masked(np.zeros(3, bool)))  # nothing is allowed
    page(table.at(link=si.Link(0.01, math.inf, math.inf)))


@pytest.mark.parametrize("name", [HOSTILE, "x" * 10_000, "\udc80", "", "$x$"])
def test_hostile_names_are_text(name: str) -> None:
    class Named(SizedPipeline):
        def boundary(self, cut: int) -> Boundary:
            return Boundary((TensorSpec(name, "uint8", (4,)),) * 5)

    pipeline = Named([4, 4])
    pipeline.name, pipeline.warnings = name, (name,)  # type: ignore[attr-defined]
    shown = page(pipeline)
    assert "and 2 more" in shown.text
    assert "\x1b" not in shown.text
    assert "\u202e" not in shown.text
    assert max(len(cell) for row in shown.rows for cell in row) < 300
    pipeline._repr_html_().encode()


def test_long_tables_are_shortened() -> None:
    shown = page(SizedPipeline([4] * 1001))
    assert len(shown.rows) == 152
    assert "851 rows left out" in shown.text
