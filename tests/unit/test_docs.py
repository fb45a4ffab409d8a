"""The documentation keeps its word: links lead somewhere, and samples run."""

import ast
import json
import re
from pathlib import Path

import pytest
from django.urls import include, path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [file.relative_to(ROOT).as_posix() for file in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]]

BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)")  # of this repository, not of the web
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def text_of(page):
    return (ROOT / page).read_text()


def samples(page, language):
    """The page's code blocks of that language, each at the line on which it stands."""
    text = text_of(page)
    return [
        "\n" * (text.count("\n", 0, block.start()) + 1) + re.sub(rf"^{block[1]}", "", block[3], flags=re.MULTILINE)
        for block in BLOCK.finditer(text)
        if block[2] == language
    ]


def anchors(page):
    """The fragments that a page's headings have."""
    titles = HEADING.findall(BLOCK.sub("", text_of(page)))
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    for name, fragment in LINK.findall(BLOCK.sub("", text_of(page))):
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), f"{page} links to {name}, which is not there"
        if fragment:
            assert fragment in anchors(target.resolve().relative_to(ROOT)), f"{page} links to #{fragment}"


@pytest.mark.parametrize("page", PAGES)
def test_json_samples_are_json(page):
    for sample in samples(page, "json"):
        rest = sample.strip()
        while rest:  # one value, or one after the other
            _, end = json.JSONDecoder().raw_decode(rest)
            rest = rest[end:].lstrip()


@pytest.mark.parametrize("page", [page for page in PAGES if samples(page, "python")])
def test_python_samples_run_one_after_the_other(page):
    # what a settings.py and a urls.py have before a sample's line is added
    namespace = {"__name__": "sample", "INSTALLED_APPS": [], "urlpatterns": [], "path": path, "include": include}
    for sample in samples(page, "python"):
        exec(compile(ast.parse(sample, page), page, "exec"), namespace)  # noqa: S102 - our own samples
